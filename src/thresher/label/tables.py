"""Texts in the columns of a table that lists images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from thresher.errors import UserError
from thresher.label.texts import Texts
from thresher.sources.csv_form import parse_options, read_options, require_header
from thresher.sources.detect import open_source
from thresher.sources.places import name_of
from thresher.sources.remote.shard import local_copy
from thresher.sources.request import Request, choose_column, first_line
from thresher.sources.table import PATH_COLUMNS, Rows, find_missing
from thresher.sources.table_advice import advice_on_missing, unparsable

_BLOCK = 16 << 20


def open_table(source: str, path_column: str | None) -> Texts:
    """Find the images of a table and the columns with text about them.

    Raises:
        UserError: it cannot be parsed, has no path column, or none of its files exists.
    """
    try:
        existing = _columns(source)
        path = choose_column(
            existing, path_column, PATH_COLUMNS, what="path", option="--path-column", source=source
        )
        names = _read(source, path)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise unparsable(error, source) from None
    if not len(names):
        raise UserError(f"{source} is empty: it lists no images.")
    names = pc.fill_null(names, "")
    root = str(Path(source).absolute().parent)
    blank = pc.equal(names, "").to_numpy()
    missing = find_missing(Rows(root, names, None), Request(data=source, labelled=False)) & ~blank
    keep = pa.array(~(missing | blank))
    if not pc.any(keep).as_py():
        first = names.filter(pa.array(missing)).slice(0, 3).to_pylist()
        advice = advice_on_missing(first, root) if first else "No row has a path."
        raise UserError(f"No file listed in {source} exists. {advice}")

    def read(column: str) -> Iterator[pa.Array]:
        try:
            yield from _read(source, column).filter(keep).chunks
        except pa.ArrowException as error:
            raise UserError(f"{source}, column '{column}': {first_line(error)}.") from None

    left_out = {"file not found": int(missing.sum()), "no path": int(blank.sum())}
    return Texts(
        names=names.filter(keep),
        columns=tuple(name for name in existing if name != path),
        read=read,
        manifest=None,
        root=root,
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def open_remote_table(source: str, path_column: str | None) -> Texts:
    """As ``open_table`` for a table at a URL, from a copy of it; the images stay where they are.

    Raises:
        UserError: see ``open_source``.
    """
    manifest = open_source(source, path_column=path_column, labelled=False)
    copy, ending = str(local_copy(source)), name_of(source)
    existing = _columns(copy, ending)
    path = choose_column(
        existing, path_column, PATH_COLUMNS, what="path", option="--path-column", source=source
    )

    def read(column: str) -> Iterator[pa.Array]:
        yield from _read(copy, column, ending).chunks

    return Texts(
        names=manifest.table["key"],
        columns=tuple(name for name in existing if name != path),
        read=read,
        manifest=manifest,
        root="",
        left_out={},
    )


def _columns(source: str, name: str | None = None) -> list[str]:
    """The columns of a table; ``name`` is what it was called where ``source`` is a copy."""
    lower = (name or source).lower()
    if lower.endswith((".csv", ".tsv")):
        with pa.csv.open_csv(source, read_options(), parse_options(source, source)) as reader:
            require_header(reader.schema.names, source)
            return list(reader.schema.names)
    if lower.endswith((".jsonl", ".ndjson")):
        return list(_read_json(source).column_names)
    return list(pq.read_schema(source).names)


def _read(source: str, column: str, name: str | None = None) -> pa.ChunkedArray:
    """One column as text; lists of words (tags) are joined."""
    lower = (name or source).lower()
    if lower.endswith((".csv", ".tsv")):
        # Nothing is taken for a number: '007' is a text.
        convert = pa.csv.ConvertOptions(include_columns=[column], column_types={column: "string"})
        table = pa.csv.read_csv(source, read_options(), parse_options(source, source), convert)
    elif lower.endswith((".jsonl", ".ndjson")):
        table = _read_json(source)
    else:
        table = pq.read_table(source, columns=[column], partitioning=None)
    return as_text(table.column(column), f"The column '{column}' of {source}")


def as_text(values: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    """A column of text, of scalars, or of lists of text, as text.

    Raises:
        UserError: it is of another type.
    """
    kind = values.type
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return pa.chunked_array(
            [pc.binary_join(chunk, " | ") for chunk in values.chunks], pa.string()
        )
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise UserError(f"{what} is of type {kind}, not text.")
    return values.cast(pa.string())


def _read_json(source: str) -> pa.Table:
    if not Path(source).stat().st_size:
        raise UserError(f"{source} is empty: it lists no images.")
    return pa.json.read_json(source, read_options=pa.json.ReadOptions(block_size=_BLOCK))
