"""Telling whether an image is the one that was looked at before, without reading it.

A stamp is 64 bits that change when the file does: of a file its path, size and time of change,
of an image in a shard the shard's and where in it the image lies. At a URL, what the server told of
size and version (an ETag, say) when the data were opened stands for size and time.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from urllib.parse import quote

import numpy as np
import xxhash

from thresher.sources.manifest import Manifest
from thresher.sources.places import is_url, join, strip_query
from thresher.sources.remote.errors import NoAccess
from thresher.sources.sizes import versions_now

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
        # In place of a version that a server does not tell, so that no later scan recognises it.
        self._unknown = uuid.uuid4().hex
        self._shard_sizes = manifest.options.get("shard_sizes")
        self._shard_versions = manifest.options.get("shard_versions")

    def stamps(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """uint64[k], the stamps of these rows, and int64[k], their sizes or -1."""
        if self._files:
            return self._file_stamps(start, stop)
        shard = self._shard[start:stop].tolist()
        offset, length = self._offset[start:stop], self._length[start:stop]
        for index in set(shard) - self._of_shard.keys():
            self._of_shard[index] = self._shard_stamp(index)
        found = [
            _hash(self._of_shard[index], *place)
            for index, *place in zip(shard, offset.tolist(), length.tolist(), strict=True)
        ]
        return np.array(found, dtype=np.uint64), length

    def _shard_stamp(self, index: int) -> int:
        place = self._shards[index]
        if not is_url(place):
            return _hash(place, *_size_and_time(place))
        # What was known as it was opened, not now: that is what offsets and rows belong to.
        size = self._shard_sizes[index] if self._shard_sizes else None
        version = self._shard_versions[index] if self._shard_versions else ""
        # Without the query: the signature of a signed URL is another one every day.
        return _remote_hash(
            strip_query(place) if version else place, size, version or self._unknown
        )

    def _file_stamps(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        found: list[int] = []
        sizes: list[int] = []
        listed: dict[int, str] = {}
        asked: dict[int, str] = {}
        keys = self._keys.slice(start, stop - start).to_pylist()
        for key, index in zip(keys, self._shard[start:stop].tolist(), strict=True):
            folder = self._shards[index]
            if is_url(folder) or is_url(key):  # a local table may list web addresses
                row = len(found)
                known = self._offset[start + row] >= 0 and self._length[start + row] >= 0
                (listed if known else asked)[row] = _url(folder, key)
                found.append(0)
                sizes.append(-1)
                continue
            path = os.path.join(folder, key)  # noqa: PTH118 - a row of millions
            size, time = _size_and_time(path)
            found.append(_hash(path, size, time))
            sizes.append(size)
        for row, url in listed.items():
            # As they were listed, not now: workers read what the cache keeps of that version.
            size, version = int(self._length[start + row]), int(self._offset[start + row])
            found[row], sizes[row] = _remote_hash(url, size, str(version)), size
        told = self._remote_stamps(list(asked.values()))
        for row, (stamp, size) in zip(asked, told, strict=True):
            found[row], sizes[row] = stamp, size
        return np.array(found, dtype=np.uint64), np.array(sizes, dtype=np.int64)

    def _remote_stamps(self, urls: Sequence[str]) -> list[tuple[int, int]]:
        """Stamp and size of each file, by asking for each.

        Queries count: 'image?id=1' and 'image?id=2' are two images.
        """
        try:
            told = versions_now(urls)
        except NoAccess as error:
            # The workers will meet it too, and their end of the scan keeps what was looked at.
            told = [OSError(str(error))] * len(urls)
        stamps = []
        for url, now in zip(urls, told, strict=True):
            size, version = (None, "") if isinstance(now, OSError) else now
            stamp = _remote_hash(url, size, version or self._unknown)
            stamps.append((stamp, -1 if size is None else size))
        return stamps


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - a row of millions
    except (OSError, ValueError):  # reading it will say why
        return _GONE
    return status.st_size, status.st_mtime_ns


def _url(folder: str, key: str) -> str:
    """The URL that a reader asks for."""
    web = folder.startswith(("http://", "https://"))
    return join(folder, quote(key) if web and not is_url(key) else key)


def _remote_hash(url: str, size: int | None, version: str) -> int:
    return _hash(url, -1 if size is None else size, version)


def _hash(*parts: str | int) -> int:
    text = "\0".join(map(str, parts))
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogateescape"))
