"""Patterns that stand for many files: ``shard-{000..003}.tar``, ``train-*.parquet``."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from thresher.errors import UserError
from thresher.sources.names import natural_key
from thresher.sources.request import enumerate_some

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)")
_MOST = 1_000_000


def is_pattern(data: str) -> bool:
    """Whether a name is a pattern; one that exists as it is written is not."""
    return not Path(data).exists() and (bool(_BRACES.search(data)) or glob.has_magic(data))


def expand(data: str, *, missing_ok: bool = False) -> list[str]:
    """The files that a pattern stands for, in the order of their names.

    Args:
        data: the pattern.
        missing_ok: name those that a brace pattern spells even if some do not exist.

    Raises:
        UserError: none exists, or one that a brace pattern names does not.
    """
    named = expand_braces(data)
    if not glob.has_magic(data):
        missing = [file for file in named if not Path(file).exists()]
        if missing and not (missing_ok and len(missing) < len(named)):
            raise UserError(
                f"{len(missing)} of {len(named)} files of {data} do not exist: "
                f"{enumerate_some(missing)}."
            )
        return named
    found = {file for pattern in named for file in glob.glob(pattern)}  # noqa: PTH207
    if not found:
        raise UserError(f"No file matches {data}.")
    return sorted(found, key=natural_key)


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern with braces spells, whether they exist or not."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    before, after = pattern[: match.start()], pattern[match.end() :]
    ends = expand_braces(after)
    return [before + choice + end for choice in _choices(match.group(1), pattern) for end in ends]


def _choices(inside: str, pattern: str) -> list[str]:
    match = _RANGE.fullmatch(inside)
    if match is None:
        return inside.split(",")
    low, high = match.groups()
    if not 0 <= int(high) - int(low) < _MOST:
        raise UserError(f"The range {{{inside}}} in {pattern} is empty or too long.")
    return [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
