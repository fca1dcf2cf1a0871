from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thresher.errors import UserError
from thresher.ledger.history import LedgerHistory
from thresher.ledger.ledger import Ledger
from thresher.methods.base import Task, with_mode
from thresher.methods.belief import Belief, dense_as_columns, recall, recall_dense
from thresher.methods.mutual_calibration import (
    MutualCalibration,
    MutualCalibrationOptions,
    split_into_rounds,
)
from thresher.methods.noise_matrix import estimate_noise_matrix, posterior
from thresher.types import Batch, Network, Networks, Progress


def test_posterior_is_bayes() -> None:
    prior = Belief(torch.tensor([[1, 0]]), torch.tensor([[0.2, 0.8]]))
    matrix = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    # given 1: 0.2 * 0.6 = 0.12 for class 1 against 0.8 * 0.1 = 0.08 for class 0
    torch.testing.assert_close(
        posterior(prior, torch.tensor([1]), matrix), torch.tensor([[0.6, 0.4]])
    )


def recorded(first: torch.Tensor, second: torch.Tensor, labels: list[int]) -> tuple:
    method = MutualCalibration(
        MutualCalibrationOptions(), Task(first.shape[1], len(labels), 60, False)
    )
    ledger = Ledger(np.arange(len(labels)), np.array(labels), method.columns)
    for index, probs in enumerate((first, second), start=1):
        ledger.overwrite([dense_as_columns(f"record_{index}", probs, ledger.labels)])
    ledger.overwrite([{"record_weight": torch.ones(len(labels))}])
    return method, ledger, LedgerHistory(ledger, lambda values: values)


def test_noise_matrix_counts_what_sure_predictions_say() -> None:
    """Three samples surely of class 0, one of them given 1; one of class 1, given 1."""
    probs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    _, _, history = recorded(probs, probs, [0, 0, 1, 1])
    matrix = estimate_noise_matrix(
        history,
        lambda rows, labels: recall(rows, "record_1", labels),
        lambda rows: rows["record_weight"] > 0,
        2,
        steps=5,
    )
    # Row 0: counts (2, 1) and half a count each; row 1: counts (0, 1) and half a count each.
    expected = torch.tensor([[2.5 / 4, 1.5 / 4], [0.5 / 2, 1.5 / 2]])
    torch.testing.assert_close(matrix, expected, atol=1e-3, rtol=0)


def test_each_networks_labels_are_judged_by_the_other() -> None:
    """Network 1 is sure that sample 0 is wrong; only network 2's trust in it may fall."""
    sure = torch.eye(3).repeat(4, 1) * 0.97 + 0.01
    other = sure.clone()
    other[0] = torch.tensor([0.01, 0.98, 0.01])
    labels = [0, 1, 2] * 4
    method, _, history = recorded(other, sure, labels)
    (columns,) = method.begin_epoch(history, Progress(16, 60, 0, 60, round=1, rounds=3))
    trust = columns["trust"]
    assert trust[0, 0] > 0.95, "the peer of network 1 believes the label"
    assert trust[0, 1] < 0.05, "the peer of network 2 does not"
    assert (trust[1:] > 0.95).all()
    assert (columns["record_weight"] == 0).all(), "a round records afresh"


def test_samples_never_recorded_do_not_count_for_the_noise_matrix() -> None:
    probs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    method, ledger, history = recorded(probs, probs, [0, 1, 1])
    ledger.overwrite([{"record_weight": torch.tensor([1.0, 1.0, 0.0])}])
    matrix = method._noise_matrices(history)[0]
    # One count of its own in each row and half a count spread over each label.
    expected = torch.tensor([[1.5, 0.5], [0.5, 1.5]]) / 2
    torch.testing.assert_close(matrix, expected, atol=1e-3, rtol=0)


def test_nothing_is_judged_within_a_round_or_in_the_first() -> None:
    probs = torch.full((3, 3), 1 / 3)
    method, _, history = recorded(probs, probs, [0, 1, 2])
    for progress in (Progress(0, 60, 0, 60), Progress(17, 60, 0, 60, round=1, round_epoch=1)):
        assert list(method.begin_epoch(history, progress)) == []


