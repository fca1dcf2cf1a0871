"""Opening Parquet files wherever they lie."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.sources.damage import DamagedShard
from thresher.sources.places import is_url, shown
from thresher.sources.remote.shard import ShardFile
from thresher.sources.request import first_line
from thresher.sources.shards import open_shard


def open_parquet_file(
    file: str, metadata: pq.FileMetaData | None = None, buffer_size: int = 0
) -> pq.ParquetFile:
    """Open one file and read its footer, unless that is given.

    Args:
        file: path or URL.
        metadata: the footer, from an earlier opening.
        buffer_size: if not 0, columns are read through a buffer of so many bytes, not at once.

    Raises:
        DamagedShard: it is not Parquet, or is cut short.
        OSError: it cannot be read.
    """
    source: str | io.RawIOBase = file
    if is_url(file):
        source = ShardFile(open_shard(file))
    try:
        return pq.ParquetFile(source, metadata=metadata, buffer_size=buffer_size)
    except pa.ArrowInvalid as error:
        raise DamagedShard(
            f"{shown(file)} is not a readable Parquet file: {first_line(error)}."
        ) from None


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Class names by column, from the schema metadata of the ``datasets`` library."""
    raw = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(raw)["info"]["features"] if raw else {}
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # another form of metadata: the numbers then stand for themselves
