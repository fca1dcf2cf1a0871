"""What is known of each sample: columns by local row, updated once per step, read by methods.

A rank's ledger holds the samples it owns and nothing else. Row ``len(self)`` is a scratch row: a
batch's filling places look there and write there, so that updates keep one shape and need no test.

A sample's values lie side by side in memory (``rows.py``), so that a step fetches and writes the
rows of its batch in one go each, however many columns there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from thresher.errors import UserError
from thresher.ledger.rows import Layout
from thresher.types import Column, Rows


class _Block(NamedTuple):
    """Memory for the rows of one batch, the same in every step.

    Attributes:
        words: of the rows, see ``Layout.word``.
        columns: what looks into them; in what is to be written, each is [B, width].
    """

    words: Tensor
    columns: dict[str, Tensor]


class Ledger:
    """Columns of per-sample values.

    Args:
        ids: int64[n], manifest ids of the rows, ascending.
        labels: int[n], given labels.
        columns: what to keep, beyond ``seen``: the number of epochs a sample took part in.
        device: where the columns live.
    """

    def __init__(
        self,
        ids: np.ndarray,
        labels: np.ndarray,
        columns: tuple[Column, ...],
        device: torch.device | str = "cpu",
    ) -> None:
        self.ids = np.asarray(ids, dtype=np.int64)
        self.labels = torch.as_tensor(np.asarray(labels, dtype=np.int64), device=device)
        self._layout = Layout((*columns, Column("seen", dtype="int16", in_step=False)))
        self._rows = self._layout.rows(len(ids) + 1, device)
        self._columns = self._layout.views(self._rows)
        self._words = self._rows.view(self._layout.word)
        self._in_step = self._rows[:, : self._layout.step_bytes].view(self._layout.word)
        self._fetched: dict[int, _Block] = {}
        self._written: dict[int, _Block] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, positions: Tensor) -> Rows:
        """The columns that a step may look at, for the samples at these local rows.

        They lie in memory that the next call with as many positions writes anew.
        """
        num = positions.shape[0]  # PyTorch's len() is a function in Python
        if num not in self._fetched:
            words = self._in_step.new_empty(num, self._in_step.shape[1])
            self._fetched[num] = _Block(words, self._layout.step_views(words.view(torch.uint8)))
        block = self._fetched[num]
        torch.index_select(self._in_step, 0, positions, out=block.words)
        return block.columns

    def update(self, positions: Tensor, records: Mapping[str, Tensor]) -> None:
        """Write a step's records.

        Args:
            positions: int64[B], local rows, each at most once; ``len(self)``, the scratch row, in
                any number of places that only fill the shape.
            records: name of a column to [B] or [B, width]; other columns stay.
        """
        num = positions.shape[0]
        if num not in self._written:
            words = self._words.new_empty(num, self._words.shape[1])
            columns = self._layout.views(words.view(torch.uint8))
            wide = {name: _wide(column) for name, column in columns.items()}
            for name, values in records.items():  # else copying would repeat what is too narrow
                assert _wide(values).shape == wide[name].shape, f"the record '{name}' is whole"
            self._written[num] = _Block(words, wide)
        block = self._written[num]
        torch.index_select(self._words, 0, positions, out=block.words)
        for name, values in records.items():
            block.columns[name].copy_(_wide(values))
        block.columns["seen"] += 1
        self._words.index_copy_(0, positions, block.words)

    @property
    def columns(self) -> Rows:
        """Every column without its scratch row; views, not copies."""
        return {name: values[:-1] for name, values in self._columns.items()}

    @property
    def bytes_per_sample(self) -> int:
        """Memory of a sample's columns, without its id and label."""
        return self._layout.row_bytes

    def overwrite(self, parts: Iterable[Rows]) -> None:
        """Write columns anew, one stretch of rows after the other; all rows or none.

        Args:
            parts: columns of each stretch, name to [size, ...]. A part is written before the next
                is asked for, so that it may be worked out from the rows it replaces.
        """
        stop = 0
        for part in parts:
            start, stop = stop, stop + len(next(iter(part.values())))
            for name, values in part.items():
                column = self._columns[name]
                column[start:stop] = values.reshape(-1, *column.shape[1:]).to(column.dtype)
        assert stop in (0, len(self)), "every row is written, or none"

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on; rows of bytes, and what lies in them."""
        columns = [tuple(column) for column in self._layout.columns]
        return {"ids": torch.from_numpy(self.ids), "columns": columns, "rows": self._rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave.

        Raises:
            UserError: it has other columns, or is of other samples.
        """
        if not np.array_equal(state["ids"].numpy(), self.ids):
            raise UserError(
                f"The checkpoint's ledger is of {len(state['ids']):,} samples, and now"
                f" {len(self.ids):,} can be used, not all of them the same: images have become"
                " readable or unreadable since. Put them back as they were, or start the run anew"
                " with --overwrite, or with another --out."
            )
        self.take_rows(slice(None), state, slice(None))

    def take_rows(
        self, ours: np.ndarray | slice, state: Mapping[str, Any], theirs: np.ndarray | slice
    ) -> None:
        """Take some rows of what ``state_dict`` gave, maybe of another ledger.

        Args:
            ours: int64[n], where they go.
            state: what was saved; its rows may be mapped from a file.
            theirs: int64[n], where they are.

        Raises:
            UserError: it has other columns.
        """
        self._layout.refuse_other_than(state["columns"])
        self._rows[_index(ours)] = state["rows"][_index(theirs)].to(self._rows.device)


def _wide(values: Tensor) -> Tensor:
    """[B] or [B, width] as [B, width]."""
    return values if values.dim() == 2 else values[:, None]


def _index(rows: np.ndarray | slice) -> Tensor | slice:
    return rows if isinstance(rows, slice) else torch.from_numpy(rows)
