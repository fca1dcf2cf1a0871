"""Large files that are read at offsets, by many threads, with few of them open at a time.

A source of another place (an object store, say) is one more class with the methods of ``Shard``
and one more line in ``open_shard``.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from thresher.errors import UserError
from thresher.sources.request import printable


class Shard(Protocol):
    """A file of fixed size. ``read_at`` may be called from several threads at once."""

    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes from ``offset``; fewer than ``length`` only at the end of the file."""
        ...

    def close(self) -> None:
        """Release what it holds; no reads after this."""
        ...


class LocalShard:
    """A file on a local disk, read with ``pread``, which needs no lock and no seek."""

    def __init__(self, path: str) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._handle).st_size

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


def open_shard(path: str) -> Shard:
    """Open a shard by its path.

    Raises:
        OSError: as for any file.
    """
    return LocalShard(path)


class ShardPool:
    """Keeps the most recently used shards open. Thread-safe; a shard in use is never closed."""

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._idle_or_busy: OrderedDict[str, _Lent] = OrderedDict()

    @contextlib.contextmanager
    def lend(self, path: str) -> Iterator[Shard]:
        """Yield the open shard at ``path``."""
        with self._lock:
            lent = self._idle_or_busy.get(path)
            if lent is None:
                # Opening under the lock is short, and keeps two threads from opening it twice.
                lent = self._idle_or_busy[path] = _Lent(open_shard(path))
            self._idle_or_busy.move_to_end(path)
            lent.users += 1
            self._close_idle(keep=self._most)
        try:
            yield lent.shard
        finally:
            with self._lock:
                lent.users -= 1
                self._close_idle(keep=self._most)

    def close(self) -> None:
        """Close all shards that no thread is reading."""
        with self._lock:
            self._close_idle(keep=0)

    def _close_idle(self, keep: int) -> None:
        excess = len(self._idle_or_busy) - keep
        if excess <= 0:
            return
        idle = [path for path, lent in self._idle_or_busy.items() if lent.users == 0]
        for path in idle[:excess]:
            self._idle_or_busy.pop(path).shard.close()


class _Lent:
    """A shard and how many threads are reading it."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.users = 0


def require_plain_name(name: str, archive: str) -> None:
    """Refuse a member that would lie outside the folder an archive is unpacked in.

    Nothing is unpacked here, but the name goes into tables that other tools may follow.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise UserError(
            f"The member '{printable(name)[:200]}' of {archive} points outside the archive. "
            "Such names are refused; write the archive again without them."
        )
