"""Parquet image data sets as Hugging Face publishes them: image bytes and labels in columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from thresher.errors import UserError
from thresher.sources.damage import Damage, DamagedShard
from thresher.sources.labels import encode_labels, label_states, no_labels, trimmed_labels
from thresher.sources.manifest import Manifest, make_manifest
from thresher.sources.parquet_file import class_names, open_parquet_file
from thresher.sources.places import absolute, name_of, shown
from thresher.sources.request import Request, enumerate_some, printable
from thresher.sources.several import for_each
from thresher.sources.sizes import version_of
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


@dataclass
class _Part:
    """One file, and what is read of it to begin with."""

    file: str
    num_rows: int
    size: int | None
    version: str
    image_bytes: int
    labels: pa.ChunkedArray | None
    paths: pa.ChunkedArray | None


def open_parquet(request: Request, files: Sequence[str]) -> Manifest:
    """Index Parquet files with an image column; only labels and paths are read.

    Raises:
        UserError: a file is damaged or of another form than the first (without
            ``allow_damaged``), or see ``encode_labels``.
    """
    damage = Damage(request)
    first = first_schema(files, damage)
    column = image_column(first, request)
    if column is None:
        raise _no_images(first, request)
    label = label_column(first, request) if request.labelled else None

    def read_part(file: str) -> _Part | None:
        part = None
        with damage.tolerate(file):
            part = _read_part(file, first, column, label, request)
        return part  # noqa: RET504 - the body above may be left early

    good = [file for file in files if shown(file) not in damage.shards]
    parts = [part for part in for_each(good, read_part) if part is not None]
    damage.require_some_good(len(files))

    num_rows = [part.num_rows for part in parts]
    total = sum(num_rows)
    if total == 0:
        raise UserError(f"{request.data} has no rows.")
    trimmed: list[str] = []
    if label is None:
        labels, classes = no_labels(total, request)
    else:
        given = _concat([part.labels for part in parts])
        labels, classes = encode_labels(given, request, class_names(first).get(label))
        trimmed = trimmed_labels(given)
    return make_manifest(
        kind="parquet",
        shards=[absolute(part.file) for part in parts],
        classes=classes,
        source=request.data,
        keys=_keys(parts),
        labels=labels,
        shard=np.repeat(np.arange(len(parts), dtype=np.int32), num_rows),
        offsets=np.concatenate([np.arange(num, dtype=np.int64) for num in num_rows]),
        states=label_states(labels, request),
        options={
            "image_column": column,
            "image_bytes": sum(part.image_bytes for part in parts),
            "shard_sizes": [part.size for part in parts],
            "shard_versions": [part.version for part in parts],
            "damaged_shards": damage.shards,
            "trimmed_labels": trimmed,
        },
    )


def first_schema(files: Sequence[str], damage: Damage) -> pa.Schema:
    """The columns of the first file that can be opened.

    Raises:
        UserError: it is damaged (without ``allow_damaged``), or all are.
    """
    for file in files:
        with damage.tolerate(file), open_parquet_file(file) as reader:
            return reader.schema_arrow
    damage.require_some_good(len(files))
    raise AssertionError("no file was named")


def _read_part(
    file: str, first: pa.Schema, column: str, label: str | None, request: Request
) -> _Part:
    with open_parquet_file(file) as reader:
        schema = reader.schema_arrow
        _require_same_form(file, schema, first, column, label, request)
        kind = schema.field(column).type
        paths = None
        if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
            paths = pc.struct_field(reader.read(columns=[f"{column}.path"]).column(0), "path")
        size, version = version_of(file)
        return _Part(
            file=file,
            num_rows=reader.metadata.num_rows,
            size=size,
            version=version,
            image_bytes=_num_bytes(reader.metadata, bytes_column(schema, column)),
            labels=reader.read(columns=[label]).column(0) if label is not None else None,
            paths=paths,
        )


def _num_bytes(metadata: pq.FileMetaData, name: str) -> int:
    """The size of a column when it is not compressed."""
    total = 0
    for group in range(metadata.num_row_groups):
        chunks = metadata.row_group(group)
        for position in range(chunks.num_columns):
            chunk = chunks.column(position)
            total += chunk.total_uncompressed_size if chunk.path_in_schema == name else 0
    return total


def bytes_column(schema: pa.Schema, column: str) -> str:
    """The name to read so that of an image struct only the bytes are read."""
    return f"{column}.bytes" if pa.types.is_struct(schema.field(column).type) else column


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        return position >= 0 and _holds_bytes(kind.field(position).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def label_column(schema: pa.Schema, request: Request) -> str:
    """The column of labels: the user's choice, one of a usual name, or one with class names.

    Raises:
        UserError: there is none, or several might be meant.
    """
    named = class_names(schema)
    if request.label_column is None and not set(LABEL_COLUMNS) & set(schema.names) and named:
        if len(named) == 1:
            return next(iter(named))
        raise UserError(
            f"Several columns of {request.data} are labels: {enumerate_some(list(named), 12)}. "
            "Choose one with --label-column."
        )
    return choose_label_column(schema.names, request)


def _require_same_form(
    file: str, schema: pa.Schema, first: pa.Schema, column: str, label: str | None, request: Request
) -> None:
    for name in (column, label):
        if name is None:
            continue
        if name not in schema.names or schema.field(name).type != first.field(name).type:
            raise DamagedShard(
                f"{shown(file)} has no column '{printable(name)}' of the same type as the first "
                f"file of {request.data}; name files of one data set, as in "
                "'train-*.parquet'"
            )
    if label is not None and class_names(schema).get(label) != class_names(first).get(label):
        raise UserError(
            f"{shown(file)} names other classes than the first file of {request.data}. "
            "Name files of one data set, as in 'train-*.parquet'."
        )


def _no_images(schema: pa.Schema, request: Request) -> UserError:
    return UserError(
        f"{request.data} has no image column. Its columns: {enumerate_some(schema.names, 12)}. "
        "Images are bytes, or a struct of bytes and path; "
        "choose the column with --image-column, or for a table of paths --path-column."
    )


def _keys(parts: Sequence[_Part]) -> pa.ChunkedArray:
    """The paths in the image structs if they tell the samples apart, else file and row."""
    if all(part.paths is not None for part in parts):
        paths = _concat([part.paths for part in parts])
        if pa.types.is_string(paths.type) and pc.count_distinct(paths, mode="all").as_py() == sum(
            part.num_rows for part in parts
        ):
            # One row without a path is distinct too.
            return pc.fill_null(paths, "(no path)")
    names = [
        pc.binary_join_element_wise(
            name_of(part.file), pc.cast(pa.array(np.arange(part.num_rows)), "string"), ":"
        )
        for part in parts
    ]
    return pa.chunked_array(names, type=pa.string())


def _concat(columns: Sequence[pa.ChunkedArray | None]) -> pa.ChunkedArray:
    present = [column for column in columns if column is not None]
    return pa.chunked_array(
        [chunk for column in present for chunk in column.chunks], present[0].type
    )
