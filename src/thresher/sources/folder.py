"""Trees of image files: one sub-folder per class, or any tree where labels are not needed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from thresher.errors import UserError
from thresher.sources.depth import deeper_folder, refuse_wrapper
from thresher.sources.labels import index_names, no_labels
from thresher.sources.manifest import OK, Manifest, make_manifest
from thresher.sources.names import (
    BAD_NAME,
    extension,
    is_image_name,
    is_skipped,
    natural_key,
    to_utf8,
)
from thresher.sources.request import NO_LABEL, Request, enumerate_some, printable

_MOST_KINDS = 100
BROKEN_LINK = "broken link"
_LITTER = {".git", ".ipynb_checkpoints", ".thumbnails", ".@__thumb", ".Trash", ".cache"}
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev"}


class NotATreeError(UserError):
    """The folder is not a class-per-folder tree; it may hold something else."""


@dataclass
class Listing:
    """The image files below a folder.

    Attributes:
        files: paths relative to the folder, sorted.
        broken: those of them that are links to nothing.
        ignored: how many files are not images by their extension, by that extension.
        hidden: folders with images whose names begin with a dot.
        closed: folders that there is no right to read, where the user allows that.
        refused: how many links to folders would have led round in a circle or to the same twice.
    """

    files: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    ignored: Counter[str] = field(default_factory=Counter)
    hidden: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    refused: int = 0


def open_folder(request: Request) -> Manifest:
    """Index a class-per-folder tree; images directly in its root have no label.

    Raises:
        UserError: no images, no class sub-folders, an empty class, or see ``index_names``.
    """
    root = os.path.abspath(request.data)  # noqa: PTH100 - a link stays what the user named
    if not request.labelled:
        listing = walk_images(root, skip_closed=request.allow_damaged)
        return manifest_of_images(request, root, listing)

    whole, by_class = Listing(), dict[str, Listing]()
    for entry in sorted(os.scandir(root), key=lambda entry: natural_key(entry.name)):
        if is_skipped(entry.name):
            _add_hidden(whole, entry, entry.name)
        elif not _is_dir(entry):
            _add_file(whole, entry, entry.name)
        elif entry.is_symlink() and _leads_up(entry.path, root):
            whole.refused += 1
        else:
            by_class[entry.name] = walk_images(entry.path, skip_closed=request.allow_damaged)
    return manifest_of_classes(request, root, whole, by_class)


def manifest_of_classes(
    request: Request, root: str, whole: Listing, by_class: dict[str, Listing]
) -> Manifest:
    """The manifest of a tree, from what its root and its class folders hold.

    Raises:
        UserError: see ``open_folder``.
    """
    in_root = sorted(whole.files)
    num_images = len(in_root) + sum(len(listing.files) for listing in by_class.values())
    for name, listing in by_class.items():
        whole.ignored.update(listing.ignored)
        whole.hidden.extend(f"{name}/{hidden}" for hidden in listing.hidden)
        whole.closed.extend(f"{name}/{closed}".rstrip("/") for closed in listing.closed)
    _require_images(range(num_images), request)
    if not any(listing.files for listing in by_class.values()):
        raise NotATreeError(
            f"{request.data} has {num_images} images but no class sub-folders. "
            "Put the images of each class into a sub-folder named after the class, "
            "or give a table of paths and labels."
        )
    _refuse_splits(request, by_class)
    _refuse_bad_class_names(request, by_class)
    files = {name: listing.files for name, listing in by_class.items()}
    refuse_wrapper(request, files)
    empty = [name for name, listing in by_class.items() if not listing.files and not listing.closed]
    if empty and request.classes is None:
        raise UserError(
            f"No image file in {len(empty)} class folder{'s' * (len(empty) > 1)} of "
            f"{request.data}: {enumerate_some(empty)}. Add images or remove the folder."
        )

    full = {name: listing for name, listing in by_class.items() if listing.files}
    deeper = deeper_folder({name: files[name] for name in full})
    indices, classes = index_names(list(full), request)
    sizes = [len(listing.files) for listing in full.values()]
    labels = np.concatenate([np.repeat(indices, sizes), np.full(len(in_root), -1, np.int32)])
    whole.files = []
    for name, listing in full.items():
        whole.files.extend(f"{name}/{file}" for file in listing.files)
        whole.broken.update(f"{name}/{file}" for file in listing.broken)
        whole.refused += listing.refused
    whole.files.extend(in_root)
    return _manifest(request, root, whole, labels, classes, deeper)


def manifest_of_images(request: Request, root: str, listing: Listing) -> Manifest:
    """The manifest of images without labels."""
    _require_images(listing.files, request)
    labels, classes = no_labels(len(listing.files), request)
    return _manifest(request, root, listing, labels, classes)


def walk_images(root: str, *, skip_closed: bool = False) -> Listing:
    """List the images below ``root`` without asking the file system about each file.

    Real folders are walked before linked ones and links in sorted order, so that the same tree
    always gives the same list. A linked folder is walked once, and never if it leads upwards.

    Raises:
        PermissionError: there is no right to read a folder, unless they are to be skipped.
    """
    listing = Listing()
    seen: set[tuple[int, int]] = set()
    real, linked = [""], list[str]()
    while real or linked:
        if not real:
            linked.sort(reverse=True)
        below = real.pop() if real else linked.pop()
        path = f"{root}/{below}"
        status = os.stat(path)  # noqa: PTH116 - once per folder of millions of files
        if (status.st_dev, status.st_ino) in seen:
            listing.refused += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        try:
            opened = os.scandir(path)
        except PermissionError:
            if not skip_closed:
                raise
            listing.closed.append(below)
            continue
        with opened as entries:
            for entry in entries:
                name = below + entry.name
                if is_skipped(entry.name):
                    _add_hidden(listing, entry, name)
                elif not _is_dir(entry):
                    _add_file(listing, entry, name)
                elif not entry.is_symlink():
                    real.append(name + "/")
                elif _leads_up(entry.path, path):
                    listing.refused += 1
                else:
                    linked.append(name + "/")
    listing.files.sort()
    return listing


def _add_file(listing: Listing, entry: os.DirEntry[str], name: str) -> None:
    if not is_image_name(entry.name):
        listing.ignored[extension(entry.name)] += 1
    elif entry.is_symlink() and not os.path.isfile(entry.path):  # noqa: PTH113 - an entry's name
        listing.files.append(name)
        listing.broken.add(name)
    elif entry.is_file():
        listing.files.append(name)
    else:
        listing.ignored[extension(entry.name)] += 1  # a pipe or socket, whatever it is called


def _add_hidden(listing: Listing, entry: os.DirEntry[str], name: str) -> None:
    """Remember a hidden folder if there are images right in it; nothing else is lost by it."""
    if entry.name.startswith(".") and entry.name not in _LITTER and _is_dir(entry):
        with contextlib.suppress(OSError), os.scandir(entry.path) as inside:
            if any(is_image_name(below.name) for below in inside):
                listing.hidden.append(name)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link to itself is neither."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def _leads_up(link: str, folder: str) -> bool:
    """Whether a link in ``folder`` leads to the folder itself or to one above it."""
    target, here = os.path.realpath(link), os.path.realpath(folder)
    return target == here or here.startswith(target.rstrip("/") + "/")


def _manifest(
    request: Request,
    root: str,
    listing: Listing,
    labels: np.ndarray,
    classes: tuple[str, ...],
    deeper: str = "",
) -> Manifest:
    keys, badly_named = to_utf8(listing.files)
    states: pa.Array | None = None
    unlabelled = np.flatnonzero((labels < 0) & request.labelled)
    if listing.broken or badly_named or len(unlabelled):
        column = np.full(len(keys), OK, dtype=object)
        column[unlabelled] = NO_LABEL
        column[[row for row, name in enumerate(listing.files) if name in listing.broken]] = (
            BROKEN_LINK
        )
        column[badly_named] = BAD_NAME
        states = pa.array(column, type=pa.string())
    return make_manifest(
        kind="files",
        shards=[root],
        classes=classes,
        source=request.data,
        keys=keys,
        labels=labels,
        states=states,
        options={
            "ignored_files": listing.ignored.total(),
            "ignored_kinds": dict(listing.ignored.most_common(_MOST_KINDS)),
            "hidden_folders": [printable(name) for name in listing.hidden[:_MOST_KINDS]],
            "closed_folders": [
                printable(name).rstrip("/") or "." for name in listing.closed[:_MOST_KINDS]
            ],
            "refused_links": listing.refused,
            "deeper_folder": deeper,
        },
    )


def _require_images(files: list[str] | range, request: Request) -> None:
    if len(files) == 0:
        raise NotATreeError(
            f"{request.data} holds no images, in no sub-folder either. "
            "Images are known by their extension: .jpg, .png, .webp and so on."
        )


def _refuse_splits(request: Request, by_class: dict[str, Listing]) -> None:
    """A tree of splits would train a classifier of 'train' against 'val'."""
    if len(by_class) > 1 and all(name.lower() in _SPLITS for name in by_class):
        first = next(iter(by_class))
        raise UserError(
            f"The sub-folders of {request.data} are splits, not classes: "
            f"{enumerate_some(list(by_class))}. Name one of them, as in {request.data}/{first}."
        )


def _refuse_bad_class_names(request: Request, by_class: dict[str, Listing]) -> None:
    for name in by_class:
        if name != name.encode("utf-8", "replace").decode():
            raise UserError(
                f"The name of the class folder '{printable(name)}' in {request.data} is not UTF-8. "
                "Rename it (convmv does this for whole trees)."
            )
