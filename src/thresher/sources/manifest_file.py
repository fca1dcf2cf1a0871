"""The manifest on disk: one Parquet file, made to be opened fast with ten million rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.errors import UserError
from thresher.sources.request import enumerate_some, first_line

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # for people; repeats only where a table does
        pa.field("shard", pa.int32(), nullable=False),  # index into Manifest.shards
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),  # index into Manifest.classes, -1: none
        pa.field("state", pa.dictionary(pa.int16(), pa.string()), nullable=False),
    ]
)
METADATA_KEY = b"thresher.manifest"


def write_columns(table: pa.Table, metadata: dict[str, Any], path: Path) -> None:
    """Write a manifest's rows and what goes with all of them."""
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)})
    pq.write_table(table, path, compression="zstd")


def is_manifest(schema: pa.Schema) -> bool:
    """Whether a Parquet file with this schema is a manifest."""
    return METADATA_KEY in (schema.metadata or {})


def is_manifest_file(path: str) -> bool:
    """Whether a local file is a manifest."""
    try:
        return is_manifest(pq.read_schema(path))
    except (pa.ArrowException, OSError):
        return False


def read_columns(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Read the rows, with the columns of ``SCHEMA`` alone, and the metadata.

    One column after the other, so that at no time more than one is there twice. Numbers come as
    one piece, because a column in pieces would be copied at every use.

    Raises:
        UserError: no such file, or it is not a manifest.
    """
    try:
        with pq.ParquetFile(path, memory_map=True, read_dictionary=["state"]) as file:
            raw = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
            if raw is None:
                raise UserError(f"{path} is a Parquet file but not a Thresher manifest.")
            missing = [name for name in SCHEMA.names if name not in file.schema_arrow.names]
            if missing:
                raise UserError(
                    f"The manifest {path} lacks the columns {enumerate_some(missing)}. "
                    "Scan the data again."
                )
            columns = [_read_column(file, field) for field in SCHEMA]
    except FileNotFoundError:
        raise UserError(f"There is no manifest at {path}.") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a readable Parquet file: {first_line(error)}. "
            "Download or write it again."
        ) from None
    return pa.table(columns, schema=SCHEMA), json.loads(raw)


def _read_column(file: pq.ParquetFile, field: pa.Field) -> pa.ChunkedArray:
    column = file.read(columns=[field.name]).column(0).cast(field.type)
    if pa.types.is_integer(field.type):
        return pa.chunked_array([column.combine_chunks()], field.type)
    if pa.types.is_dictionary(field.type):
        return column.unify_dictionaries()
    return column  # text stays in pieces: together it may be more than 2 GB
