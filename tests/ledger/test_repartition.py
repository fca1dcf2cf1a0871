"""Ledgers that one number of ranks saved come back to another number, through real files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from thresher.errors import UserError
from thresher.ledger.ledger import Ledger
from thresher.ledger.repartition import gather_rows
from thresher.loader.order import Order
from thresher.types import Column

COLUMNS = (Column("loss", 2), Column("top", dtype="int16"), Column("belief", 3, "float16"))
NUM = 1007
IDS = np.sort(np.random.default_rng(0).choice(5000, NUM, replace=False))  # ids with gaps


def make(rank: int, world: int, filled: bool) -> Ledger:
    """The ledger of one rank; what is in a row follows from its id."""
    ids = IDS[Order(NUM, 60, 1, rank, world, 12).owned]
    ledger = Ledger(ids, ids % 7, COLUMNS)
    if filled:
        values = torch.from_numpy(ids)
        columns = ledger.columns
        columns["seen"][:] = values % 11
        columns["top"][:] = values % 1000
        columns["loss"][:] = torch.stack([values + 0.25, -values], dim=1)
        columns["belief"][:] = torch.stack([values % 5, values % 3, values % 2], dim=1)
    return ledger


def saved(folder: Path, world: int) -> list[Path]:
    paths = []
    for rank in range(world):
        paths.append(folder / f"ledger-{rank}.pt")
        torch.save(make(rank, world, filled=True).state_dict(), paths[-1])
    return paths


def load(paths: list[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        yield torch.load(path, map_location="cpu", weights_only=True, mmap=True)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (2, 1), (2, 3), (3, 4), (12, 5)])
def test_rows_move_to_their_new_ranks(tmp_path: Path, before: int, after: int) -> None:
    if after == 5:  # other homes altogether; ids alone say which row is whose
        after_ledgers = [Ledger(IDS[r::5], IDS[r::5] % 7, COLUMNS) for r in range(5)]
    else:
        after_ledgers = [make(rank, after, filled=False) for rank in range(after)]
    everything = make(0, 1, filled=True)
    for ledger in after_ledgers:
        gather_rows(ledger, load(saved(tmp_path, before)))
        rows = torch.from_numpy(np.searchsorted(IDS, ledger.ids))
        for name, values in ledger.columns.items():
            assert torch.equal(values, everything.columns[name][rows]), name


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    def expect(parts: list[dict[str, Any]], sentence: str) -> None:
        with pytest.raises(UserError, match=sentence):
            gather_rows(make(0, 1, filled=False), parts)

    first, second, third = load(saved(tmp_path, 3))
    expect([first, third], r"lacks the ledger rows of 33\d of 1,007 samples \(the first is sample")
    expect([], "lacks the ledger rows of 1,007 of 1,007")
    expect([first, second, first, third], "more than one ledger row of sample")
    twice = {**first, "ids": first["ids"].clone()}
    twice["ids"][1] = twice["ids"][0]
    expect([twice, second, third], "more than one ledger row of sample")
    lacking = [column for column in second["columns"] if column[0] != "top"]
    expect([first, {**second, "columns": lacking}, third], "The column 'top' is missing")
    for other in (Column("loss", 3), Column("loss", 2, "float16"), Column("loss", 2, initial=1)):
        ledger = Ledger(second["ids"].numpy(), second["ids"].numpy() % 7, (other, *COLUMNS[1:]))
        expect([first, ledger.state_dict(), third], "The column 'loss' differs")
    backwards = Ledger(second["ids"].numpy(), second["ids"].numpy() % 7, COLUMNS[::-1])
    expect([first, backwards.state_dict(), third], "columns .* stand in another order")
    more = Ledger(second["ids"].numpy(), second["ids"].numpy() % 7, (*COLUMNS, Column("more")))
    expect([first, more.state_dict(), third], "The column 'more' is unexpected in the checkpoint")
    # As versions before rows of bytes wrote it: a tensor for each column.
    apart = {"ids": second["ids"], "columns": {"seen": torch.zeros(3)}}
    expect([first, apart, third], "The column 'loss' is missing .* another version")
