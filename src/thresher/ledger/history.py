"""The ledger as methods see it before an epoch: sums over all samples of all ranks, read-only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
    def rows(self) -> Rows:
        """This rank's columns."""
        return self._ledger.columns

    @property
    def labels(self) -> Tensor:
        """int64[n], given labels of this rank's samples."""
        return self._ledger.labels

    def sum_over_samples(self, per_rank: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Add up each rank's partial sums (a histogram, say); the same result on every rank."""
        return {name: self._sum(value) for name, value in per_rank.items()}
