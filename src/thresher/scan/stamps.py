"""Telling whether an image is the one that was looked at before, without reading it.

A stamp is 64 bits that change when the file does: of a file its path, size and time of change,
of an image in a shard the shard's and where in it the image lies.
"""

from __future__ import annotations

import os

import numpy as np
import xxhash

from thresher.sources.manifest import Manifest

MOST_BYTES = 512 << 20  # an "image" beyond this is a disk image; it would not fit into memory
_GONE = (-1, -1)


class Stamper:
    """Makes the stamps of a manifest's rows."""

    def __init__(self, manifest: Manifest) -> None:
        self._files = manifest.kind == "files"
        self._shards = manifest.shards
        self._keys = manifest.table["key"]
        self._shard = manifest.table["shard"].to_numpy()
        self._offset = manifest.table["offset"].to_numpy()
        self._length = manifest.table["length"].to_numpy()
        self._of_shard: dict[int, int] = {}

    def stamps(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """uint64[k], the stamps of these rows, and int64[k], their sizes or -1."""
        if self._files:
            return self._file_stamps(start, stop)
        shard = self._shard[start:stop].tolist()
        offset, length = self._offset[start:stop], self._length[start:stop]
        for index in set(shard) - self._of_shard.keys():
            path = self._shards[index]
            self._of_shard[index] = _hash(path, *_size_and_time(path))
        found = [
            _hash(self._of_shard[index], *place)
            for index, *place in zip(shard, offset.tolist(), length.tolist(), strict=True)
        ]
        return np.array(found, dtype=np.uint64), length

    def _file_stamps(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        found, sizes = [], []
        keys = self._keys.slice(start, stop - start).to_pylist()
        for key, index in zip(keys, self._shard[start:stop].tolist(), strict=True):
            path = os.path.join(self._shards[index], key)  # noqa: PTH118 - a row of millions
            size, time = _size_and_time(path)
            found.append(_hash(path, size, time))
            sizes.append(size)
        return np.array(found, dtype=np.uint64), np.array(sizes, dtype=np.int64)


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - a row of millions
    except (OSError, ValueError):  # reading it will say why
        return _GONE
    return status.st_size, status.st_mtime_ns


def _hash(*parts: str | int) -> int:
    text = "\0".join(map(str, parts))
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogateescape"))
