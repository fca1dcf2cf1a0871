"""Telling apart what kind of data a URL is."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from thresher.errors import UserError
from thresher.sources.caffe_lmdb import DATA_NAME, open_lmdb
from thresher.sources.caffe_lmdb import SUFFIXES as LMDB_SUFFIXES
from thresher.sources.damage import AGAIN, DamagedShard
from thresher.sources.img2dataset_folders import is_report, open_folders
from thresher.sources.kinds import (
    PARQUET_SUFFIXES,
    TAR_SUFFIXES,
    image_files,
    open_files,
    refuse_mixed_splits,
)
from thresher.sources.manifest import Manifest
from thresher.sources.manifest_file import is_manifest
from thresher.sources.manifest_source import INDEX_NAME, open_manifest
from thresher.sources.names import is_image_name, is_skipped, natural_key
from thresher.sources.parquet_file import begins_like_parquet, open_parquet_file
from thresher.sources.places import join, protocol, shown, strip_query
from thresher.sources.remote.errors import Missing, Refused
from thresher.sources.remote.folder import open_remote_folder
from thresher.sources.remote.store import store_for
from thresher.sources.request import Request, first_line
from thresher.sources.shard_names import expand_braces
from thresher.sources.table import TEXT_SUFFIXES

_FILES = (*TAR_SUFFIXES, *PARQUET_SUFFIXES, *TEXT_SUFFIXES, *LMDB_SUFFIXES)


def open_url(request: Request, url: str) -> Manifest:
    """Open data at a URL: a file by its ending, a pattern of them, or a folder.

    Folders of web servers cannot be listed; of those only a packed set's index is looked for.

    Raises:
        UserError: see ``open_source``.
    """
    web = protocol(url) in ("http", "https")
    files = expand_braces(url)
    if not web and glob.has_magic(url):
        found = [match for pattern in files for match in store_for(url).glob(pattern)]
        if not found:
            raise UserError(f"No file matches {request.data}.")
        return open_files(request, sorted(set(found), key=natural_key))
    if web and "*" in strip_query(url):
        store_for(url).glob(url)  # tells why that cannot be
    path = strip_query(files[0]).lower()
    if is_image_name(path) and not request.labelled:
        return image_files(files, request)
    if path.endswith(_FILES) or len(files) > 1:
        return open_files(request, files)
    name = path.partition("://")[2].partition("/")[2].rpartition("/")[2]
    if is_image_name(path) or (web and "." in name and not _is_index(join(url, INDEX_NAME))):
        return open_files(request, files)  # refuses it, and says why
    return _open_folder(request, url, web=web)


def _open_folder(request: Request, url: str, *, web: bool) -> Manifest:
    store = store_for(url)
    folders, names = ([], [INDEX_NAME]) if web else store.list_folder(url)
    if DATA_NAME in names:
        return open_lmdb(request, url)
    if INDEX_NAME in names and _is_index(join(url, INDEX_NAME)):
        return open_manifest(request, join(url, INDEX_NAME))
    if not (folders or names):
        raise UserError(f"There is no file or folder {request.data}.")
    names = sorted((name for name in names if not is_skipped(name)), key=natural_key)
    parts = [name for name in folders if f"{name}.parquet" in names]
    if parts and is_report(join(url, f"{parts[0]}.parquet")):
        images = open_remote_folder(replace(request, labelled=False), url, store.find(url))
        return open_folders(request, sorted(parts, key=natural_key), images)
    for suffixes in (TAR_SUFFIXES, PARQUET_SUFFIXES):
        found = [name for name in names if name.lower().endswith(suffixes)]
        if found and not web:
            refuse_mixed_splits(request, found)
            return open_files(request, _urls(url, found))
    return open_remote_folder(request, url, store.find(url))


def _is_index(url: str) -> bool:
    """Whether a manifest lies at a URL, where there may be nothing, or a page that says so.

    Raises:
        UserError: it was a Parquet file once, or may be there and cannot be read.
    """
    try:
        with open_parquet_file(url) as file:
            return is_manifest(file.schema_arrow)
    except Missing:
        return False
    except Refused as error:
        raise UserError(
            f"{shown(url)} cannot be read, if it is there: {error}. Name what lies in the folder "
            "itself: the shards, by a pattern, or a table."
        ) from None
    except (DamagedShard, pa.ArrowException) as error:
        if begins_like_parquet(url):
            raise UserError(f"{first_line(error)}. {AGAIN}.") from None
        return False


def _urls(folder: str, names: Sequence[str]) -> list[str]:
    return [join(folder, name) for name in names]
