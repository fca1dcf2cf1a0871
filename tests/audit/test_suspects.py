"""The ranking of suspects and the files it is written to."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest

from thresher.audit.load import load_run
from thresher.audit.suspects import (
    Confusion,
    confusions,
    rank_rows,
    rows_per_class,
    suspects_table,
    write_suspects,
)


@pytest.fixture
def ledger(make_run):
    path = make_run(
        classes=["a", "b", 'c "x", y'],
        given=[0, 1, 0, 2, 0, 1, 2],
        suggested=[1, 0, 1, 0, 0, 1, 2],
        clean=[0.3, 0.1, 0.1, 0.1, 0.5, 0.2, np.nan],
        confidence=[0.9, 0.6, 0.8, 0.6, 0.9, 0.9, np.nan],
        keys=["k0", 'k,1 "q"', "k2", "图3", "k4", "k5", "k6"],
        status=["trusted"] * 6 + ["unreadable: empty file"],
    )
    return load_run(path).ledger


def test_ranking_breaks_ties_by_confidence_then_id(ledger):
    # 0.5 is no suspect, NaN neither.
    assert rank_rows(ledger).tolist() == [2, 1, 3, 5, 0]


def test_rows_per_class(ledger):
    found = rows_per_class(ledger, rank_rows(ledger), 1)
    assert {c: rows.tolist() for c, rows in found.items()} == {0: [2], 1: [1], 2: [3]}
    found = rows_per_class(ledger, rank_rows(ledger), 9)
    assert {c: rows.tolist() for c, rows in found.items()} == {0: [2, 0], 1: [1, 5], 2: [3]}


def test_confusions_leave_out_suspects_that_point_nowhere(ledger):
    assert confusions(ledger, rank_rows(ledger)) == [
        Confusion(0, 1, 2),
        Confusion(1, 0, 1),
        Confusion(2, 0, 1),
    ]


def test_files(ledger, tmp_path):
    table = suspects_table(ledger, rank_rows(ledger))
    csv_path, parquet_path = write_suspects(table, tmp_path)
    with csv_path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == ["k2", 'k,1 "q"', "图3", "k5", "k0"]
    assert rows[2]["given_label"] == 'c "x", y'
    assert rows[2]["rank"] == "3"
    assert float(rows[4]["clean_probability"]) == pytest.approx(0.3)
    assert pq.read_table(parquet_path).to_pylist()[1] == {
        "rank": 2,
        "id": 1,
        "key": 'k,1 "q"',
        "given_label": "b",
        "suggested_label": "a",
        "confidence": pytest.approx(0.6),
        "clean_probability": pytest.approx(0.1),
    }


def test_no_suspects_gives_an_empty_table_with_a_head(make_run, tmp_path):
    path = make_run(classes=["a", "b"], given=[0, 1], suggested=[0, 1], clean=[0.9, 0.8])
    ledger = load_run(path).ledger
    table = suspects_table(ledger, rank_rows(ledger))
    csv_path, _ = write_suspects(table, tmp_path)
    assert csv_path.read_text().startswith('"rank","id","key"')
    assert table.num_rows == 0
    assert confusions(ledger, rank_rows(ledger)) == []
    assert rows_per_class(ledger, rank_rows(ledger), 3) == {}
