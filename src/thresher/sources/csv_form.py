"""How a CSV file is written: its delimiter, its encoding, whether it has a header."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow.csv

from thresher.errors import UserError
from thresher.sources.names import is_image_name
from thresher.sources.request import enumerate_some

_BLOCK = 16 << 20  # a row must fit into a block; captions and base64 columns can be long
_QUOTED = re.compile(rb'"[^"]*"')


def read_options() -> pyarrow.csv.ReadOptions:
    """Blocks that hold long rows."""
    return pyarrow.csv.ReadOptions(block_size=_BLOCK)


def parse_options(file: str, shown: str) -> pyarrow.csv.ParseOptions:
    """The delimiter, which a CSV shows in its first line; a TSV has tabs.

    Args:
        file: a local path.
        shown: what the user named, for messages.

    Raises:
        UserError: the file is empty, or in UTF-16.
    """
    with Path(file).open("rb") as stream:
        head = stream.readline(1 << 20)
    if not head.strip():
        raise UserError(f"{shown} is empty: it lists no images.")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise UserError(f"{shown} is UTF-16 text. Save it as UTF-8.")
    delimiter = "\t"
    if Path(file).suffix.lower() != ".tsv":
        bare = _QUOTED.sub(b"", head)
        delimiter = max(",;\t|", key=lambda mark: bare.count(mark.encode()))
    return pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)


def require_header(columns: Sequence[str], shown: str) -> None:
    """Refuse a table whose first line is taken for names of columns but is data.

    Raises:
        UserError: one of the names is that of an image file.
    """
    if any(map(is_image_name, columns)):
        raise UserError(
            f"{shown} has no header: its first line is {enumerate_some(columns)}. "
            "Put a line with the names of the columns above it, such as path,label."
        )
