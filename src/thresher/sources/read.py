"""The bytes of a sample by its id, from whatever it lies in; for many threads at once.

A kind of data is one class with ``read`` and ``close``, entered in ``_FETCHERS``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote

import numpy as np

from thresher.sources.caffe_lmdb import LmdbRecords
from thresher.sources.manifest import Manifest
from thresher.sources.parquet_rows import ParquetRows
from thresher.sources.places import is_url, join, shown
from thresher.sources.read_error import ReadError
from thresher.sources.remote.base import FILE_CHANGED, Listed
from thresher.sources.remote.disk_cache import cache_name, default_cache
from thresher.sources.remote.store import store_for
from thresher.sources.shards import ShardPool

__all__ = ["ReadError", "Reader"]


class Fetcher(Protocol):
    """Reads one kind of data. Thread-safe."""

    def read(self, index: int, shard: int, offset: int, length: int) -> bytes:
        """The bytes of a sample, which lie at this location of the manifest.

        Raises:
            OSError: they cannot be had; a ``ReadError`` if the reason is known.
        """
        ...

    def close(self) -> None:
        """Release what is open."""
        ...


class Reader:
    """Reads samples of a manifest by id. Thread-safe; may be pickled to another process."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._shard = np.asarray(manifest.table["shard"].to_numpy())
        self._offset = np.asarray(manifest.table["offset"].to_numpy())
        self._length = np.asarray(manifest.table["length"].to_numpy())
        self._fetcher = _FETCHERS[manifest.kind](manifest)

    def read(self, index: int) -> bytes:
        """The encoded image as it was stored.

        Raises:
            ReadError: it cannot be read; the message is the reason, short and plain.
            UserError: no sample can be read any more (credentials expired, a server is down);
                to mark samples for that would be wrong.
        """
        try:
            return self._fetcher.read(
                index,
                int(self._shard[index]),
                int(self._offset[index]),
                int(self._length[index]),
            )
        except ReadError:
            raise
        except FileNotFoundError:
            raise ReadError("file vanished") from None
        except PermissionError:
            raise ReadError("no right to read the file") from None
        except OSError as error:
            raise ReadError(f"cannot be read: {error.strerror or error}") from None

    def place(self, index: int) -> str:
        """Where a sample lies, for messages."""
        key, shard = self._manifest.key(index), self._manifest.shards[self._shard[index]]
        if self._manifest.kind == "files":
            return shown(join(shard, key))
        return f"{shown(key)} in {shown(shard)}"

    def close(self) -> None:
        """Close what is open. Reading afterwards opens it again."""
        self._fetcher.close()

    def __reduce__(self) -> tuple[type[Reader], tuple[Manifest]]:
        return Reader, (self._manifest,)


class _Files:
    """A file per image."""

    def __init__(self, manifest: Manifest) -> None:
        self._folders = manifest.shards
        self._keys = manifest.table["key"]  # which ``Manifest.key`` looks up in every call

    def read(self, index: int, shard: int, offset: int, length: int) -> bytes:
        folder, key = self._folders[shard], str(self._keys[index].as_py())
        if is_url(folder) or is_url(key):  # a local table may list web addresses
            return self._read_remote(folder, key, version=offset, length=length)
        path = os.path.join(folder, key)  # noqa: PTH118 - half the time of Path
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            data = file.read()
        if 0 <= length != len(data):
            raise ReadError(FILE_CHANGED)
        return data

    def _read_remote(self, folder: str, key: str, version: int, length: int) -> bytes:
        """Kept in the local cache where the index tells which content is meant."""
        web = folder.startswith(("http://", "https://"))
        url = join(folder, quote(key) if web and not is_url(key) else key)
        if version < 0 or length < 0:
            return store_for(url).read_whole(url)
        cache, name = default_cache(), cache_name("file", url, length, version)
        data = cache.read(name, 0, length, length)
        if data is None:
            data = store_for(url).read_whole(url, Listed(length, version))
            cache.write(name, data)
        return data

    def close(self) -> None:
        """Nothing stays open."""


class _Ranges:
    """Ranges of bytes in shards: tars, or any format that stores images uncompressed."""

    def __init__(self, manifest: Manifest) -> None:
        self._paths = manifest.shards
        self._sizes = manifest.options.get("shard_sizes")
        self._pool = ShardPool()

    def read(self, index: int, shard: int, offset: int, length: int) -> bytes:  # noqa: ARG002
        with self._pool.lend(self._paths[shard]) as opened:
            if self._sizes is not None and opened.size != self._sizes[shard]:
                raise ReadError("shard changed since it was indexed")
            data = opened.read_at(offset, length)
        if len(data) != length:
            raise ReadError("shard changed since it was indexed")
        return data

    def close(self) -> None:
        self._pool.close()


_FETCHERS: dict[str, Callable[[Manifest], Fetcher]] = {
    "files": _Files,
    "tar": _Ranges,
    "parquet": ParquetRows,
    "lmdb": LmdbRecords,
}
