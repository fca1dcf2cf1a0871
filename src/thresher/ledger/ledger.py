"""What is known of each sample: columns by local row, updated once per step, read by methods.

A rank's ledger holds the samples it owns and nothing else. Row ``len(self)`` is a scratch row: a
batch's filling places write there, so that updates keep one shape and need no test on the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thresher.types import Column, Rows


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
        self._columns: dict[str, Tensor] = {}
        self._in_step = [column.name for column in columns if column.in_step]
        for column in (Column("seen", dtype="int16", in_step=False), *columns):
            shape = (len(ids) + 1,) if column.width == 1 else (len(ids) + 1, column.width)
            dtype = getattr(torch, column.dtype)
            self._columns[column.name] = torch.full(
                shape, column.initial, dtype=dtype, device=device
            )

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, positions: Tensor) -> Rows:
        """The columns that a step may look at, for the samples at these local rows."""
        return {name: self._columns[name].index_select(0, positions) for name in self._in_step}

    def update(self, positions: Tensor, valid: Tensor, records: Mapping[str, Tensor]) -> None:
        """Write a step's records; places that are not valid go to the scratch row."""
        target = torch.where(valid, positions, len(self))
        for name, values in records.items():
            column = self._columns[name]
            column.index_copy_(0, target, values.reshape(-1, *column.shape[1:]).to(column.dtype))
        seen = self._columns["seen"]
        seen.index_add_(0, target, torch.ones_like(target, dtype=seen.dtype))

    @property
    def columns(self) -> Rows:
        """Every column without its scratch row; views, not copies."""
        return {name: values[:-1] for name, values in self._columns.items()}

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
        """Everything needed to go on, as tensors."""
        return {"ids": torch.from_numpy(self.ids), "columns": dict(self._columns)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        assert np.array_equal(state["ids"].numpy(), self.ids), "ledger of other samples"
        for name, values in self._columns.items():
            values.copy_(state["columns"][name])
