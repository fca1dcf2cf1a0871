"""What is wrong with a table that cannot be used, and what to do about it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from thresher.errors import UserError
from thresher.sources.request import first_line, printable

_HINTS = {
    "from object to array": " Write one JSON object a line, not one list of all.",
    "from number to string": " Write all of a column as numbers, or all as text.",
    "from string to number": " Write all of a column as numbers, or all as text.",
    "Missing a ": " It may be cut short: download or write it again.",
    "Expected ": " The first line has to name the columns, and each line to have as many.",
}
_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")


def unparsable(error: Exception, source: str) -> UserError:
    """What to say of a table that cannot be parsed, and what to do."""
    detail = first_line(error)
    if "utf8" in detail.lower() or "utf-8" in detail.lower():
        return UserError(f"{source} is not UTF-8 text ({detail}). Save it as UTF-8.")
    hint = next((hint for part, hint in _HINTS.items() if part in detail), "")
    return UserError(f"{source} cannot be read as a table: {detail}.{hint}")


def refuse_open_quotes(labels: pa.ChunkedArray, source: str) -> None:
    """A quotation mark that is not closed makes one label of many rows, and loses those.

    Raises:
        UserError: a label has a line break in it.
    """
    ends = (pc.any(pc.match_substring(labels, end)).as_py() for end in "\r\n")
    if not any(ends):  # which a regular expression would take far longer to say
        return
    broken = labels.filter(pc.match_substring_regex(labels, r"\S\s*[\r\n]\s*\S"))
    if len(broken):
        raise UserError(
            f"Labels of {source} reach over several lines ({len(broken):,}), the first: "
            f"'{printable(broken[0].as_py())[:60]}'. Look for a quotation mark that is not closed; "
            'one that is part of a text is written twice ("").'
        )


def advice_on_missing(first: Sequence[str], root: str) -> str:
    """What to do about files that a table lists and that do not exist.

    Args:
        first: some of their paths.
        root: the folder that relative ones are relative to.
    """
    if any("://" in path for path in first):
        return "Addresses of this kind cannot be read from a table."
    if any(_is_there_as(root, path.strip()) for path in first):
        return "They are there without the spaces around their names: remove those."
    if any(_is_there_as(root, unicodedata.normalize(f, p)) for p in first for f in _FORMS):
        return (
            "They are there under names that look the same but are written otherwise in Unicode "
            "(é as one character or as two, as macOS does). Rename the files (convmv --nfc does "
            "this for whole trees), or write the table as they are."
        )
    if any("\\" in path for path in first):
        return "They are paths of Windows: write / for \\, and paths of this machine for drives."
    if all(Path(path).is_absolute() for path in first):
        return "Mend the paths, or remove those rows."
    return f"Relative paths are relative to the table's folder, {root}."


def _is_there_as(root: str, path: str) -> bool:
    return Path(root, path).is_file()
