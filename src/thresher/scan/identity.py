"""Naming data in what a scan keeps and shows: the same from everywhere, and without secrets."""

from __future__ import annotations

import re
from pathlib import Path

from thresher.sources.places import is_url, plain, protocol, shown


def identity(data: str) -> str:
    """What data are, wherever they are asked for: an absolute path, or a URL without secrets."""
    data = plain(data)
    return public(data) if is_url(data) else str(Path(data).absolute())


def public(place: str) -> str:
    """A URL without its query and password, which may be secret; anything else as it is."""
    if not is_url(place):
        return place
    kind = protocol(place)
    return shown(kind + place[len(kind) :])


def public_record(data: str) -> str:
    """What an earlier version kept as an identity: a URL made into a path, with its query."""
    return re.sub(r"(?i)(https?:/[^?]*)\?.*", r"\1", re.sub(r"(:/+)[^/@]*@", r"\1", data))
