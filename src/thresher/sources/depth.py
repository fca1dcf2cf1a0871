"""Folders inside class folders: parts of a class, or the classes that the user means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from thresher.errors import UserError
from thresher.sources.names import natural_key
from thresher.sources.request import Request, enumerate_some, printable


def deeper_folder(files: Mapping[str, Sequence[str]]) -> str:
    """A folder that might be meant as a class; empty unless all classes hold several and no image.

    Args:
        files: the images of each class, relative to its folder.
    """
    below = {name: _folders_below(inside) for name, inside in files.items()}
    if any(len(folders) < 2 for folders in below.values()):
        return ""
    first = next(iter(below))
    return printable(f"{first}/{min(below[first], key=natural_key)}")


def refuse_wrapper(request: Request, files: Mapping[str, Sequence[str]]) -> None:
    """One folder around those of the classes is no class; tell where they are.

    Raises:
        UserError: all images lie in several folders of one.
    """
    full = [name for name, inside in files.items() if inside]
    if len(full) == 1 and request.classes is None and deeper_folder({full[0]: files[full[0]]}):
        folders = sorted(_folders_below(files[full[0]]), key=natural_key)
        raise UserError(
            f"{request.data} has only one class, {enumerate_some(full)}, with the folders "
            f"{enumerate_some(folders)} in it. If they are the classes, name "
            f"{printable(request.data.rstrip('/'))}/{printable(full[0])}."
        )


def _folders_below(files: Sequence[str]) -> set[str]:
    """The folders that a class's images lie in; empty if one lies in the class folder itself."""
    below = {file.partition("/")[0] if "/" in file else "" for file in files}
    return set() if "" in below else below
