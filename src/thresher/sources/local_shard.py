"""A large file that is read at offsets by many threads: what it is, and one on a local disk."""

from __future__ import annotations

import os
from typing import Protocol


class Shard(Protocol):
    """A file of fixed size. ``read_at`` may be called from several threads at once.

    Attributes:
        size: in bytes.
        version: changes with the content; empty where a server does not tell.
    """

    size: int
    version: str

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes from ``offset``; fewer than ``length`` only at the end of the file."""
        ...

    def close(self) -> None:
        """Release what it holds; no reads after this."""
        ...


class LocalShard:
    """A file on a local disk, read with ``pread``, which needs no lock and no seek.

    Args:
        path: of the file.
        version: of what it is a copy of; None: it is itself meant.
    """

    def __init__(self, path: str, version: str | None = None) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._handle)
        self.size = status.st_size
        self.version = str(status.st_mtime_ns) if version is None else version

    def read_at(self, offset: int, length: int) -> bytes:
        """See ``Shard``."""
        data = os.pread(self._handle, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]  # network file systems may return less than was asked for
        while data and (got := sum(map(len, parts))) < length:
            data = os.pread(self._handle, length - got, offset + got)
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """See ``Shard``."""
        os.close(self._handle)
