"""Opening files whose kind their endings tell, wherever they lie."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from thresher.errors import UserError
from thresher.sources.caffe_lmdb import SUFFIXES as LMDB_SUFFIXES
from thresher.sources.caffe_lmdb import is_lmdb, open_lmdb
from thresher.sources.damage import Damage
from thresher.sources.foreign import foreign_file
from thresher.sources.labels import no_labels
from thresher.sources.manifest import Manifest, make_manifest
from thresher.sources.manifest_file import is_manifest
from thresher.sources.manifest_source import open_manifest
from thresher.sources.names import BAD_NAME, is_image_name, to_utf8
from thresher.sources.parquet import first_schema, image_column, open_parquet
from thresher.sources.parquet_paths import holds_only_paths, open_paths
from thresher.sources.places import folder_of, is_url, strip_query
from thresher.sources.request import Request, enumerate_some, printable
from thresher.sources.table import PATH_COLUMNS, TEXT_SUFFIXES, open_table
from thresher.sources.webdataset import open_webdataset

PARQUET_SUFFIXES = (".parquet", ".pq")
TAR_SUFFIXES = (".tar",)
_SQUEEZED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".csv.gz", ".jsonl.gz", ".zip")
_SPLIT = re.compile(r"(train|training|val|valid|validation|test|testing|dev)(?=[-_.])")


def image_files(files: list[str], request: Request) -> Manifest:
    """Images by their paths or URLs, without labels."""
    keys, badly_named = to_utf8(files)
    labels, classes = no_labels(len(files), request)
    states = ["ok"] * len(files)
    for row in badly_named:
        states[row] = BAD_NAME
    return make_manifest(
        kind="files",
        shards=[folder_of(files[0]) if is_url(files[0]) else str(Path.cwd())],
        classes=classes,
        source=request.data,
        keys=keys,
        labels=labels,
        states=states,
    )


def open_files(request: Request, files: list[str]) -> Manifest:
    """Open files of one kind, by paths or URLs; their ending tells which.

    Raises:
        UserError: see ``open_source``.
    """
    lower = strip_query(files[0]).lower()
    for file in files:
        if is_url(file) or is_lmdb(file):
            continue
        if request.allow_damaged and not os.path.lexists(file):
            continue  # the source tells, and leaves it out
        if not Path(file).is_file():
            raise UserError(f"{printable(file)} is neither a file nor a folder.")
        if not request.allow_damaged or len(files) == 1:
            with Path(file).open("rb"):
                pass  # a missing right is told here, whatever the library behind would say
    suffix = os.path.splitext(lower)[1]  # noqa: PTH122
    if any(not strip_query(file).lower().endswith(suffix) for file in files):
        raise UserError(f"{request.data} stands for files of different kinds.")
    if lower.endswith(TAR_SUFFIXES):
        return open_webdataset(request, files)
    if lower.endswith(PARQUET_SUFFIXES):
        return _open_parquet(request, files)
    if len(files) == 1 and (lower.endswith(LMDB_SUFFIXES) or is_lmdb(files[0])):
        return open_lmdb(request, files[0])
    if lower.endswith(TEXT_SUFFIXES) and len(files) == 1:
        return open_table(request, files[0])
    if lower.endswith(TEXT_SUFFIXES):
        raise UserError(f"{request.data} stands for {len(files)} tables; name one.")
    if is_image_name(lower):
        if request.labelled:
            raise UserError(
                f"{request.data} is a single image; name the folder that holds the class folders."
            )
        return image_files(files, request)
    if lower.endswith(_SQUEEZED):
        raise UserError(
            f"{request.data} is compressed, so that samples in it cannot be read one by one. "
            "Unpack it first."
        )
    raise UserError(
        foreign_file(request.data)
        or f"{printable(request.data)} is of no known kind. Known: a folder of class folders, a "
        "table (.csv, .tsv, .jsonl, .parquet), Parquet images (.parquet), WebDataset tars (.tar), "
        "a Caffe LMDB (.mdb, or its folder)."
    )


def _open_parquet(request: Request, files: list[str]) -> Manifest:
    """Parquet holds images, paths to images, or is a manifest: its columns tell."""
    damage = Damage(request)
    schema = first_schema(files, damage)
    if is_manifest(schema):
        if len(files) > 1:
            raise UserError(f"{request.data} stands for {len(files)} manifests; name one.")
        return open_manifest(request, files[0])
    column = image_column(schema, request)
    paths = {request.path_column} if request.path_column else set(PATH_COLUMNS)
    is_table = bool(paths & set(schema.names)) and request.image_column is None
    if is_table and (request.path_column or column is None):
        if {"key", "status", "error_message"} <= set(schema.names):
            raise UserError(
                f"{request.data}: img2dataset wrote such a file beside each tar or folder of "
                "images. Name the tars, or the folder that all lie in; of web servers, which "
                "cannot be listed, tars alone (--output_format webdataset) can be read."
            )
        if len(files) > 1:
            raise UserError(f"{request.data} stands for {len(files)} tables; name one.")
        return open_table(request, files[0])
    if column is not None and holds_only_paths(files, column, damage):
        return open_paths(request, files, column)
    return open_parquet(request, files)


def refuse_mixed_splits(request: Request, names: Sequence[str]) -> None:
    """Training on a folder of train-*.parquet and test-*.parquet would be a silent disaster."""
    splits = {match.group(0) for name in names if (match := _SPLIT.match(name.lower()))}
    if len(splits) > 1:
        first = sorted(splits)[0]
        ending = Path(names[0]).suffix
        raise UserError(
            f"{request.data} holds several splits: {enumerate_some(sorted(splits))}. "
            f"Name one, as in '{request.data.rstrip('/')}/{first}*{ending}'."
        )
