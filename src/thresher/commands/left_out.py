"""Saying what is left out of the data: the same lines in every command, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from thresher.sources.damage import left_out
from thresher.sources.notes import closed_folders, lost_members


def tell_left_out(options: Mapping[str, Any], *, files_told: bool = False) -> None:
    """Print a line on files that are left out, one on folders, and one on members of tars.

    Args:
        options: of a manifest.
        files_told: who opened the data has told of files already.
    """
    files = None if files_told else left_out(options)
    for note in (files, closed_folders(options), lost_members(options)):
        if note:
            print(f"note: {note}", file=sys.stderr, flush=True)
