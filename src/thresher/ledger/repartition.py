"""A ledger from the parts that another number of ranks saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from thresher.errors import UserError
from thresher.ledger.ledger import Ledger


def gather_rows(ledger: Ledger, parts: Iterable[Mapping[str, Any]]) -> None:
    """Fill a ledger with its rows out of all parts; rows of other ranks are passed over.

    Memory is that of the rows taken from one part at a time: a part that is mapped from its file
    (``torch.load(..., mmap=True)``) and made by a generator is never held as a whole.

    Args:
        ledger: of this rank.
        parts: what ``Ledger.state_dict`` gave on each rank of the run that saved, in any order.

    Raises:
        UserError: a row is missing or stands twice; a part has other columns.
    """
    found = np.zeros(len(ledger), dtype=bool)
    for part in parts:
        ids = part["ids"].numpy()
        theirs = np.flatnonzero(np.isin(ids, ledger.ids))
        if not len(theirs):
            continue
        ours = np.searchsorted(ledger.ids, ids[theirs])
        _refuse_repeats(ledger.ids[ours], found[ours])
        found[ours] = True
        ledger.take_rows(ours, part, theirs)
    if not found.all():
        missing = np.flatnonzero(~found)
        raise UserError(
            f"The checkpoint lacks the ledger rows of {len(missing):,} of {len(ledger):,} samples"
            f" (the first is sample {ledger.ids[missing[0]]}); it belongs to other data, or a part"
            " of it is gone. Start the run anew with --overwrite, or with another --out."
        )


def _refuse_repeats(ids: np.ndarray, found: np.ndarray) -> None:
    """Refuse rows found before, and repeats within one part (ascending ids)."""
    repeated = found.copy()
    repeated[1:] |= ids[1:] == ids[:-1]
    if repeated.any():
        raise UserError(
            f"The checkpoint has more than one ledger row of sample {ids[repeated][0]}; its parts"
            " were mixed up. Start the run anew with --overwrite, or with another --out."
        )
