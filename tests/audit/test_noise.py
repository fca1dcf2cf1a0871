"""The noise estimates on six samples, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from thresher.audit.load import load_run
from thresher.audit.noise import estimate_joint, noise_by_class, transition_matrix


@pytest.fixture
def ledger(make_run):
    # given  suggested  p(clean)
    #   a        a        0.9     0.1 of doubt that names no class
    #   a        b        0.2
    #   a        c        0.6
    #   b        b        0.8     as the first, but no other b points anywhere
    #   c        a        0.0
    #   c        c        (unreadable, counts nowhere)
    path = make_run(
        classes=["a", "b", "c"],
        given=[0, 0, 0, 1, 2, 2],
        suggested=[0, 1, 2, 1, 0, 2],
        clean=[0.9, 0.2, 0.6, 0.8, 0.0, np.nan],
        status=["trusted"] * 5 + ["unreadable: empty file"],
    )
    return load_run(path).ledger


def test_noise_by_class(ledger):
    noise = noise_by_class(ledger)
    assert noise.num_given.tolist() == [3, 1, 1]
    assert noise.num_wrong == pytest.approx([0.1 + 0.8 + 0.4, 0.2, 1.0])
    assert noise.share == pytest.approx([1.3 / 3, 0.2, 1.0])
    assert noise.total_given == 5
    assert noise.total_wrong == pytest.approx(2.5)


def test_joint(ledger):
    # Column a: 0.9 + 0.2 + 0.6 stay; 0.8 goes to b and 0.4 to c; the 0.1 is shared 2 : 1.
    # Column b: 0.8 stays; 0.2 is shared evenly. Column c: 0 stays, 1 goes to a.
    expected = [
        [1.7, 0.1, 1.0],
        [0.8 + 0.1 * 2 / 3, 0.8, 0.0],
        [0.4 + 0.1 * 1 / 3, 0.1, 0.0],
    ]
    joint = estimate_joint(ledger)
    assert joint == pytest.approx(np.array(expected), abs=1e-6)
    # The property that confident learning reaches by rescaling: as many as were given.
    assert joint.sum(axis=0) == pytest.approx([3, 1, 1])


def test_transition_rows_sum_to_one(ledger):
    matrix = transition_matrix(estimate_joint(ledger))
    assert matrix.sum(axis=1) == pytest.approx([1, 1, 1])
    assert matrix[0] == pytest.approx([1.7 / 2.8, 0.1 / 2.8, 1.0 / 2.8], abs=1e-6)


def test_classes_without_samples(make_run):
    path = make_run(classes=["a", "b", "c"], given=[0, 0], suggested=[0, 1], clean=[1.0, 0.5])
    ledger = load_run(path).ledger
    assert np.isnan(noise_by_class(ledger).share).tolist() == [False, True, True]
    matrix = transition_matrix(estimate_joint(ledger))
    assert matrix[0] == pytest.approx([1, 0, 0])
    assert matrix[1] == pytest.approx([1, 0, 0])
    assert np.isnan(matrix[2]).all()


def test_a_single_class_has_nowhere_to_spread(make_run):
    path = make_run(classes=["a"], given=[0], suggested=[0], clean=[0.5])
    assert estimate_joint(load_run(path).ledger) == pytest.approx(np.array([[0.5]]))
