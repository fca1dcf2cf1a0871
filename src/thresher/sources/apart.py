"""Data to measure on must not be, hold, or lie in the data to train on."""

from __future__ import annotations

from pathlib import Path

from thresher.errors import UserError
from thresher.sources.places import is_url, plain
from thresher.sources.request import printable


def require_apart(data: str, other: str, option: str) -> None:
    """Refuse data that ``option`` names where they are the training data, or in part.

    Raises:
        UserError: they are the same, or one lies inside the other.
    """
    ours, theirs = (
        Path(place.rstrip("/") if is_url(place) else Path(place).resolve())
        for place in (plain(data), plain(other))
    )
    if ours == theirs:
        raise UserError(
            f"{option} {printable(other)} is the same as the data. Keep them apart: what was "
            "trained on says nothing of other images."
        )
    if ours in theirs.parents or theirs in ours.parents:
        inner, outer = (other, data) if ours in theirs.parents else (data, other)
        raise UserError(
            f"{printable(inner)} lies inside {printable(outer)}, so that all its images would be "
            f"found there. Keep {option} apart from the data."
        )
