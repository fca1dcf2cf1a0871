"""A remote file as a ``Shard``: read in blocks, which are kept in the local cache."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import BinaryIO

from thresher.sources.local_shard import LocalShard, Shard
from thresher.sources.places import strip_query
from thresher.sources.remote.base import Found, Store
from thresher.sources.remote.disk_cache import DiskCache, cache_name, default_cache
from thresher.sources.remote.errors import Passing
from thresher.sources.remote.retry import Persistence
from thresher.sources.remote.store import PATIENCE, store_for

BLOCK = 256 << 10
_MOST_AHEAD = 16  # blocks that sequential reading fetches at once beyond what it asked for
_UNKNOWN = uuid.uuid4().hex  # a version that the next process does not take for its own
_MOST_AT_ONCE = 32  # blocks, so that one answer comes within the time for one


class RemoteShard:
    """A file at a URL, read by ranges. Its size and version are those it had when opened."""

    def __init__(self, url: str, found: Found, cache: DiskCache) -> None:
        assert found.size is not None
        self.size = found.size
        self.version = found.version
        self._url = url
        self._found = found
        self._cache = cache
        # Without the query: the signature of a signed URL is another one every day.
        self._name = cache_name(strip_query(url), found.size, found.version or _UNKNOWN)
        self._next = 0  # the block that sequential reading would ask for
        self._ahead = 0
        self._last: tuple[int, bytes] = (0, b"")  # offset and content of the last answer

    def read_at(self, offset: int, length: int) -> bytes:
        """See ``Shard``."""
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        parts = []
        position = offset
        while position < end:
            part = self._cached(position, end) or self._fetched(position, end)
            parts.append(part)
            position += len(part)
        return b"".join(parts)

    def close(self) -> None:
        """See ``Shard``; connections belong to the store."""
        self._last = (0, b"")

    def _cached(self, start: int, end: int) -> bytes | None:
        """What is at hand from ``start``: from the last answer, or from one block on disk."""
        base, data = self._last
        if base <= start < base + len(data):
            return data[start - base : end - base]
        block = start // BLOCK
        first = block * BLOCK
        length = min(end, first + BLOCK) - start
        return self._cache.read(self._block_name(block), start - first, length, self._size(block))

    def _fetched(self, start: int, end: int) -> bytes:
        """Fetch the blocks up to ``end``, or the next that is at hand, and some ahead."""
        first = block = start // BLOCK
        # Headers of a tar lie some blocks apart, and still they are read in order.
        in_order = 0 <= first - self._next <= 4
        self._ahead = min(_MOST_AHEAD, self._ahead * 2 or 1) if in_order else 0
        wanted = -(-end // BLOCK)
        last = min(max(wanted, first + 1) + self._ahead, first + _MOST_AT_ONCE)
        last = min(last, -(-self.size // BLOCK))
        base = first * BLOCK
        # Asked for each time, because a fork leaves the connections of its parent behind.
        store = store_for(self._url)
        data = store.read(self._url, base, min(last * BLOCK, self.size), self._found)
        self._next = last
        kept = True
        for block in range(first, last):
            piece = data[block * BLOCK - base : (block + 1) * BLOCK - base]
            kept = self._cache.write(self._block_name(block), piece) and kept
        # In memory only where the disk does not take it: there may be many shards.
        self._last = (0, b"") if kept else (base, data)
        return data[start - base : end - base]

    def _size(self, block: int) -> int:
        return min(BLOCK, self.size - block * BLOCK)

    def _block_name(self, block: int) -> str:
        return f"{self._name}-{block}"


def open_remote(url: str) -> Shard:
    """Open a file at a URL; one whose server knows no ranges is copied whole.

    Raises:
        ReadError: it is not there, or cannot be read.
        UserError: no access at all.
    """
    store = store_for(url)
    found = store.stat(url)
    if found.ranged and found.size is not None:
        return RemoteShard(url, found, default_cache())
    return LocalShard(str(_copy(url, store, found)), found.version)


def local_copy(url: str) -> Path:
    """The path of a copy in the local cache, made now if there is none of this version.

    Raises:
        ReadError: it cannot be read, or is larger than the cache.
        UserError: no access at all.
    """
    store = store_for(url)
    return _copy(url, store, store.stat(url))


def _copy(url: str, store: Store, found: Found) -> Path:
    cache = default_cache()
    name = cache_name("whole", strip_query(url), found.size, found.version or _UNKNOWN)
    size = -1 if found.size is None else found.size

    def by_ranges(file: BinaryIO) -> None:
        step = BLOCK * _MOST_AT_ONCE
        for start in range(0, size, step):
            file.write(store.read(url, start, min(size, start + step), found))

    def as_it_comes(file: BinaryIO) -> None:
        def attempt() -> None:
            file.seek(0)
            file.truncate()
            for piece in store.stream(url):
                cache.require_room(file.tell() + len(piece))
                file.write(piece)
            if size >= 0 and file.tell() != size:
                raise Passing(f"{file.tell()} of {size} bytes came")

        Persistence(PATIENCE).call(attempt, url)

    return cache.make(name, size, by_ranges if found.ranged and size >= 0 else as_it_comes)


class ShardFile(io.RawIOBase):
    """A shard as a file, for libraries that read files."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As for any file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._shard.size}
        self._position = max(0, base[whence] + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As for any file."""
        data = self._shard.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """As for any file; all that was asked for, unless the file ends."""
        length = self._shard.size - self._position if size is None or size < 0 else size
        data = self._shard.read_at(self._position, max(0, length))
        self._position += len(data)
        return data

    def close(self) -> None:
        """Close the shard too."""
        if not self.closed:
            self._shard.close()
        super().close()