def test_step_by_hand() -> None:
    """One sample, two classes, logits that make p = (3/4, 1/4) on both views."""
    options = MutualCalibrationOptions(label_smoothing=0.0)
    method = MutualCalibration(options, Task(2, 1, 60, False))
    logits = torch.tensor([[math.log(3.0), 0.0]])

    def student(images: torch.Tensor) -> torch.Tensor:
        return logits.repeat(len(images), 1).requires_grad_()

    networks = Networks((Network(student, student),) * 2)
    image = torch.zeros(1, 3, 4, 4)
    batch = Batch(torch.zeros(1).long(), (image, image), torch.tensor([1]), torch.tensor([True]))
    history = {
        "trust": torch.tensor([[0.25, 1.0]]),
        **dense_as_columns("guess", torch.tensor([[1.0, 0.0]]), batch.labels),
        "record_weight": torch.zeros(1),
    }
    early = Progress(20, 60, 0, 60, round=1, round_epochs=16)
    result = method.step(networks, batch, history, with_mode(method, early))
    # Network 1: target (3/4, 1/4), weight 3/4; network 2: target (0, 1), weight 1.
    cross = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert result.weight_sums[0].item() == pytest.approx(0.75)
    assert result.loss_sums[0].item() == pytest.approx(0.75 * cross, abs=1e-5)
    assert result.weight_sums[1].item() == pytest.approx(1.0)
    assert result.loss_sums[1].item() == pytest.approx(math.log(4), abs=1e-5)
    assert result.records["weight"].tolist() == [[0.25, 1.0]]
    assert "record_weight" not in result.records, "the first part of a round is not recorded"


def test_records_are_a_running_mean_without_bias_to_the_start() -> None:
    options = MutualCalibrationOptions(momentum=0.5)
    method = MutualCalibration(options, Task(2, 1, 60, False))
    ledger = Ledger(np.arange(1), np.array([0]), method.columns)
    late = Progress(15, 60, 0, 60, round_epoch=15, round_epochs=16)
    image = torch.zeros(1, 3, 4, 4)
    batch = Batch(torch.zeros(1).long(), (image, image), torch.tensor([0]), torch.tensor([True]))
    for p in (0.8, 0.2):
        logits = torch.log(torch.tensor([[p, 1 - p]]))

        def student(images: torch.Tensor, logits: torch.Tensor = logits) -> torch.Tensor:
            return logits.repeat(len(images), 1).requires_grad_()

        networks = Networks((Network(student, lambda images, z=logits: z),) * 2)
        rows = ledger.rows(torch.tensor([0]))
        result = method.step(networks, batch, rows, with_mode(method, late))
        ledger.update(torch.tensor([0]), result.records)
    columns = ledger.columns
    mean = recall_dense(columns, "record_2", ledger.labels, 2)
    # weights 0.5 and 1: (0.5 * 0.8 + 0.2) / 1.5 = 0.4
    assert mean[0, 0].item() == pytest.approx(0.4, abs=1e-3)
    assert columns["record_weight"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("epochs", "samples", "wanted", "rounds"),
    [
        (60, 2000, None, (16, 16, 28)),
        (30, 10**6, None, (30,)),  # rounds of 8 epochs: little is memorised, so nothing is judged
        (48, 10**6, None, (13, 13, 22)),
        (60, 1000, None, (60,)),  # rounds of 16,000 images: too few to learn from
        (12, 2000, None, (12,)),
        (12, 2000, 3, (3, 3, 6)),
        (60, 2000, 1, (60,)),
        (1, 2000, None, (1,)),
    ],
)
def test_rounds(epochs: int, samples: int, wanted: int | None, rounds: tuple[int, ...]) -> None:
    assert split_into_rounds(Task(10, samples, epochs, False), wanted) == rounds


@pytest.mark.parametrize(("epochs", "wanted"), [(60, 2), (2, 3)])
def test_impossible_rounds_are_refused(epochs: int, wanted: int) -> None:
    with pytest.raises(UserError, match=r"--mct\.rounds"):
        split_into_rounds(Task(10, 2000, epochs, False), wanted)


def test_one_view_takes_turns() -> None:
    """Even ids see the weak view in even epochs and the strong one in odd epochs."""
    method = MutualCalibration(MutualCalibrationOptions(views=1), Task(2, 4, 60, False))
    weak, strong = torch.zeros(4, 3, 4, 4), torch.ones(4, 3, 4, 4)
    labels = torch.tensor([0, 1, 0, 1])
    batch = Batch(torch.arange(4), (weak, strong), labels, torch.ones(4, dtype=torch.bool))
    ledger = Ledger(np.arange(4), labels.numpy(), method.columns)
    seen = []

    def student(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.mean(dim=(1, 2, 3)).tolist())
        return torch.zeros(len(images), 2, requires_grad=True)

    networks = Networks((Network(student, student),) * 2)
    for epoch in (0, 1):
        moment = with_mode(method, Progress(epoch, 60, epoch, 60, round_epochs=60))
        result = method.step(networks, batch, ledger.rows(torch.arange(4)), moment)
        assert result.loss_sums[0].item() == pytest.approx(4 * math.log(2), abs=1e-5)
    assert seen == [[0, 1, 0, 1]] * 2 + [[1, 0, 1, 0]] * 2
