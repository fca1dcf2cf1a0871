"""Where the text about an image is: columns of a table, members of a tar, or its own name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from thresher.errors import UserError
from thresher.label.words import BREAK
from thresher.sources.manifest import Manifest
from thresher.sources.request import enumerate_some, printable

FILE_NAME = "filename"
USUAL_COLUMNS = {
    "caption": ("caption", "captions", "text", "txt", "title", "description"),
    "alt": ("alt", "alt_text", "alttext", "alt text"),
    "query": ("query", "search_query", "search_term", "keyword", "keywords", "search"),
}


@dataclass(frozen=True)
class Texts:
    """The texts of a collection, not yet read.

    Attributes:
        names: the images: paths of a table or tree, keys of tar members. Text, no nulls.
        columns: the columns that may be asked for, beside the file name.
        read: the text of each image by column; null where there is none.
        manifest: of a tar collection; None for files.
        root: folder that relative names are in, for files.
        left_out: why images of the source are not in ``names``, and how many.
        options: of the manifest that the source was opened as, if it was.
    """

    names: pa.ChunkedArray
    columns: tuple[str, ...]
    read: Callable[[str], Iterable[pa.Array]]
    manifest: Manifest | None
    root: str
    left_out: dict[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)


def choose_columns(texts: Texts, asked: str | None, source: str) -> list[str]:
    """The columns to look in, in this order: the user's, or the first usual one there is.

    ``asked`` may name several, separated by commas: the first in which a class is found decides.

    Raises:
        UserError: a column does not exist; the message names those that do.
    """
    if asked is not None:
        return [_resolve(texts, name.strip(), source) for name in asked.split(",")]
    for usual in USUAL_COLUMNS.values():
        found = _find(texts.columns, usual)
        if found is not None:
            return [found]
    return [FILE_NAME]


def _resolve(texts: Texts, asked: str, source: str) -> str:
    if asked in texts.columns or asked == FILE_NAME:
        return asked
    found = _find(texts.columns, USUAL_COLUMNS.get(asked, ()))
    if found is not None:
        return found
    there = enumerate_some(texts.columns, most=12) if texts.columns else "none"
    raise UserError(
        f"{source} has no text column '{printable(asked)}'. Its columns: {there}. "
        f"Choose one with --from, or --from {FILE_NAME} for file and folder names."
    )


def _find(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    lower = {name.strip().lower(): name for name in reversed(columns)}
    return next((lower[name] for name in usual if name in lower), None)


def file_name_text(name: str) -> str:
    """What a path says of its image: all its folders and its name without the extension.

    A phrase may not reach from a folder into the next: 'hot/dog.jpg' shows no hot dog.
    """
    if "%" in name:
        name = unquote(name)  # crawlers keep '%20' and '%E7%8C%AB' of the address
    folder, slash, base = name.rpartition("/")
    stem = base.rpartition(".")[0] or base
    return f"{folder}{slash}{stem}".replace("/", f" {BREAK} ")


def below_common_folder(names: pa.ChunkedArray) -> Callable[[str], str]:
    """Cut what all paths share: of '/home/katz/crawl/a.jpg' the home says nothing of images.

    Relative paths are left whole, because their folders were named for what is in them.
    """
    import pyarrow.compute as pc

    ends = pc.min_max(names).as_py()
    first, last = ends["min"] or "", ends["max"] or ""
    if not (first.startswith("/") and last.startswith("/")):
        return lambda name: name
    shared = 0
    while shared < min(len(first), len(last)) and first[shared] == last[shared]:
        shared += 1
    cut = first.rfind("/", 0, shared) + 1
    return lambda name: name[cut:]
