"""Detection scores, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from thresher.audit.load import load_run
from thresher.audit.scores import auroc, score_label_errors, score_ledger
from thresher.errors import UserError


def test_scores_by_hand():
    clean = np.array([0.1, 0.2, 0.3, 0.5, 0.6, 0.9])
    wrong = np.array([True, False, True, True, False, False])
    scores = score_label_errors(clean, wrong)
    # Called: the first three (0.5 is not under one half). Two of them are wrong, of three.
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.recall == pytest.approx(2 / 3)
    # Pairs (wrong, right) in the right order: 0.1 beats 3, 0.3 beats 2, 0.5 beats 2; of 9.
    assert scores.auroc == pytest.approx(7 / 9)
    assert (scores.num_wrong, scores.num_called, scores.num_scored) == (3, 3, 6)


def test_ties_count_half():
    scores = np.array([1.0, 1.0, 1.0, 0.0])
    positive = np.array([True, False, False, True])
    # Four pairs: two ties (half each), two lost.
    assert auroc(scores, positive) == pytest.approx(0.25)
    assert auroc(np.zeros(5), np.array([1, 0, 1, 0, 0], dtype=bool)) == pytest.approx(0.5)


def test_perfect_and_reversed():
    positive = np.array([True, True, False])
    assert auroc(np.array([3.0, 2.0, 1.0]), positive) == 1.0
    assert auroc(np.array([1.0, 2.0, 3.0]), positive) == 0.0


def test_undefined_scores_are_nan():
    clean = np.array([0.9, 0.8])
    none_wrong = score_label_errors(clean, np.array([False, False]))
    assert math.isnan(none_wrong.precision)
    assert math.isnan(none_wrong.recall)
    assert math.isnan(none_wrong.auroc)
    assert math.isnan(auroc(clean, np.array([True, True])))


def ledger_with_gaps(make_run):
    path = make_run(
        classes=["a", "b"],
        ids=[5, 0, 3, 2],
        given=[0, 1, 1, 0],
        suggested=[1, 1, 1, 0],
        clean=[0.1, 0.9, 0.2, np.nan],
        status=["trusted"] * 3 + ["unreadable: empty file"],
    )
    return load_run(path).ledger


def test_truth_is_looked_up_by_id_and_the_unknown_is_left_out(make_run):
    ledger = ledger_with_gaps(make_run)
    # id 5 is wrong (given a, true b), id 0 right, id 3 unknown, id 2 unreadable.
    scores = score_ledger(ledger, np.array([1, 0, 1, -1, 0, 1]))
    assert (scores.num_scored, scores.num_wrong, scores.num_called) == (2, 1, 1)
    assert scores.auroc == 1.0


@pytest.mark.parametrize(
    ("truth", "sentence"),
    [
        (np.array([0, 1]), "There are 2 true labels, but the ledger has ids up to 5"),
        (np.array([0, 0, 0, 7, 0, 0]), "but the ledger has 2 classes"),
        (np.zeros(6), "array of integers"),
        (np.zeros((6, 2), dtype=int), "one-dimensional"),
    ],
)
def test_a_truth_that_does_not_fit(make_run, truth, sentence):
    with pytest.raises(UserError, match=sentence):
        score_ledger(ledger_with_gaps(make_run), truth)
