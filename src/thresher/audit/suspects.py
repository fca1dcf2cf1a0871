"""Which labels are least believed, and for what they were probably mistaken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from thresher.audit.load import Ledger
from thresher.files import write_atomically

# A label is a suspect when it is more likely wrong than right.
SUSPECT_BELOW = 0.5


@dataclass(frozen=True)
class Confusion:
    """A pair of classes and how many suspects were given the one and look like the other."""

    given: int
    suggested: int
    count: int


def rank_rows(ledger: Ledger, *, below: float = SUSPECT_BELOW) -> np.ndarray:
    """Rows with a clean probability under ``below``, the least believed first.

    Equal probabilities are ordered by the confidence of the suggestion, highest first, then by
    id, so that the same ledger always gives the same list.
    """
    rows = np.flatnonzero(ledger.scored & (ledger.clean_probability < below))
    order = np.lexsort(
        (
            ledger.ids[rows],
            -np.nan_to_num(ledger.confidence[rows]),
            ledger.clean_probability[rows],
        )
    )
    return np.asarray(rows[order])


def rows_per_class(ledger: Ledger, ranked: np.ndarray, per_class: int) -> dict[int, np.ndarray]:
    """The first ``per_class`` of the ranked rows for each given class that has any."""
    if not len(ranked):
        return {}
    given = ledger.given[ranked]
    order = np.argsort(given, kind="stable")  # keeps the ranking inside each class
    found, starts = np.unique(given[order], return_index=True)
    groups = np.split(ranked[order], starts[1:])
    return {int(c): rows[:per_class] for c, rows in zip(found, groups, strict=True)}


def confusions(ledger: Ledger, ranked: np.ndarray) -> list[Confusion]:
    """All (given, suggested) pairs among the suspects, the most frequent first."""
    given, suggested = ledger.given[ranked], ledger.suggested[ranked]
    differ = given != suggested
    num_classes = len(ledger.classes)
    codes, counts = np.unique(
        given[differ].astype(np.int64) * num_classes + suggested[differ], return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    return [
        Confusion(int(codes[i] // num_classes), int(codes[i] % num_classes), int(counts[i]))
        for i in order
    ]


def suspects_table(ledger: Ledger, ranked: np.ndarray) -> pa.Table:
    """The ranked rows as a table for people: names instead of indices, rank from 1."""
    names = pa.array(ledger.classes, pa.string())
    return pa.table(
        {
            "rank": np.arange(1, len(ranked) + 1, dtype=np.int64),
            "id": ledger.ids[ranked],
            "key": ledger.keys.take(pa.array(ranked)),
            "given_label": names.take(pa.array(ledger.given[ranked])),
            "suggested_label": names.take(pa.array(ledger.suggested[ranked])),
            "confidence": ledger.confidence[ranked],
            "clean_probability": ledger.clean_probability[ranked],
        }
    )


def write_suspects(table: pa.Table, folder: Path) -> tuple[Path, Path]:
    """Write ``suspects.csv`` (UTF-8, for people) and ``suspects.parquet``; return their paths."""
    csv, parquet = folder / "suspects.csv", folder / "suspects.parquet"
    with write_atomically(csv) as temporary:
        pa.csv.write_csv(table, temporary)
    with write_atomically(parquet) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return csv, parquet
