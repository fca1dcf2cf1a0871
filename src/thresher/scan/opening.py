"""Opening data as leniently as a scan may: what is wrong with them is what it is to find out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from thresher.config import DataOptions
from thresher.errors import UserError
from thresher.scan.look import is_pickle
from thresher.sources.detect import open_source
from thresher.sources.manifest import Manifest
from thresher.sources.names import extension, is_image_name, is_skipped, natural_key
from thresher.sources.notes import notes_of
from thresher.sources.request import printable
from thresher.sources.shards import open_shard
from thresher.sources.tar_index import DamagedTar, walk_tar

PICKLES = frozenset(
    {"pkl", "pickle", "pt", "pth", "ckpt", "joblib", "dill", "npz", "npy", "bin", "pyd"}
)
_MAY_BE_PLAIN = {"npy", "bin"}  # these are refused only if they begin like a pickle


class Opened(NamedTuple):
    """Data that are open, and what was noticed on the way.

    Attributes:
        refused: names of files that are never loaded: pickles.
        notes: sentences for the user.
    """

    manifest: Manifest
    refused: tuple[str, ...]
    notes: tuple[str, ...]


def open_data(data: str, options: DataOptions) -> Opened:
    """Open data with their labels, or without where they have none.

    Raises:
        UserError: they cannot be opened at all.
    """
    if extension(data) in PICKLES and Path(data).is_file():
        raise UserError(
            f"{printable(data)} may be a pickle, which runs code when loaded; it is refused. "
            "Store images as files, WebDataset tars or Parquet."
        )
    notes = []
    try:
        manifest = _open(data, options)
    except UserError as error:
        manifest, note = _open_otherwise(data, options, error)
        notes += [note] if note else []
    notes += [
        f"Only in part: {text}" for text in manifest.options.get("damaged_shards", {}).values()
    ]
    notes += notes_of(manifest, all_files=True)
    notes += _downloads(manifest.options)
    links = manifest.options.get("refused_links", 0)
    if links:
        notes.append(
            f"{links} link{'s' * (links > 1)} to folders would lead round in a circle or to the "
            "same images twice and were not followed."
        )
    return Opened(manifest, tuple(_pickles(data, manifest)), tuple(notes))


def _downloads(options: Mapping[str, Any]) -> list[str]:
    """What img2dataset wrote down of images that never came."""
    failed, lost = options.get("failed_downloads", 0), options.get("missing_images", 0)
    notes = []
    if failed:
        reasons = ", ".join(
            f"{printable(reason.strip())[:80]} ({count:,})"
            for reason, count in options["failed_reasons"].items()
        )
        notes.append(f"Never downloaded: {failed:,}, says img2dataset; most often: {reasons}.")
    if lost:
        notes.append(f"Downloaded, says img2dataset, but not there: {lost:,}.")
    return notes


def _open_otherwise(
    data: str, options: DataOptions, error: UserError
) -> tuple[Manifest, str | None]:
    """What cannot be trained on may still be looked at, if need be without labels."""
    if Path(data).is_dir():
        with os.scandir(data) as entries:
            folders = [e.name for e in entries if e.is_dir() and not is_skipped(e.name)]
        try:  # named classes may be empty, and one class is enough
            return _open(data, options, classes=sorted(folders, key=natural_key)), None
        except UserError:
            pass
    if options.label_column is None:
        try:
            return _open(data, options, labelled=False), f"No label was read: {error}"
        except UserError:
            pass
    raise error


def _open(
    data: str,
    options: DataOptions,
    *,
    classes: Sequence[str] | None = None,
    labelled: bool = True,
) -> Manifest:
    return open_source(
        data,
        path_column=options.path_column,
        label_column=options.label_column,
        image_column=options.image_column,
        classes=classes,
        labelled=labelled,
        allow_damaged=True,
    )


def _pickles(data: str, manifest: Manifest) -> list[str]:
    """Files beside the images that would run code if anybody loaded them."""
    found = []
    if manifest.kind == "files" and Path(data).is_dir():
        if not manifest.options.get("ignored_files"):
            return []
        for folder, folders, files in os.walk(data):
            folders[:] = sorted(name for name in folders if not is_skipped(name))
            for name in sorted(files):
                path = Path(folder, name)
                if extension(name) in PICKLES and _is_refused(name, path):
                    found.append(printable(str(path.relative_to(data))))
    elif manifest.kind == "tar" and manifest.options.get("ignored_members"):
        for file in manifest.shards:
            try:
                shard = open_shard(file)
            except (OSError, UserError):
                continue  # said in the notes already
            try:
                for member in walk_tar(shard):
                    kind = extension(member.name)
                    if kind not in PICKLES or is_image_name(member.name):
                        continue
                    if kind in _MAY_BE_PLAIN and not is_pickle(shard.read_at(member.offset, 256)):
                        continue
                    found.append(printable(f"{Path(file).name}/{member.name}"))
            except (DamagedTar, OSError):
                pass  # said in the notes already
            finally:
                shard.close()
    return found


def _is_refused(name: str, path: Path) -> bool:
    if extension(name) not in _MAY_BE_PLAIN:
        return True
    try:
        with path.open("rb") as file:
            return is_pickle(file.read(256))
    except OSError:
        return True
