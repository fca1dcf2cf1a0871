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

_MAGIC = b"PAR1"  # what a Parquet file begins with


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
    except PermissionError as error:  # which does not tell of which file
        raise PermissionError(error.errno, "no right to read it", file) from None
    except pa.ArrowInvalid as error:
        raise DamagedShard(
            f"{shown(file)} is not a readable Parquet file: {first_line(error)}."
        ) from None


def begins_like_parquet(file: str) -> bool:
    """Whether a file that cannot be read as Parquet is one at least, and damaged.

    Servers answer with a web page, as if all were well, where there is no file.
    """
    try:
        shard = open_shard(file)
    except OSError:
        return False
    try:
        return shard.read_at(0, len(_MAGIC)) == _MAGIC
    except OSError:
        return False
    finally:
        shard.close()


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
