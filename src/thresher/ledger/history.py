"""The ledger as methods see it between steps: read-only, with sums over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from thresher.ledger.ledger import Ledger
from thresher.types import Rows


class LedgerHistory:
    """Gives a method global quantities without giving it ranks.

    Args:
        ledger: of this rank.
        sum_over_ranks: adds a tensor up over the ranks.
    """

    def __init__(self, ledger: Ledger, sum_over_ranks: Callable[[Tensor], Tensor]) -> None:
        self._ledger = ledger
        self._sum = sum_over_ranks

    @property
    def labels(self) -> Tensor:
        """int64[n], given labels of this rank's samples."""
        return self._ledger.labels

    def chunks(self, size: int) -> Iterator[tuple[Rows, Tensor]]:
        """All samples in order, (columns, labels) of at most ``size`` at a time."""
        columns = self._ledger.columns
        for start in range(0, len(self._ledger), size):
            part = slice(start, start + size)
            yield {name: values[part] for name, values in columns.items()}, self.labels[part]

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Add up what each rank found in its samples; the same result on every rank."""
        return self._sum(values)
