"""Reading files at URLs through fsspec: sizes, ranges and listings, each tried again if it fails.

A store serves one protocol in one process. HTTP has one of its own, because only its answers tell
whether a server honours ranges and whether a file changed in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

from thresher.errors import UserError
from thresher.sources.places import protocol, shown
from thresher.sources.read_error import ReadError
from thresher.sources.remote.base import (
    CHANGED,
    FILE_CHANGED,
    Found,
    Listed,
    Store,
    run_async,
    version_number,
)
from thresher.sources.remote.errors import Passing, missing_package
from thresher.sources.remote.http import HttpStore
from thresher.sources.remote.retry import Patience, Persistence

_LIST_SECONDS = 600.0  # a listing is many requests, a thousand names each
PATIENCE = Patience()


_stores: dict[tuple[int, str], Store] = {}
_stores_lock = threading.Lock()


def store_for(url: str) -> Store:
    """The store of a URL, made once in each process (connections do not survive a fork).

    Raises:
        UserError: unknown protocol, or its package is not installed.
    """
    kind = protocol(url)
    with _stores_lock:
        key = (os.getpid(), kind)
        if key not in _stores:
            _stores[key] = _make_store(url, kind)
        return _stores[key]


def _make_store(url: str, kind: str) -> Store:
    try:
        import fsspec

        if kind in ("http", "https"):
            return HttpStore(fsspec.filesystem(kind, skip_instance_cache=True), PATIENCE)
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if kind in ("s3", "s3a"):
            # Tries are ours to count: those below would multiply with them.
            options["config_kwargs"] = {
                "retries": {"max_attempts": 0},
                "connect_timeout": 10,
                "read_timeout": PATIENCE.read_seconds,
            }
        file_system = fsspec.filesystem(kind, **options)
        if kind in ("s3", "s3a"):
            file_system.retries = 1
        return FsspecStore(file_system, kind, PATIENCE)
    except ImportError as error:
        raise missing_package(url, error) from None
    except ValueError:
        raise UserError(
            f"{shown(url)} is of an unknown protocol. Known: file:, http:, https:, s3:, and "
            "whatever fsspec has a package for."
        ) from None


class FsspecStore:
    """Any fsspec file system; an object store, usually."""

    def __init__(self, file_system: Any, kind: str, patience: Patience) -> None:
        self._files = file_system
        self._kind = kind
        self._persistence = Persistence(patience)

    def stat(self, url: str) -> Found:
        """See ``Store``."""
        info = self._call("info", url)
        if info.get("type") == "directory":
            raise IsADirectoryError(21, "it is a folder", shown(url))
        return Found(url, info.get("size"), _version(info))

    def read(self, url: str, start: int, end: int, found: Found) -> bytes:
        """See ``Store``."""

        def attempt() -> bytes:
            if self._kind in ("s3", "s3a"):
                data = self._read_s3(
                    url,
                    lambda version: not found.version or version == found.version,
                    CHANGED,
                    Range=f"bytes={start}-{end - 1}",
                )
            else:
                data = self._run("cat_file", url, start=start, end=end)
            if len(data) == end - start:
                return data
            now = self._run("info", url)
            if (now.get("size"), _version(now)) != (found.size, found.version):
                raise ReadError(CHANGED)
            raise Passing(f"{len(data)} of {end - start} bytes came")

        return self._persistence.call(attempt, url)

    def _read_s3(
        self, url: str, is_same: Callable[[str], bool], changed: str, **options: str
    ) -> bytes:
        """An object or a range of it, if it is the one that is meant; else ``changed`` is raised.

        fsspec's own call keeps the ETag of the answer to itself, and to ask before or after leaves
        time for another object to take its place.
        """
        bucket, key, _ = self._files.split_path(self._files._strip_protocol(url))

        async def fetch() -> bytes:
            try:
                answer = await self._files._call_s3("get_object", Bucket=bucket, Key=key, **options)
            except OSError as error:
                if error.errno == errno.EINVAL and "range" in str(error).lower():
                    raise ReadError(changed) from None  # it has become shorter
                raise
            with contextlib.closing(answer["Body"]) as body:
                if not is_same(_version(answer)):
                    raise ReadError(changed)
                return bytes(await body.read())

        seconds = self._persistence.patience.read_seconds
        return bytes(run_async(self._files, fetch, seconds=seconds))

    def read_whole(self, url: str, listed: Listed | None = None) -> bytes:
        """See ``Store``."""

        def is_same(version: str) -> bool:
            return listed is None or version_number(version) == listed.version

        def attempt() -> bytes:
            if listed is not None and self._kind in ("s3", "s3a"):
                data = self._read_s3(url, is_same, FILE_CHANGED)
            else:
                data = bytes(self._run("cat_file", url))
            if listed is None or len(data) == listed.size:
                return data
            now = self._run("info", url)
            if now.get("size") != listed.size or not is_same(_version(now)):
                raise ReadError(FILE_CHANGED)
            raise Passing(f"{len(data)} of {listed.size} bytes came")

        return self._persistence.call(attempt, url)

    def stream(self, url: str) -> Iterator[bytes]:
        """See ``Store``."""
        yield self.read_whole(url)

    def list_folder(self, url: str) -> tuple[list[str], list[str]]:
        """See ``Store``."""
        entries = self._call("ls", url, detail=True, seconds=_LIST_SECONDS)
        folders: list[str] = []
        files: list[str] = []
        for entry in entries:
            name = entry["name"].rstrip("/").rpartition("/")[2]
            (folders if entry["type"] == "directory" else files).append(name)
        return sorted(set(folders)), sorted(set(files) - {""})

    def find(self, url: str) -> list[Found]:
        """See ``Store``."""
        root = str(self._files._strip_protocol(url)).rstrip("/") + "/"
        infos = self._call("find", url, detail=True, seconds=_LIST_SECONDS)
        return [
            Found(name.removeprefix(root), info.get("size"), _version(info))
            for name, info in sorted(infos.items())
            if name.startswith(root) and not name.endswith("/")
        ]

    def glob(self, pattern: str) -> list[str]:
        """See ``Store``."""
        found = self._call("glob", pattern, seconds=_LIST_SECONDS)
        return [f"{self._kind}://{name}" for name in found]

    def _call(self, method: str, url: str, seconds: float | None = None, **options: Any) -> Any:
        return self._persistence.call(
            lambda: self._run(method, url, seconds=seconds, **options), url
        )

    def _run(self, method: str, url: str, seconds: float | None = None, **options: Any) -> Any:
        path = self._files._strip_protocol(url)
        if not self._files.async_impl:
            return getattr(self._files, method)(path, **options)
        return run_async(
            self._files,
            getattr(self._files, f"_{method}"),
            path,
            seconds=seconds or self._persistence.patience.read_seconds,
            **options,
        )


def _version(info: dict[str, Any]) -> str:
    """What changes with the content, of whatever the file system tells."""
    for name in ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created"):
        if info.get(name) is not None:
            return re.sub(r"\s", "", str(info[name]))
    return ""
