"""Tables of paths and labels: CSV, TSV, JSON lines and Parquet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from thresher.errors import UserError
from thresher.sources.csv_form import parse_options, read_options, require_header
from thresher.sources.exists import find_missing as find_missing_files
from thresher.sources.labels import encode_labels, label_states, no_labels, trimmed_labels
from thresher.sources.manifest import Manifest, make_manifest
from thresher.sources.parquet_file import class_names
from thresher.sources.places import folder_of, is_url, name_of, protocol
from thresher.sources.remote.shard import local_copy
from thresher.sources.request import Request, choose_column, enumerate_some, printable
from thresher.sources.table_advice import advice_on_missing, refuse_open_quotes, unparsable

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
PATH_COLUMNS = (
    *("path", "file", "filename", "file_name", "filepath", "file_path"),
    *("image_path", "image_file", "image", "img", "key"),
)
LABEL_COLUMNS = (
    *("label", "class", "label_name", "class_name", "labels", "category", "target"),
    *("cls", "fine_label", "y"),
)
NO_PATH = "no path"
NO_FILE = "file not found"
_REMOTE = "(?i)^(https?|s3a?|gs|gcs|abfss?|az|hf|oss|r2)://"
_BLOCK = 16 << 20  # a row must fit into a block; captions and base64 columns can be long


def open_table(request: Request, file: str) -> Manifest:
    """Index a table; relative paths are relative to the folder of the table.

    Raises:
        UserError: it cannot be parsed, is empty, lacks a column, or lists files that do not exist
            (without ``allow_damaged``), or see ``encode_labels``.
    """
    folder = folder_of(file)
    if is_url(file):
        suffix, file = Path(name_of(file)).suffix, str(local_copy(file))
    else:
        suffix = Path(file).suffix
    paths, given, names = _read_columns(request, file, suffix.lower())
    return manifest_of_rows(request, [Rows(folder, paths, given)], names)


@dataclass(frozen=True)
class Rows:
    """What a file lists: paths, absolute or relative to ``folder``, and labels if asked for."""

    folder: str
    paths: pa.ChunkedArray
    given: pa.ChunkedArray | None


def manifest_of_rows(
    request: Request, parts: Sequence[Rows], names: Sequence[str] | None = None, hint: str = ""
) -> Manifest:
    """The manifest of images that one or several files list.

    Args:
        request: what the user asked for.
        parts: one per file; all of them have labels, or none has.
        names: what integers stand for as labels, if the files say so.
        hint: what else to say where images do not exist.

    Raises:
        UserError: see ``open_table``.
    """
    sizes = [len(part.paths) for part in parts]
    if not any(sizes):
        raise UserError(f"{request.data} is empty: it lists no images.")
    paths = pc.fill_null(_joined([part.paths for part in parts]), "")
    given = [part.given for part in parts if part.given is not None]
    if given:
        labels, classes = encode_labels(_joined(given), request, names)
        trimmed = trimmed_labels(_joined(given))
    else:
        labels, classes = no_labels(len(paths), request)
        trimmed = []

    blank = pc.equal(paths, "").to_numpy()
    missing = np.concatenate([find_missing(part, request) for part in parts]) & ~blank
    if missing.any() and not request.allow_damaged:
        raise _missing_files(paths, missing, request, parts[0].folder, hint)
    states = label_states(labels, request)
    states = pc.if_else(pa.array(missing), NO_FILE, states)
    states = pc.if_else(pa.array(blank), NO_PATH, states)
    return make_manifest(
        kind="files",
        shards=[part.folder for part in parts],
        classes=classes,
        source=request.data,
        keys=paths,
        labels=labels,
        shard=np.repeat(np.arange(len(parts), dtype=np.int32), sizes),
        states=states,
        options={
            "repeated_paths": len(paths) - len(pc.unique(paths)),
            "trimmed_labels": trimmed,
        },
    )


def _joined(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    return pa.chunked_array([c for column in columns for c in column.chunks], columns[0].type)


def find_missing(part: Rows, request: Request) -> np.ndarray:
    """bool[N], true where a path is no file; addresses are judged when they are read.

    Raises:
        UserError: a table from elsewhere lists files of this machine.
    """
    paths = pc.fill_null(part.paths, "")
    # To ask a server for each would take longer than to find out when they are read.
    if is_url(part.folder):
        _refuse_local_paths(paths, request, protocol(part.folder))
        return np.zeros(len(paths), dtype=bool)
    remote = pc.match_substring_regex(paths, _REMOTE)
    if not pc.any(remote).as_py():
        return find_missing_files(part.folder, paths)
    here = np.asarray(pc.invert(remote).to_numpy(), dtype=bool)
    missing = np.zeros(len(paths), dtype=bool)
    missing[here] = find_missing_files(part.folder, paths.filter(pa.array(here)))
    return missing


def _read_columns(
    request: Request, file: str, suffix: str
) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None, list[str] | None]:
    """The path column as text, the label column if labels are asked for, and classes' names."""
    names: dict[str, list[str]] = {}
    try:
        if suffix in (".csv", ".tsv"):
            table = _read_csv(request, file)
        elif suffix in (".jsonl", ".ndjson"):
            table = _read_jsonl(request, file)
        else:
            schema = pq.read_schema(file)
            names = class_names(schema)
            columns = choose_columns(schema.names, request)
            table = pq.read_table(file, columns=columns, partitioning=None)
            table = table.select(columns)
        table.validate(full=True)  # finds text that is not UTF-8
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise unparsable(error, request.data) from None
    paths = table.column(0)
    if not (pa.types.is_string(paths.type) or pa.types.is_large_string(paths.type)):
        if len(paths) == paths.null_count:
            paths = paths.cast(pa.string())
        elif pa.types.is_nested(paths.type):
            raise UserError(
                f"The column '{table.column_names[0]}' of {request.data} is of type {paths.type}, "
                "which is more than one image or path. Write a row for each image."
            )
        else:
            raise UserError(
                f"The column '{table.column_names[0]}' of {request.data} is of type {paths.type}; "
                "paths are text. Choose the path column with --path-column."
            )
    if not request.labelled:
        return paths.cast(pa.string()), None, None
    if suffix in (".csv", ".tsv"):
        refuse_open_quotes(table.column(1), request.data)
    return paths.cast(pa.string()), table.column(1), names.get(table.column_names[1])


