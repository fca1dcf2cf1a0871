"""Sparse beliefs, and that what is worked out with them equals the dense computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from thresher.ledger.history import LedgerHistory
from thresher.ledger.ledger import Ledger
from thresher.methods.base import Task
from thresher.methods.belief import (
    as_columns,
    belief_columns,
    class_dtype,
    dense_as_columns,
    mean_of_two,
    narrowed,
    recall,
    recall_dense,
    sharpen,
    to_dense,
    to_sparse,
)
from thresher.methods.cross_entropy import CrossEntropy, CrossEntropyOptions
from thresher.methods.mutual_calibration import MutualCalibration, MutualCalibrationOptions
from thresher.types import Progress


def test_sharpen_squares_and_normalises() -> None:
    out = sharpen(torch.tensor([[0.6, 0.2, 0.2], [0.0, 0.0, 0.0]]), 2.0)
    # 0.36, 0.04, 0.04 over 0.44
    torch.testing.assert_close(out[0], torch.tensor([36.0, 4.0, 4.0]) / 44, atol=1e-4, rtol=0)
    torch.testing.assert_close(out[1], torch.full((3,), 1 / 3))
    assert sharpen(torch.full((1, 100), 0.01), 20.0).sum().item() == pytest.approx(1)


def test_the_given_label_and_the_likeliest_others_are_kept() -> None:
    probs = (torch.arange(40) / 780)[None]
    belief = to_sparse(probs, torch.tensor([3]))
    assert belief.classes[0].tolist() == [3, *range(39, 24, -1)]
    dense = to_dense(belief, 40)
    kept = [3, *range(25, 40)]
    assert torch.equal(dense[0, kept], probs[0, kept])
    assert dense.sum() == belief.probs.sum()
    assert narrowed(belief, 4).classes[0].tolist() == [3, 39, 38, 37]


@pytest.mark.parametrize(
    ("num_classes", "bytes_per_sample"),
    [(2, 4), (10, 20), (16, 32), (17, 47), (256, 47), (257, 62), (1000, 62), (40000, 92)],
)
def test_columns_bring_a_belief_back(num_classes: int, bytes_per_sample: int) -> None:
    labels = torch.tensor([0, num_classes - 1, 1])
    probs = torch.rand(3, num_classes).softmax(dim=1)
    ledger = Ledger(np.arange(3), labels.numpy(), belief_columns("x", num_classes))
    ledger.overwrite([dense_as_columns("x", probs, labels)])
    rows = ledger.rows(torch.arange(3))
    back = recall(rows, "x", labels)
    assert torch.equal(back.classes[:, 0], labels)
    assert all(len(set(classes)) == len(classes) for classes in back.classes.tolist())
    expected = probs.gather(1, back.classes)
    torch.testing.assert_close(back.probs, expected, atol=1e-3, rtol=1e-3)
    assert torch.equal(recall_dense(rows, "x", labels, num_classes), to_dense(back, num_classes))
    ledger.overwrite([as_columns("x", back, num_classes)])
    again = recall(ledger.rows(torch.arange(3)), "x", labels)
    assert torch.equal(again.classes, back.classes)
    assert torch.equal(again.probs, back.probs)
    size = sum(c.nbytes for c in ledger.columns.values()) / 3 - 2  # seen
    assert size == bytes_per_sample


def test_a_wide_belief_is_narrowed_on_its_way_into_the_columns() -> None:
    labels = torch.tensor([3])
    belief = to_sparse((torch.arange(40) / 780)[None], labels, width=30)
    assert as_columns("x", belief, 40)["x_class"][0].tolist() == list(range(39, 24, -1))


def test_class_indices_fit_their_type() -> None:
    for num_classes in (2, 256, 257, 2**15, 2**15 + 1):
        assert torch.iinfo(getattr(torch, class_dtype(num_classes))).max >= num_classes - 1


def test_mean_of_two_is_that_of_the_dense_ones() -> None:
    labels = torch.randint(0, 50, (20,))
    one, other = (to_sparse(torch.randn(20, 50).mul(3).softmax(dim=1), labels) for _ in range(2))
    mean = mean_of_two(one, other)
    expected = (to_dense(one, 50) + to_dense(other, 50)) / 2
    torch.testing.assert_close(to_dense(mean, 50), expected)


def dense_noise_matrix(priors: Tensor, labels: Tensor, steps: int) -> Tensor:
    num_classes = priors.shape[1]
    matrix = torch.full((num_classes, num_classes), 1 / num_classes, dtype=torch.float64)
    for _ in range(steps):
        joint = priors * matrix[:, labels].T
        counts = torch.zeros_like(matrix).index_add_(
            1, labels, (joint / joint.sum(dim=1, keepdim=True)).T
        )
        counts += 1 / num_classes
        matrix = counts / counts.sum(dim=1, keepdim=True)
    return matrix


@pytest.mark.parametrize("num_classes", [2, 10, 16, 40])
def test_judging_equals_the_dense_computation(num_classes: int) -> None:
    """To rounding while every class is kept; closely where the rest is small."""
    num, generator = 40_000, torch.Generator().manual_seed(num_classes)
    truth = torch.randint(0, num_classes, (num,), generator=generator)
    wrong = torch.rand(num, generator=generator) < 0.3
    labels = torch.where(wrong, (truth + 1) % num_classes, truth)
    logits = torch.randn(2, num, num_classes, generator=generator)
    probs = (logits + 5 * torch.nn.functional.one_hot(truth, num_classes)).softmax(dim=2).half()
    method = MutualCalibration(
        MutualCalibrationOptions(rounds=3), Task(num_classes, num, 60, False)
    )
    ledger = Ledger(np.arange(num), labels.numpy(), method.columns)
    for index in (1, 2):
        ledger.overwrite([dense_as_columns(f"record_{index}", probs[index - 1].float(), labels)])
    ledger.overwrite([{"record_weight": torch.ones(num)}])
    history = LedgerHistory(ledger, lambda values: values)

    priors = probs.double().clamp(min=1e-6).pow(2)
    priors /= priors.sum(dim=2, keepdim=True)
    matrices = [dense_noise_matrix(prior, labels, 10) for prior in priors]
    exact = num_classes <= 16

    def assert_near(found: Tensor, expected: Tensor, rounding: float) -> None:
        """To rounding everywhere, or to half a percent on average."""
        difference = (found.double() - expected).abs()
        assert difference.max() < rounding if exact else difference.mean() < 5e-3

    for matrix, expected in zip(method._noise_matrices(history), matrices, strict=True):
        assert_near(matrix, expected, 1e-5)
    joints = [prior * matrix[:, labels].T for prior, matrix in zip(priors, matrices, strict=True)]
    trust = torch.stack([j[range(num), labels] / j.sum(dim=1) for j in reversed(joints)], dim=1)
    mean = probs.double().mean(dim=0).clamp(min=1e-6).pow(2)
    guess = mean / mean.sum(dim=1, keepdim=True)
    target = guess * (1 - trust.mean(dim=1, keepdim=True))
    target[range(num), labels] += trust.mean(dim=1)
    top = target.max(dim=1)

    judgement = method.judge(history)
    assert_near(judgement.clean_probability, trust.mean(dim=1), 1e-4)
    assert_near(judgement.confidence, top.values, 1e-3)
    assert (judgement.suggested == top.indices).double().mean() > 0.9995
    ledger.overwrite(method.begin_epoch(history, Progress(16, 60, 0, 60, round=1, rounds=3)))
    columns = ledger.columns
    assert_near(columns["trust"], trust, 1e-3)
    assert_near(recall_dense(columns, "guess", labels, num_classes), guess, 1e-3)


def test_a_label_outside_the_likeliest_still_has_its_probability() -> None:
    """Two samples given class 99 with 1 % and 0.01 %, thirty classes above it: they differ."""
    probs = torch.full((2, 100), 0.0)
    probs[:, :30] = 1 / 31
    probs[0, 99], probs[1, 99] = 0.01, 0.0001
    labels = torch.tensor([99, 99])
    for kind, options, name in (
        (CrossEntropy, CrossEntropyOptions(), "belief"),
        (MutualCalibration, MutualCalibrationOptions(), "record_1"),
    ):
        ledger = Ledger(np.arange(2), labels.numpy(), kind(options, Task(100, 2, 9, False)).columns)
        ledger.overwrite([dense_as_columns(name, probs, labels)])
        given = recall(ledger.columns, name, labels).probs[:, 0]
        torch.testing.assert_close(given, torch.tensor([0.01, 0.0001]), atol=0, rtol=1e-3)


def test_nothing_recorded_is_trusted() -> None:
    method = MutualCalibration(MutualCalibrationOptions(), Task(100, 3, 60, False))
    labels = np.array([5, 0, 99])
    history = LedgerHistory(Ledger(np.arange(3), labels, method.columns), lambda values: values)
    judgement = method.judge(history)
    assert judgement.clean_probability.tolist() == [1, 1, 1]
    assert judgement.suggested.tolist() == labels.tolist()


def test_cross_entropy_compares_with_the_strongest_rival() -> None:
    method = CrossEntropy(CrossEntropyOptions(), Task(3, 2, 9, False))
    labels = torch.tensor([1, 2])
    ledger = Ledger(np.arange(2), labels.numpy(), method.columns)
    probs = torch.tensor([[0.125, 0.75, 0.125], [0.5, 0.375, 0.125]])
    ledger.overwrite([dense_as_columns("belief", probs, labels)])
    judgement = method.judge(LedgerHistory(ledger, lambda values: values))
    torch.testing.assert_close(judgement.clean_probability, torch.tensor([6 / 7, 0.2]))
    assert judgement.suggested.tolist() == [1, 0]
    assert judgement.confidence.tolist() == [0.75, 0.5]
