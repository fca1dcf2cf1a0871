"""Paths and URLs alike: what a name stands for, before anything is read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

_LOGIN = re.compile(r"://[^/]*@")  # a password may have an @ of its own
_WEB = re.compile(r"https?://", re.IGNORECASE)
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")


def is_url(place: str) -> bool:
    """Whether this is a URL; ``file:`` URLs are none any more once ``plain`` has seen them."""
    return _URL.match(place) is not None


def protocol(url: str) -> str:
    """The part before ``://``, in lower case."""
    match = _URL.match(url)
    assert match is not None, url
    return match.group(1).lower()


def plain(data: str) -> str:
    """The path that a ``file:`` URL means; anything else as it is."""
    if not data.lower().startswith("file:"):
        return data
    path = data[len("file:") :]
    if path.startswith("//"):
        host, _, path = path[2:].partition("/")
        path = f"/{path}" if host in ("", "localhost") else f"//{host}/{path}"
    return unquote(path)


def absolute(place: str) -> str:
    """An absolute path, or the URL as it is."""
    return place if is_url(place) else os.path.abspath(place)  # noqa: PTH100 - links stay


def folder_of(place: str) -> str:
    """The folder that a file lies in, without a slash at its end."""
    return place.rpartition("/")[0] if is_url(place) else os.path.dirname(absolute(place))  # noqa: PTH120


def name_of(place: str) -> str:
    """The last part of a path or URL, without the query of a signed URL."""
    return strip_query(place).rstrip("/").rpartition("/")[2]


def strip_query(place: str) -> str:
    """A URL without what follows ``?``; signatures there change, and are secret."""
    return place.partition("?")[0] if _WEB.match(place) else place


def folder_name(data: str) -> str:
    """A name for a folder of results: the same for the same data, and without secrets.

    Of a URL, its last part or else its host; never its query, in which signatures are, nor a
    password.
    """
    data = plain(data)
    if is_url(data):
        bare = _LOGIN.sub("://", re.split(r"[?#]", data, maxsplit=1)[0])
        host, *parts = bare.partition("://")[2].split("/")
        last = next((part for part in reversed(parts) if part), host)
        stem = last if last == host else Path(last).stem
    else:
        stem = Path(data).absolute().stem
    return re.sub(r"[^\w-]+", "-", stem).strip("-") or "data"


def join(folder: str, name: str) -> str:
    """A name below a folder; an absolute path or URL stands for itself."""
    if is_url(name) or os.path.isabs(name):  # noqa: PTH117
        return name
    if not is_url(folder):
        return os.path.join(folder, name)  # noqa: PTH118
    return f"{folder.rstrip('/')}/{name}"


def relative_names(places: Sequence[str]) -> list[str]:
    """The names below the folder that all of them share."""
    plain_places = [strip_query(place) for place in places]
    if any(map(is_url, plain_places)):
        folders = [folder_of(place).split("/") for place in plain_places]
        common = next(
            (i for i, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1),
            min(map(len, folders)),
        )
        return ["/".join(place.split("/")[common:]) for place in plain_places]
    common_folder = os.path.commonpath([folder_of(place) for place in plain_places])
    return [os.path.relpath(place, common_folder) for place in plain_places]


def shown(place: str) -> str:
    """A path or URL for a message: printable, without signatures and passwords."""
    place = strip_query(place).encode("utf-8", "backslashreplace").decode()
    if is_url(place):
        place = _LOGIN.sub("://", place)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in place)


def origin(url: str) -> str:
    """The server or bucket of a URL, for messages about all of it."""
    return "/".join(shown(url).split("/")[:3])
