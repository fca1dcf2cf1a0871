"""Parquet image data sets as Hugging Face writes them: image bytes and labels in columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from thresher.errors import UserError
from thresher.sources.labels import encode_labels, label_states, no_labels
from thresher.sources.manifest import Manifest, make_manifest
from thresher.sources.request import Request, enumerate_some, first_line, printable
from thresher.sources.table import LABEL_COLUMNS, choose_label_column

IMAGE_COLUMNS = (
    *("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp"),
    *("bytes", "image_bytes", "data"),
)


def image_column(schema: pa.Schema, request: Request) -> str | None:
    """The column that holds image bytes, or None if there is none.

    Raises:
        UserError: the user's choice does not hold bytes, or several columns do.
    """
    holding_bytes = [field.name for field in schema if _holds_bytes(field.type)]
    if request.image_column is not None:
        if request.image_column not in holding_bytes:
            raise UserError(
                f"{request.data} has no column '{printable(request.image_column)}' of image bytes. "
                f"Columns with bytes: {enumerate_some(holding_bytes, most=12) or 'none'}."
            )
        return request.image_column
    usual = [name for name in IMAGE_COLUMNS if name in holding_bytes]
    if usual:
        return usual[0]
    if len(holding_bytes) > 1:
        raise UserError(
            f"Several columns of {request.data} hold bytes: {enumerate_some(holding_bytes, 12)}. "
            "Choose one with --image-column."
        )
    return holding_bytes[0] if holding_bytes else None


def open_parquet(request: Request, files: Sequence[str]) -> Manifest:
    """Index Parquet files with an image column; only labels and paths are read.

    Raises:
        UserError: a file is damaged or of another form than the first, or see ``encode_labels``.
    """
    readers = [open_parquet_file(file) for file in files]
    first = readers[0].schema_arrow
    column = image_column(first, request)
    if column is None:
        raise _no_images(first, request)
    label = _label_column(first, request) if request.labelled else None
    for file, reader in zip(files, readers, strict=True):
        _require_same_form(file, reader.schema_arrow, first, column, label, request)

    num_rows = [reader.metadata.num_rows for reader in readers]
    total = sum(num_rows)
    if total == 0:
        raise UserError(f"{request.data} has no rows.")
    if label is None:
        labels, classes = no_labels(total, request)
    else:
        given = _concat([reader.read(columns=[label]).column(0) for reader in readers])
        labels, classes = encode_labels(given, request, _class_names(first).get(label))
    return make_manifest(
        kind="parquet",
        shards=[str(Path(file).absolute()) for file in files],
        classes=classes,
        source=request.data,
        keys=_keys(files, readers, column, num_rows),
        labels=labels,
        shard=np.repeat(np.arange(len(files), dtype=np.int32), num_rows),
        offsets=np.concatenate([np.arange(num, dtype=np.int64) for num in num_rows]),
        states=label_states(labels, request),
        options={
            "image_column": column,
            "shard_sizes": [Path(file).stat().st_size for file in files],
        },
    )


def bytes_column(schema: pa.Schema, column: str) -> str:
    """The name to read so that of an image struct only the bytes are read."""
    return f"{column}.bytes" if pa.types.is_struct(schema.field(column).type) else column


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        return position >= 0 and _holds_bytes(kind.field(position).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def open_parquet_file(file: str) -> pq.ParquetFile:
    """Open one file and read its footer.

    Raises:
        UserError: it is not Parquet, or is cut short.
    """
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{file} is not a readable Parquet file: {first_line(error)}. "
            "Download or write it again."
        ) from None


def _label_column(schema: pa.Schema, request: Request) -> str:
    named = _class_names(schema)
    if request.label_column is None and not set(LABEL_COLUMNS) & set(schema.names) and named:
        if len(named) == 1:
            return next(iter(named))
        raise UserError(
            f"Several columns of {request.data} are labels: {enumerate_some(list(named), 12)}. "
            "Choose one with --label-column."
        )
    return choose_label_column(schema.names, request)


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
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


def _require_same_form(
    file: str, schema: pa.Schema, first: pa.Schema, column: str, label: str | None, request: Request
) -> None:
    for name in (column, label):
        if name is None:
            continue
        if name not in schema.names or schema.field(name).type != first.field(name).type:
            raise UserError(
                f"{file} has no column '{printable(name)}' of the same type as the first file of "
                f"{request.data}. Name files of one data set, as in 'train-*.parquet'."
            )
    if label is not None and _class_names(schema).get(label) != _class_names(first).get(label):
        raise UserError(
            f"{file} names other classes than the first file of {request.data}. "
            "Name files of one data set, as in 'train-*.parquet'."
        )


def _no_images(schema: pa.Schema, request: Request) -> UserError:
    return UserError(
        f"{request.data} has no image column. Its columns: {enumerate_some(schema.names, 12)}. "
        "Images are bytes, or a struct of bytes and path; "
        "choose the column with --image-column, or for a table of paths --path-column."
    )


def _keys(
    files: Sequence[str], readers: Sequence[pq.ParquetFile], column: str, num_rows: Sequence[int]
) -> pa.ChunkedArray:
    """The paths in the image structs if they tell the samples apart, else file and row."""
    kind = readers[0].schema_arrow.field(column).type
    if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        structs = [reader.read(columns=[f"{column}.path"]).column(0) for reader in readers]
        paths = _concat([pc.struct_field(struct, "path") for struct in structs])
        if pa.types.is_string(paths.type) and pc.count_distinct(paths, mode="all").as_py() == sum(
            num_rows
        ):
            # One row without a path is distinct too.
            return pc.fill_null(paths, "(no path)")
    parts = [
        pc.binary_join_element_wise(
            Path(file).name, pc.cast(pa.array(np.arange(num)), "string"), ":"
        )
        for file, num in zip(files, num_rows, strict=True)
    ]
    return pa.chunked_array(parts, type=pa.string())


def _concat(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    return pa.chunked_array(
        [chunk for column in columns for chunk in column.chunks], columns[0].type
    )
