from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from thresher.errors import UserError
from thresher.ledger import table
from thresher.ledger.ledger import Ledger
from thresher.ledger.rows import Layout, saved_columns
from thresher.ledger.table import write_ledger
from thresher.sources.manifest import make_manifest
from thresher.types import Column


def make() -> Ledger:
    columns = (
        Column("loss", 2, in_step=False),
        Column("trust", initial=1.0),
        Column("top", dtype="int32"),
    )
    return Ledger(np.array([3, 5, 8]), np.array([0, 1, 1]), columns)


def test_columns_start_as_declared() -> None:
    columns = make().columns
    assert columns["loss"].shape == (3, 2)
    assert columns["trust"].tolist() == [1, 1, 1]
    assert columns["top"].dtype == torch.int32
    assert columns["seen"].tolist() == [0, 0, 0]


def test_update_writes_and_counts_all_but_places_that_fill_the_shape() -> None:
    ledger = make()
    positions = torch.tensor([2, 0, 3, 3])  # the last two only fill the shape
    records = {
        "trust": torch.tensor([0.5, 0.25, 9.0, 8.0]),
        "loss": torch.tensor([[1, 2], [3, 4], [9, 9], [8, 8]]),
    }
    ledger.update(positions, records)
    assert ledger.columns["trust"].tolist() == [0.25, 1.0, 0.5]
    assert ledger.columns["loss"].tolist() == [[3, 4], [0, 0], [1, 2]]
    assert ledger.columns["seen"].tolist() == [1, 0, 1]
    rows = ledger.rows(torch.tensor([2]))
    assert rows["trust"].tolist() == [0.5]
    assert set(rows) == {"trust", "top"}, "what a step only writes is not fetched for it"


def test_state_comes_back() -> None:
    ledger, other = make(), make()
    ledger.overwrite([{"trust": torch.tensor([0.1, 0.2, 0.3])}])
    other.load_state_dict(ledger.state_dict())
    assert torch.equal(other.columns["trust"], ledger.columns["trust"])


def test_values_lie_side_by_side_and_aligned() -> None:
    columns = (
        Column("belief", 3, "float16"),
        Column("top", dtype="uint8"),
        Column("wide", 2, "float32", in_step=False),
        Column("flag", dtype="uint8", initial=7, in_step=False),
    )
    ledger = Ledger(np.arange(4), np.zeros(4), columns)
    # belief 0-6, top 6, flag 7, seen 8-10, wide 12-20; the step's part is rounded up.
    assert ledger.bytes_per_sample == 20
    values = ledger.columns
    assert {name: one.storage_offset() * one.itemsize for name, one in values.items()} == {
        "belief": 0, "top": 6, "flag": 7, "seen": 8, "wide": 12,
    }  # fmt: skip
    assert values["flag"].tolist() == [7, 7, 7, 7]
    records = {"wide": torch.tensor([[0.1, -2.0]]), "top": torch.tensor([255])}
    ledger.update(torch.tensor([2]), records)
    assert values["wide"][2].tolist() == [pytest.approx(0.1), -2.0]
    assert ledger.rows(torch.tensor([2, 1]))["top"].tolist() == [255, 0]
    assert values["flag"].tolist() == [7, 7, 7, 7], "what is not recorded stays"
    saved = saved_columns(ledger.state_dict())
    assert all(torch.equal(saved[name], one) for name, one in values.items())


@pytest.mark.parametrize(("widest", "word"), [("float16", "int16"), ("float32", "int32")])
def test_rows_move_in_words_that_hold_the_widest_value(widest: str, word: str) -> None:
    """Threads that write the scratch row at once must not put two halves of a value together."""
    layout = Layout([Column("a", 3, widest), Column("b", dtype="uint8", in_step=False)])
    assert layout.word == getattr(torch, word)
    assert layout.row_bytes % layout.word.itemsize == layout.step_bytes % layout.word.itemsize == 0


def test_a_ledger_that_no_step_looks_at() -> None:
    ledger = Ledger(np.arange(2), np.zeros(2), (Column("loss", dtype="float16", in_step=False),))
    assert not ledger.rows(torch.tensor([0, 2]))
    ledger.update(torch.tensor([1, 2]), {"loss": torch.tensor([0.5, 9.0])})
    assert ledger.columns["loss"].tolist() == [0, 0.5]


def test_a_record_that_is_narrower_than_its_column_is_no_record_of_it() -> None:
    with pytest.raises(AssertionError, match="'loss' is whole"):
        make().update(torch.tensor([0, 1]), {"loss": torch.tensor([1.0, 2.0])})


def test_the_state_of_other_samples_is_refused() -> None:
    ledger = make()
    other = Ledger(np.array([3, 5, 9]), np.array([0, 1, 1]), ())
    with pytest.raises(UserError, match=r"of 3 samples, and now 3 can be used, not all"):
        ledger.load_state_dict(other.state_dict())


def test_columns_are_written_anew_part_by_part() -> None:
    """Each part may be worked out from the rows it replaces."""
    ledger = make()
    parts = (slice(0, 2), slice(2, 3))
    ledger.overwrite({"trust": ledger.columns["trust"][part] + 1} for part in parts)
    assert ledger.columns["trust"].tolist() == [2, 2, 2]
    ledger.overwrite({"trust": torch.full((1,), 7.0 * row)} for row in range(3))
    assert ledger.columns["trust"].tolist() == [0, 7, 14]
    ledger.overwrite(())
    with pytest.raises(AssertionError):
        ledger.overwrite([{"trust": torch.zeros(2)}])


@pytest.mark.parametrize("row_group", [1, 3, 1000])
def test_table_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_group: int) -> None:
    monkeypatch.setattr(table, "ROW_GROUP", row_group)
    manifest = make_manifest(
        kind="files",
        shards=["/data"],
        classes=["cat", "dog"],
        source="/data",
        keys=[f"{i}.jpg" for i in range(5)],
        labels=np.array([0, 1, 1, 0, 1]),
    ).with_states({3: "empty file"})
    write_ledger(
        tmp_path / "ledger.parquet",
        manifest,
        np.array([0, 2, 3, 4]),
        suggested=np.array([0, 0, 1, 1]),
        confidence=np.array([0.9, 0.8, 0.0, 0.0]),
        clean_probability=np.array([0.95, 0.1, 0.0, 0.5]),
        weight=np.array([1.0, 0.1, 1.0, 1.0]),
        loss=np.array([0.2, 2.5, 9.0, 9.0]),
        prob_given=np.array([0.8, 0.05, 0.5, 0.5]),
        seen=np.array([4, 4, 0, 0]),
    )
    written = pq.read_table(tmp_path / "ledger.parquet")
    assert json.loads(written.schema.metadata[b"thresher.classes"]) == ["cat", "dog"]
    rows = written.to_pylist()
    assert [row["id"] for row in rows] == [0, 2, 3, 4]
    assert [row["key"] for row in rows] == ["0.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert [row["given_label"] for row in rows] == ["cat", "dog", "cat", "dog"]
    assert [row["suggested_label"] for row in rows] == ["cat", "cat", "cat", "dog"]
    assert [row["status"] for row in rows] == [
        "trusted",
        "down-weighted",
        "unreadable: empty file",
        "not seen",
    ]
    assert np.isnan(rows[2]["clean_probability"])
    assert rows[1]["clean_probability"] == np.float32(0.1)
    assert [rows[1]["loss"], rows[1]["prob_given"]] == [2.5, np.float32(0.05)]
    assert np.isnan([row[name] for row in rows[2:] for name in ("loss", "prob_given")]).all()
