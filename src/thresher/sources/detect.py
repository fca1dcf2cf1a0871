"""Telling apart what kind of data a path is, and opening it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from thresher.errors import UserError
from thresher.sources.caffe_lmdb import is_lmdb, open_lmdb
from thresher.sources.folder import NotATreeError, open_folder, walk_images
from thresher.sources.foreign import foreign_folder
from thresher.sources.img2dataset_folders import find_parts, open_folders
from thresher.sources.kinds import (
    PARQUET_SUFFIXES,
    TAR_SUFFIXES,
    image_files,
    open_files,
    refuse_mixed_splits,
)
from thresher.sources.manifest import Manifest
from thresher.sources.manifest_file import is_manifest_file
from thresher.sources.manifest_source import INDEX_NAME, open_manifest
from thresher.sources.names import is_image_name, is_skipped, natural_key
from thresher.sources.places import is_url, plain, shown
from thresher.sources.remote.detect import open_url
from thresher.sources.request import Request, explain_read_errors, printable
from thresher.sources.shard_names import expand, is_pattern
from thresher.sources.table import TEXT_SUFFIXES


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
    parts = find_parts(request.data, names)
    if parts:
        return open_folders(request, parts)
    for suffixes in (TAR_SUFFIXES, PARQUET_SUFFIXES):
        found = [name for name in names if name.lower().endswith(suffixes)]
        if found and not _has_image_folder(request, names):
            refuse_mixed_splits(request, found)
            files = [str(Path(request.data, name)) for name in found]
            return open_files(request, files)
    try:
        return open_folder(request)
    except NotATreeError as error:
        foreign = foreign_folder(request.data, names) or _foreign_below(request.data, names)
        raise UserError(foreign or f"{error}{_elsewhere(request.data, names)}") from None
    except UserError as error:
        shards = [name for name in names if name.lower().endswith(TAR_SUFFIXES + PARQUET_SUFFIXES)]
        if not shards:
            raise
        place = Path(request.data, f"*{Path(shards[0]).suffix}")
        raise UserError(
            f"{error} Beside the folders lies {printable(shards[0])}; to use such files, name "
            f"'{place}'."
        ) from None


def _foreign_below(data: str, names: Sequence[str]) -> str:
    """What to say where the folders of splits are another system's."""
    for name in names:
        below = Path(data, name)
        if below.is_dir():
            found = foreign_folder(str(below), sorted(entry.name for entry in below.iterdir()))
            if found:
                return found
    return ""


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
