"""Large files that are read at offsets, by many threads, with few of them open at a time.

A source of another place is one more class with the methods of ``Shard`` and one more line in
``open_shard``; ``remote/shard.py`` has that for URLs.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator

from thresher.errors import UserError
from thresher.sources.local_shard import LocalShard, Shard
from thresher.sources.places import is_url
from thresher.sources.remote.shard import open_remote
from thresher.sources.request import printable


def open_shard(path: str) -> Shard:
    """Open a shard by its path or URL.

    Raises:
        OSError: as for any file.
        UserError: nothing can be read at that URL's server, or a package is missing.
    """
    if is_url(path):
        return open_remote(path)
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
            lent = self._idle_or_busy.setdefault(path, _Lent())
            self._idle_or_busy.move_to_end(path)
            lent.users += 1
            self._close_idle(keep=self._most)
        try:
            yield lent.open(path)
        finally:
            with self._lock:
                lent.users -= 1
                if lent.shard is None and lent.users == 0:
                    self._idle_or_busy.pop(path, None)
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
            shard = self._idle_or_busy.pop(path).shard
            if shard is not None:
                shard.close()


class _Lent:
    """A shard and how many threads are reading it."""

    def __init__(self) -> None:
        self.shard: Shard | None = None
        self.users = 0
        self._lock = threading.Lock()

    def open(self, path: str) -> Shard:
        """The shard, opened once; a slow server holds up only those who want this shard."""
        with self._lock:
            if self.shard is None:
                self.shard = open_shard(path)
            return self.shard


def require_plain_name(name: str, archive: str) -> None:
    """Refuse a member that would lie outside the folder an archive is unpacked in.

    Nothing is unpacked here, but the name goes into tables that other tools may follow.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise UserError(
            f"The member '{printable(name)[:200]}' of {archive} points outside the archive. "
            "Such names are refused; write the archive again without them."
        )
