"""Telling apart what kind of data a path is, and opening it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from thresher.errors import UserError
from thresher.sources.caffe_lmdb import SUFFIXES as LMDB_SUFFIXES
from thresher.sources.caffe_lmdb import is_lmdb, open_lmdb
from thresher.sources.damage import Damage
from thresher.sources.folder import NotATreeError, open_folder, walk_images
from thresher.sources.labels import no_labels
from thresher.sources.manifest import Manifest, make_manifest
from thresher.sources.manifest_file import is_manifest, is_manifest_file
from thresher.sources.manifest_source import INDEX_NAME, open_manifest
from thresher.sources.names import BAD_NAME, is_image_name, is_skipped, natural_key, to_utf8
from thresher.sources.parquet import first_schema, image_column, open_parquet
from thresher.sources.places import folder_of, is_url, plain, shown, strip_query
from thresher.sources.request import Request, enumerate_some, explain_read_errors, printable
from thresher.sources.shard_names import expand, is_pattern
from thresher.sources.table import PATH_COLUMNS, TEXT_SUFFIXES, open_table
from thresher.sources.webdataset import open_webdataset

PARQUET_SUFFIXES = (".parquet", ".pq")
TAR_SUFFIXES = (".tar",)
_SQUEEZED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".csv.gz", ".jsonl.gz", ".zip")
_SPLIT = re.compile(r"(train|training|val|valid|validation|test|testing|dev)(?=[-_.])")


def open_source(
    data: str,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    image_column: str | None = None,
    classes: Sequence[str] | None = None,
    labelled: bool = True,
    allow_damaged: bool = False,
) -> Manifest:
    """Open data of any known kind; which kind it is, is found out by looking.

    Args:
        data: a class-per-folder tree, a table of paths and labels (CSV, TSV, JSON lines,
            Parquet), Parquet files with image bytes, WebDataset tars, a Caffe LMDB, or a
            manifest; a file, a folder of them, or a pattern such as ``shard-{000..003}.tar`` or
            ``train-*.parquet``; or a URL of any of these (``file:``, ``http:``, ``s3:``, ...).
        path_column: column with the paths in a table; None: found by its name.
        label_column: column, or field of ``.json`` members, with the labels; None: likewise.
        image_column: column with the image bytes in Parquet files; None: likewise.
        classes: map labels onto these classes; None: the classes of the data themselves.
        labelled: False to take images alone, as for prediction.
        allow_damaged: leave out what cannot be read of tars, Parquet files and tables; what was
            left out is told by ``Manifest.options['damaged_shards']`` and by states.

    Returns:
        The manifest. Ids follow from the data alone: the same data give the same ids.

    Raises:
        UserError: a plain sentence on what is wrong with the data.
    """
    data = plain(data)
    request = Request(
        data=shown(data) if is_url(data) else data,
        path_column=path_column,
        label_column=label_column,
        image_column=image_column,
        classes=None if classes is None else tuple(classes),
        labelled=labelled,
        allow_damaged=allow_damaged,
    )
    with explain_read_errors(request.data):
        if is_url(data):
            from thresher.sources.detect_remote import open_url

            return open_url(request, data)
        if is_pattern(data):
            return open_files(request, expand(data, missing_ok=allow_damaged))
        if not os.path.lexists(data):
            raise UserError(f"There is no file or folder {printable(data)}.")
        return _open_folder(request) if Path(data).is_dir() else open_files(request, [data])


def open_images(paths: Sequence[str]) -> Manifest:
    """Open images without labels, in the order named; folders stand for all images below them.

    A single path may also name data of any other kind that ``open_source`` knows.

    Raises:
        UserError: no path given, one that does not exist, or a folder without images.
    """
    if not paths:
        raise UserError("No images given.")
    paths = [plain(path) for path in paths]
    if any(map(is_url, paths)) and len(paths) > 1:
        raise UserError("Of URLs, one at a time can be opened; name one.")
    if len(paths) == 1 and not (is_image_name(paths[0]) and Path(paths[0]).is_file()):
        return open_source(paths[0], labelled=False)
    files: list[str] = []
    for path in paths:
        with explain_read_errors(path):
            if Path(path).is_dir():
                below = walk_images(path).files
                if not below:
                    raise UserError(f"{printable(path)} holds no images.")
                files.extend(f"{path.rstrip('/')}/{file}" for file in below)
            elif Path(path).is_file():
                files.append(path)
            else:
                raise UserError(f"There is no file or folder {printable(path)}.")
    return image_files(files, Request(data=printable(" ".join(paths[:3])), labelled=False))


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
        f"{printable(request.data)} is of no known kind. Known: a folder of class folders, a table "
        "(.csv, .tsv, .jsonl, .parquet), Parquet images (.parquet), WebDataset tars (.tar), "
        "a Caffe LMDB (.mdb, or its folder)."
    )


def _open_parquet(request: Request, files: list[str]) -> Manifest:
    """Parquet holds images, paths to images, or is a manifest: its columns tell."""
    schema = first_schema(files, Damage(request))
    if is_manifest(schema):
        if len(files) > 1:
            raise UserError(f"{request.data} stands for {len(files)} manifests; name one.")
        return open_manifest(request, files[0])
    has_images = image_column(schema, request) is not None
    paths = {request.path_column} if request.path_column else set(PATH_COLUMNS)
    is_table = bool(paths & set(schema.names)) and request.image_column is None
    if is_table and (request.path_column or not has_images):
        if len(files) > 1:
            raise UserError(f"{request.data} stands for {len(files)} tables; name one.")
        return open_table(request, files[0])
    return open_parquet(request, files)


def _open_folder(request: Request) -> Manifest:
    """A folder of tars, of Parquet files, or a tree of images: what lies in it tells.

    Tars come first, because img2dataset writes a Parquet file of captions beside each.
    """
    with os.scandir(request.data) as entries:
        names = [entry.name for entry in entries if not is_skipped(entry.name)]
    names.sort(key=natural_key)
    if is_lmdb(request.data):
        return open_lmdb(request, request.data)
    index = str(Path(request.data, INDEX_NAME))
    if INDEX_NAME in names and is_manifest_file(index):
        return open_manifest(request, index)
    for suffixes in (TAR_SUFFIXES, PARQUET_SUFFIXES):
        found = [name for name in names if name.lower().endswith(suffixes)]
        if found and not _has_image_folder(request, names):
            refuse_mixed_splits(request, found)
            files = [str(Path(request.data, name)) for name in found]
            return open_files(request, files)
    try:
        return open_folder(request)
    except NotATreeError as error:
        raise UserError(f"{error}{_elsewhere(request.data, names)}") from None


def _has_image_folder(request: Request, names: Sequence[str]) -> bool:
    """Whether there are images to take as they are; a tar beside them is then a mere copy."""
    if not request.labelled and any(map(is_image_name, names)):
        return True
    return any(_holds_image(Path(request.data, name)) for name in names)


def _holds_image(path: Path) -> bool:
    if not path.is_dir():
        return False
    with os.scandir(path) as entries:
        return any(is_image_name(entry.name) for entry in entries)


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


def _elsewhere(data: str, names: Sequence[str]) -> str:
    """Where the user may have meant, if the folder itself is not usable."""
    for name in names:
        below = Path(data, name)
        if below.is_dir() and is_lmdb(str(below)):
            return f" Its folder {name} is an LMDB; to use that, name it: {below}."
        if name.lower().endswith(TEXT_SUFFIXES):
            return f" It holds the table {name}; to use that, name it: {below}."
        if below.is_dir():
            inside = sorted(path.name for path in below.iterdir())
            if any(file.lower().endswith(TAR_SUFFIXES + PARQUET_SUFFIXES) for file in inside):
                return f" Its folder {name} holds tars or Parquet files; to use them, name {below}."
    return ""
