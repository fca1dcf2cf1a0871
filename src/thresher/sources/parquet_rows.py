"""Image bytes from Parquet files, which can only be read a row group at a time."""

from __future__ import annotations

import bisect
import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from thresher.sources.cache import SharedCache
from thresher.sources.manifest import Manifest
from thresher.sources.parquet import bytes_column
from thresher.sources.read_error import ReadError

CACHE_BYTES = 256 << 20


class ParquetRows:
    """Reads rows by number and keeps the row groups used last. Thread-safe."""

    def __init__(self, manifest: Manifest, cache_bytes: int = CACHE_BYTES) -> None:
        self._paths = manifest.shards
        self._sizes = manifest.options.get("shard_sizes")
        self._column = manifest.options["image_column"]
        self._footers: SharedCache[int, tuple[list[int], pq.FileMetaData]] = SharedCache(
            cache_bytes // 4, size_of=lambda footer: int(footer[1].serialized_size)
        )
        self._groups: SharedCache[tuple[int, int], pa.ChunkedArray] = SharedCache(
            cache_bytes, size_of=lambda group: int(group.nbytes)
        )

    def read(self, index: int, shard: int, offset: int, length: int) -> bytes:  # noqa: ARG002
        """The bytes in row ``offset`` of a shard; see ``Fetcher``."""
        starts, metadata = self._footers.get(shard, lambda: self._read_footer(shard))
        if offset >= starts[-1]:
            raise ReadError("shard changed since it was indexed")
        group = bisect.bisect_right(starts, offset) - 1
        column = self._groups.get((shard, group), lambda: self._read_group(shard, group, metadata))
        buffer = column[offset - starts[group]].as_buffer()
        if buffer is None:
            raise ReadError("no image bytes in this row")
        return bytes(buffer)

    def close(self) -> None:
        """Forget what is cached; no file stays open."""
        self._footers.clear()
        self._groups.clear()

    def _read_footer(self, shard: int) -> tuple[list[int], pq.FileMetaData]:
        """The first row of each group and the end, and what saves reading the footer again."""
        path = self._paths[shard]
        if self._sizes is not None and Path(path).stat().st_size != self._sizes[shard]:
            raise ReadError("shard changed since it was indexed")
        try:
            metadata = pq.read_metadata(path)
        except pa.ArrowInvalid:
            raise ReadError("shard changed since it was indexed") from None
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return list(itertools.accumulate(sizes, initial=0)), metadata

    def _read_group(self, shard: int, group: int, metadata: pq.FileMetaData) -> pa.ChunkedArray:
        # A file object of its own per read: ParquetFile is not safe to share between threads.
        try:
            with pq.ParquetFile(self._paths[shard], metadata=metadata) as file:
                name = bytes_column(file.schema_arrow, self._column)
                column = file.read_row_group(group, columns=[name], use_threads=False).column(0)
        except (pa.ArrowInvalid, KeyError) as error:
            raise ReadError(f"row group {group} is damaged: {error}") from None
        except FileNotFoundError:
            raise
        except OSError as error:  # what Arrow raises for bytes that do not decompress
            raise ReadError(f"row group {group} is damaged: {error}") from None
        return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
