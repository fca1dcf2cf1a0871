"""Reading a run: what is there is read right, what is wrong is said in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.audit.load import load_epochs, load_run
from thresher.errors import UserError


def small(make_run):
    return make_run(
        classes=["a", "b"],
        given=[0, 1, 1],
        suggested=[0, 0, 1],
        clean=[0.9, 0.2, np.nan],
        confidence=[0.8, 0.7, np.nan],
        status=["trusted", "down-weighted", "unreadable: truncated file"],
    )


def test_reads_a_run(make_run):
    run = load_run(small(make_run))
    ledger = run.ledger
    assert ledger.classes == ("a", "b")
    assert ledger.given.tolist() == [0, 1, 1]
    assert ledger.suggested.tolist() == [0, 0, 1]
    assert ledger.readable.tolist() == [True, True, False]
    assert ledger.scored.tolist() == [True, True, False]
    assert ledger.key(1) == "img/0001.png"
    assert {k: v.tolist() for k, v in ledger.reasons().items()} == {"truncated file": [2]}
    assert run.config["seed"] == 3
    assert [e.epoch for e in run.epochs] == [1, 2, 3, 4]
    assert run.epochs[0].accuracy is None
    assert run.epochs[1].accuracy == pytest.approx(0.7)
    assert run.epochs[1].loss == (1.0, 1.05)


def test_labels_do_not_depend_on_the_order_of_the_files_dictionary(make_run):
    path = small(make_run)
    table = pq.read_table(path / "ledger.parquet")
    turned = pa.DictionaryArray.from_arrays(pa.array([1, 0, 0], pa.int32()), ["b", "a"])
    table = table.set_column(2, "given_label", turned)
    pq.write_table(table, path / "ledger.parquet")
    assert load_run(path).ledger.given.tolist() == [0, 1, 1]


def test_the_last_line_of_a_repeated_epoch_counts_and_torn_lines_do_not(tmp_path: Path):
    lines = [
        json.dumps({"event": "start"}),
        json.dumps({"event": "epoch", "epoch": 1, "epochs": 3, "loss": [2.0]}),
        json.dumps({"event": "epoch", "epoch": 2, "epochs": 3, "loss": [1.5], "accuracy": 0.1}),
        '{"event":"epoch","epoch":3,"lo' + json.dumps({"event": "epoch", "epoch": 9}),
        '{"event":"epoch","epoch":"x"}',
        json.dumps({"event": "epoch", "epoch": 2, "epochs": 3, "loss": [1.0], "accuracy": None}),
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(lines))
    epochs = load_epochs(path)
    assert [(e.epoch, e.loss, e.accuracy) for e in epochs] == [(1, (2.0,), None), (2, (1.0,), None)]
    assert load_epochs(tmp_path / "absent.jsonl") == ()


def test_no_such_directory(tmp_path: Path):
    with pytest.raises(UserError, match="There is no run at"):
        load_run(tmp_path / "absent")


def test_a_directory_that_is_no_run(tmp_path: Path):
    with pytest.raises(UserError, match=r"not a run directory: it holds no config\.yaml"):
        load_run(tmp_path)


def test_an_unfinished_run_says_how_far_it_came(make_run):
    path = small(make_run)
    (path / "ledger.parquet").unlink()
    with pytest.raises(UserError, match=r"not finished.*4 of 4 epochs are done"):
        load_run(path)


@pytest.mark.parametrize("content", ["a: [1", "- just\n- a list\n"])
def test_a_damaged_configuration(make_run, content):
    path = small(make_run)
    (path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"config\.yaml is damaged"):
        load_run(path)


def test_a_ledger_that_is_no_parquet(make_run):
    path = small(make_run)
    whole = (path / "ledger.parquet").read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        (path / "ledger.parquet").write_bytes(content)
        with pytest.raises(UserError, match=r"damaged: it is not a readable Parquet file"):
            load_run(path)


def _without_weight(table: pa.Table) -> pa.Table:
    return table.drop_columns(["weight"])


def _text_for_numbers(table: pa.Table) -> pa.Table:
    return table.set_column(4, "confidence", pa.array(["x", "y", "z"]))


def _out_of_range(table: pa.Table) -> pa.Table:
    return table.set_column(5, "clean_probability", pa.array([0.5, 1.5, 0.5], pa.float32()))


def _same_id_twice(table: pa.Table) -> pa.Table:
    return table.set_column(0, "id", pa.array([0, 1, 1], pa.int64()))


def _hole(table: pa.Table) -> pa.Table:
    return table.set_column(1, "key", pa.array(["a", None, "c"]))


def _no_classes(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({})


def _other_classes(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({"thresher.classes": '["a", "c"]'})


def _class_twice(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({"thresher.classes": '["a", "b", "b"]'})


def _empty(table: pa.Table) -> pa.Table:
    return table.slice(0, 0)


def _unscored(table: pa.Table) -> pa.Table:
    return table.set_column(5, "clean_probability", pa.array([np.nan] * 3, pa.float32()))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_without_weight, "the columns weight are missing"),
        (_text_for_numbers, "a column has the wrong type"),
        (_out_of_range, "clean_probability has values outside 0 to 1"),
        (_same_id_twice, "some sample ids occur twice"),
        (_hole, "the column key has empty cells"),
        (_no_classes, "it does not name its classes"),
        (_other_classes, "uses the label 'b'"),
        (_class_twice, "names a class twice"),
        (_empty, "it has no rows"),
        (_unscored, "no sample has a clean probability"),
    ],
)
def test_a_damaged_ledger_says_in_what_way(make_run, damage, sentence):
    path = small(make_run)
    file = path / "ledger.parquet"
    pq.write_table(damage(pq.read_table(file)), file)
    with pytest.raises(UserError, match=sentence):
        load_run(path)
