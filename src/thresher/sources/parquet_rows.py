"""Image bytes from Parquet files, which can only be read a row group at a time.

A row group is often a hundred megabytes, so that reading one for each image of a shuffled epoch
would be hundreds of times the work. What fits into memory stays there. Of larger data, groups that
are read in order pass through memory; one that is read out of order, or a second time, is spooled:
its images go once into a file of the local cache, from which any is read by its offset. With row
groups of 100 MB that is 13,000 images/s in the first shuffled epoch and 45,000 in the next, against
52 (benchmarks/parquet_rows.py, two cores).
"""

from __future__ import annotations

import bisect
import itertools
import os
import threading
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from thresher.sources.cache import SharedCache
from thresher.sources.damage import DamagedShard
from thresher.sources.manifest import Manifest
from thresher.sources.parquet import bytes_column
from thresher.sources.parquet_file import open_parquet_file
from thresher.sources.places import strip_query
from thresher.sources.read_error import ReadError
from thresher.sources.remote.disk_cache import DiskCache, NoRoom, cache_name, default_cache
from thresher.sources.sizes import version_of

CACHE_BYTES = 256 << 20
_CHANGED = "shard changed since it was indexed"
_ENTRY = 16  # bytes for each row at the beginning of a spool file: int64 start and length
_BATCH = 64  # rows held in memory while a group is spooled
_BUFFER = 1 << 20