def choose_columns(existing: list[str], request: Request) -> list[str]:
    """The path column and, if labels are asked for, the label column.

    Raises:
        UserError: one does not exist.
    """
    chosen = [
        choose_column(
            existing,
            request.path_column,
            PATH_COLUMNS,
            what="path",
            option="--path-column",
            source=request.data,
        )
    ]
    if request.labelled:
        chosen.append(choose_label_column(existing, request))
    return chosen


def choose_label_column(existing: list[str], request: Request) -> str:
    """The label column: the user's choice, or the first usual name.

    Raises:
        UserError: it does not exist.
    """
    return choose_column(
        existing,
        request.label_column,
        LABEL_COLUMNS,
        what="label",
        option="--label-column",
        source=request.data,
    )


def _read_csv(request: Request, file: str) -> pa.Table:
    parse = parse_options(file, request.data)
    read = read_options()
    with pa.csv.open_csv(file, read_options=read, parse_options=parse) as reader:
        require_header(reader.schema.names, request.data)
        columns = choose_columns(reader.schema.names, request)
    # Other columns are not parsed, and nothing is taken for a number: '007' is a class name.
    return pa.csv.read_csv(
        file,
        read_options=read,
        parse_options=parse,
        convert_options=pa.csv.ConvertOptions(
            include_columns=columns, column_types=dict.fromkeys(columns, pa.string())
        ),
    )


def _read_jsonl(request: Request, file: str) -> pa.Table:
    if not Path(file).stat().st_size:
        raise UserError(f"{request.data} is empty: it lists no images.")
    table = pa.json.read_json(file, read_options=pa.json.ReadOptions(block_size=_BLOCK))
    return table.select(choose_columns(table.column_names, request))


def _refuse_local_paths(paths: pa.ChunkedArray, request: Request, own: str) -> None:
    """A table from elsewhere must not make this machine read its own files.

    Beside ``file:``, fsspec knows protocols that lead to local files by a detour. So only web
    addresses and those of the table's ``own`` protocol pass.
    """
    address = pc.match_substring_regex(paths, r"^[A-Za-z][A-Za-z0-9+.-]+://")
    harmless = pc.match_substring_regex(paths, rf"(?i)^(https?|s3a?|{re.escape(own)})://")
    local = pc.match_substring_regex(paths, r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)")
    outside = pc.or_(local, pc.and_not(address, harmless))
    if pc.any(outside).as_py():
        first = paths.filter(outside)[0].as_py()
        raise UserError(
            f"{request.data} is remote and lists '{printable(first)}', which is not below its own "
            "folder. Write relative paths, or download the table."
        )


def _missing_files(
    paths: pa.ChunkedArray, missing: np.ndarray, request: Request, root: str, hint: str
) -> UserError:
    rows = np.flatnonzero(missing)
    first = paths.take(pa.array(rows[:3])).to_pylist()
    advice = advice_on_missing(first, root)
    return UserError(
        f"{len(rows)} of {len(paths)} files listed in {request.data} do not exist, "
        f"the first: {enumerate_some(first)}. {advice}{hint}"
    )
