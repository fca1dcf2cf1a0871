"""Rows of bytes in which a sample's values lie side by side, and columns that look into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thresher.errors import UserError
from thresher.types import Column, Rows

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Layout:
    """Where each column lies in a row.

    Args:
        columns: of the ledger.

    Attributes:
        columns: as given.
        row_bytes: of a row.
        step_bytes: the first of them, which a step looks at.
        word: type as wide as the widest value. Rows that move word by word keep their values whole,
            also where two threads write the same row.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self._starts: dict[str, int] = {}
        # Each value's address must be a multiple of its size. So the widest types stand at both
        # ends and the narrowest meet in the middle, and a row is a multiple of the widest.
        read = sorted((c for c in columns if c.in_step), key=_itemsize, reverse=True)
        written = sorted((c for c in columns if not c.in_step), key=_itemsize)
        unit = max(map(_itemsize, columns), default=1)
        self.word = _WORDS[unit]
        read_bytes = self._place(read, 0)
        self.row_bytes = _round_up(self._place(written, read_bytes), unit)
        self.step_bytes = min(_round_up(read_bytes, unit), self.row_bytes)

    def _place(self, columns: Sequence[Column], at: int) -> int:
        """Give columns their places from ``at`` on, and say where the last one ends."""
        for column in columns:
            self._starts[column.name] = at = _round_up(at, _itemsize(column))
            at += _itemsize(column) * column.width
        return at

    def rows(self, num: int, device: torch.device | str) -> Tensor:
        """Rows in which every column has its initial value, uint8[num, row_bytes]."""
        rows = torch.zeros(num, self.row_bytes, dtype=torch.uint8, device=device)
        views = self.views(rows)
        for column in self.columns:
            views[column.name].fill_(column.initial)
        return rows

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """What looks into whole rows: name to [num], or [num, width] of wider columns."""
        return {column.name: self._look(rows, column) for column in self.columns}

    def step_views(self, rows: Tensor) -> dict[str, Tensor]:
        """The same of rows' first ``step_bytes``."""
        return {c.name: self._look(rows, c) for c in self.columns if c.in_step}

    def refuse_other_than(self, saved: Iterable[Any]) -> None:
        """See that what was saved has these columns.

        Args:
            saved: a tuple of each column's attributes.

        Raises:
            UserError: a column is missing or differs, or what was saved is in another form.
        """
        saved = list(saved)
        if saved == [tuple(column) for column in self.columns]:
            return
        there = {one[0]: one for one in saved if isinstance(one, tuple)}
        ours = {column.name: tuple(column) for column in self.columns}
        for name in (*ours, *there):
            if there.get(name) != ours.get(name):
                how = "differs" if name in ours and name in there else "is missing"
                how = how if name in ours else "is unexpected"
                what = f"The column '{name}' {how} in the checkpoint's ledger"
                break
        else:
            what = "The columns of the checkpoint's ledger stand in another order"
        raise UserError(
            f"{what}; it was written with other classes, another method or another version. Start"
            " the run anew with --overwrite, or with another --out."
        )

    def _look(self, rows: Tensor, column: Column) -> Tensor:
        start = self._starts[column.name]
        stop = start + _itemsize(column) * column.width
        values = rows[:, start:stop].view(_dtype(column))
        return values[:, 0] if column.width == 1 else values


def saved_columns(state: Mapping[str, Any]) -> Rows:
    """Look into what ``Ledger.state_dict`` gave: every column, without the scratch row."""
    layout = Layout([Column(*one) for one in state["columns"]])
    return layout.views(state["rows"][:-1])


def _dtype(column: Column) -> torch.dtype:
    dtype = getattr(torch, column.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _itemsize(column: Column) -> int:
    return _dtype(column).itemsize


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