class ParquetRows:
    """Reads rows by number. Thread-safe.

    Args:
        manifest: of kind ``parquet``.
        cache_bytes: of row groups in memory; data beyond that are spooled.
        spool: where; None: the user's cache.
    """

    def __init__(
        self, manifest: Manifest, cache_bytes: int = CACHE_BYTES, spool: DiskCache | None = None
    ) -> None:
        self._paths = manifest.shards
        self._sizes = manifest.options.get("shard_sizes")
        self._column = manifest.options["image_column"]
        self._footers: SharedCache[int, _Footer] = SharedCache(
            max(1, cache_bytes // 4), size_of=lambda footer: int(footer.metadata.serialized_size)
        )
        self._groups: SharedCache[tuple[int, int], pa.ChunkedArray] = SharedCache(
            cache_bytes, size_of=lambda group: int(group.nbytes)
        )
        self._spool: DiskCache | None = None
        total = manifest.options.get("image_bytes", sum(self._sizes or []))
        if total > cache_bytes:
            self._spool = spool or default_cache()
            self._warn_if_too_large(total)
        self._lock = threading.Lock()
        self._spooling = threading.Lock()  # one group at a time, to bound memory
        self._once: set[tuple[int, int]] = set()  # groups that were in memory before
        self._last: tuple[int, int] | None = None

    def read(self, index: int, shard: int, offset: int, length: int) -> bytes:  # noqa: ARG002
        """The bytes in row ``offset`` of a shard; see ``Fetcher``."""
        footer = self._footers.get(shard, lambda: self._read_footer(shard))
        if offset >= footer.starts[-1]:
            raise ReadError(_CHANGED)
        group = bisect.bisect_right(footer.starts, offset) - 1
        row = offset - footer.starts[group]
        if self._spool is not None and self._is_spooled(self._spool, shard, group, footer):
            try:
                return self._read_spooled(self._spool, shard, group, row, footer)
            except NoRoom as error:
                self._spool = None
                warnings.warn(f"{error} Until then, reading in random order is slow.", stacklevel=2)
        column = self._groups.get((shard, group), lambda: self._read_group(shard, group, footer))
        buffer = column[row].as_buffer()
        if buffer is None:
            raise ReadError("no image bytes in this row")
        return bytes(buffer)

    def close(self) -> None:
        """Forget what is cached; no file stays open."""
        self._footers.clear()
        self._groups.clear()

    def _is_spooled(self, spool: DiskCache, shard: int, group: int, footer: _Footer) -> bool:
        """Whether to read a group by its spool file; memory is for those read in order."""
        key = shard, group
        with self._lock:
            last, self._last = self._last, key
            if key in self._groups:
                return False
            in_order = last is None or key == last or _follows(last, key) or _follows(key, last)
            if not in_order or key in self._once or self._spool_name(*key, footer) in spool:
                return True
            self._once.add(key)
            return False

    def _spool_name(self, shard: int, group: int, footer: _Footer) -> str:
        place = strip_query(self._paths[shard])
        return cache_name("spool", place, footer.version, group, self._column)

    def _read_spooled(
        self, spool: DiskCache, shard: int, group: int, row: int, footer: _Footer
    ) -> bytes:
        name = self._spool_name(shard, group, footer)
        handle = spool.open(name)
        while handle is None:  # others may remove it before it is opened here
            with self._spooling:
                spool.make(name, -1, lambda file: self._write_spool(file, shard, group, footer))
            handle = spool.open(name)
        try:
            start, size = np.frombuffer(os.pread(handle, _ENTRY, row * _ENTRY), np.int64).tolist()
            if size < 0:
                raise ReadError("no image bytes in this row")
            return os.pread(handle, size, start)
        finally:
            os.close(handle)

    def _write_spool(self, file: BinaryIO, shard: int, group: int, footer: _Footer) -> None:
        num_rows = footer.starts[group + 1] - footer.starts[group]
        entries = np.full((num_rows, 2), -1, dtype=np.int64)
        file.write(entries.tobytes())
        row = 0
        for column in self._stream_group(shard, group, footer):
            for value in column:
                buffer = value.as_buffer()
                if buffer is not None:
                    entries[row] = file.tell(), len(buffer)
                    file.write(buffer)
                row += 1
        end = file.tell()
        file.seek(0)
        file.write(entries.tobytes())
        file.seek(end)

    def _read_footer(self, shard: int) -> _Footer:
        """The first row of each group and the end, and what saves reading the footer again."""
        path = self._paths[shard]
        size, version = version_of(path)
        if self._sizes is not None and size != self._sizes[shard]:
            raise ReadError(_CHANGED)
        try:
            with open_parquet_file(path) as file:
                metadata = file.metadata
        except DamagedShard:
            raise ReadError(_CHANGED) from None
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return _Footer(list(itertools.accumulate(sizes, initial=0)), metadata, version)

    def _read_group(self, shard: int, group: int, footer: _Footer) -> pa.ChunkedArray:
        return pa.chunked_array(list(self._stream_group(shard, group, footer, whole=True)))

    def _stream_group(
        self, shard: int, group: int, footer: _Footer, *, whole: bool = False
    ) -> Iterator[pa.Array]:
        """The image column of a row group, in one piece or in small ones."""
        num_rows = footer.starts[group + 1] - footer.starts[group]
        # A file object of its own per read: ParquetFile is not safe to share between threads.
        try:
            with open_parquet_file(
                self._paths[shard], footer.metadata, buffer_size=0 if whole else _BUFFER
            ) as file:
                batches = file.iter_batches(
                    batch_size=num_rows if whole else _BATCH,
                    row_groups=[group],
                    columns=[bytes_column(file.schema_arrow, self._column)],
                    use_threads=False,
                )
                while (batch := _next(batches, group)) is not None:
                    column = batch.column(0)
                    is_struct = pa.types.is_struct(column.type)
                    yield pc.struct_field(column, "bytes") if is_struct else column
        except (pa.ArrowInvalid, DamagedShard, KeyError) as error:
            raise ReadError(f"row group {group} is damaged: {error}") from None

    def _warn_if_too_large(self, total: int) -> None:
        assert self._spool is not None
        if total > self._spool.most_bytes:
            warnings.warn(
                f"The images in these Parquet files are {total / 1e9:.3g} GB and the cache is "
                f"{self._spool.most_bytes / 1e9:.3g} GB, so that reading them in random order is "
                "slow. Set THRESHER_CACHE_GB to more, or make tars of them with thresher pack.",
                stacklevel=4,
            )


class _Footer:
    """What is kept of an open file: first row of each group and the end, footer, version."""

    def __init__(self, starts: list[int], metadata: pq.FileMetaData, version: str) -> None:
        self.starts = starts
        self.metadata = metadata
        self.version = version


def _follows(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a group may come directly after another: in its file, or first in the next."""
    same_file = other == (one[0], one[1] + 1)
    return same_file or other == (one[0] + 1, 0)


def _next(batches: Iterator[pa.RecordBatch], group: int) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except ReadError:
        raise
    except OSError as error:  # what Arrow raises for bytes that do not decompress
        raise ReadError(f"row group {group} is damaged: {error}") from None
