"""Every method, found by looking, keeps the promises of the seam."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from thresher.errors import UserError
from thresher.ledger.history import LedgerHistory
from thresher.ledger.ledger import Ledger
from thresher.loader import augment
from thresher.loader.augment import NUM_DRAWS, Augmentation
from thresher.methods import all_methods
from thresher.methods.base import Method, Task, with_mode
from thresher.models.factory import create_model
from thresher.types import Batch, Network, Networks, Progress, StepResult

CLASSES, SAMPLES, EPOCHS = 4, 24, 12
NAMES = sorted(all_methods())


def make_method(name: str, has_clean: bool = False) -> Method:
    kind = all_methods()[name]
    several = {"rounds": 3} if name == "mct" else {}
    return kind(kind.Options(**several), Task(CLASSES, SAMPLES, EPOCHS, has_clean))


def make_ledger(method: Method, seed: int = 0) -> Ledger:
    labels = torch.randint(0, CLASSES, (SAMPLES,), generator=torch.Generator().manual_seed(seed))
    return Ledger(torch.arange(SAMPLES).numpy(), labels.numpy(), method.columns)


def make_network(seed: int) -> Network:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3 * 16, CLASSES, generator=generator).requires_grad_()

    def student(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ weight

    def teacher(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return student(images)

    return Network(student, teacher)


def make_batch(method: Method, ledger: Ledger, valid: torch.Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(3)
    views = tuple(torch.randn(SAMPLES, 3, 4, 4, generator=generator) for _ in method.views)
    if valid is None:
        valid = torch.ones(SAMPLES, dtype=torch.bool)
    return Batch(torch.arange(SAMPLES), views, ledger.labels, valid)


def progress_at(method: Method, epoch: int) -> Progress:
    first, index = 0, 0
    while epoch >= first + method.rounds[index]:
        first += method.rounds[index]
        index += 1
    return Progress(
        epoch, EPOCHS, epoch, EPOCHS, index, len(method.rounds), epoch - first, method.rounds[index]
    )


def one_step(method: Method, ledger: Ledger, batch: Batch, epoch: int) -> StepResult:
    networks = Networks(tuple(make_network(index) for index in range(method.networks)))
    rows = ledger.rows(torch.arange(SAMPLES))
    return method.step(networks, batch, rows, with_mode(method, progress_at(method, epoch)))


@pytest.mark.parametrize("name", NAMES)
def test_rounds_make_up_the_run(name: str) -> None:
    kind = all_methods()[name]
    for epochs in (1, 2, 5, 6, 7, 13, 60, 300):
        rounds = kind(kind.Options(), Task(CLASSES, SAMPLES, epochs, False)).rounds
        assert sum(rounds) == epochs
        assert min(rounds) >= 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("epoch", [0, EPOCHS // 2, EPOCHS - 1])
def test_step_gives_sums_with_gradients_and_declared_records(name: str, epoch: int) -> None:
    method = make_method(name)
    ledger = make_ledger(method)
    result = one_step(method, ledger, make_batch(method, ledger), epoch)
    assert len(result.loss_sums) == len(result.weight_sums) == method.networks
    for loss, weight in zip(result.loss_sums, result.weight_sums, strict=True):
        assert loss.shape == weight.shape == ()
        assert loss.requires_grad
        assert not weight.requires_grad
        assert 0 < weight.item() <= SAMPLES
    declared = {column.name for column in method.columns}
    assert set(result.records) <= declared
    assert {"loss", "prob_given", "top1", "confidence", "weight"} <= set(result.records)
    assert result.records["weight"].shape == (SAMPLES, method.networks)
    for values in result.records.values():
        assert not values.requires_grad
        assert len(values) == SAMPLES
    ledger.update(torch.arange(SAMPLES), result.records)


@pytest.mark.parametrize("name", NAMES)
def test_places_that_are_not_valid_weigh_nothing(name: str) -> None:
    method = make_method(name)
    ledger = make_ledger(method)
    valid = torch.arange(SAMPLES) < 10
    batch = make_batch(method, ledger, valid)
    before = one_step(method, ledger, batch, 0)
    views = tuple(torch.where(valid[:, None, None, None], view, 1e3) for view in batch.views)
    after = one_step(method, ledger, Batch(batch.ids, views, batch.labels, valid), 0)
    for a, b in zip(before.loss_sums, after.loss_sums, strict=True):
        torch.testing.assert_close(a, b)
    assert all(weight.item() <= 10 for weight in before.weight_sums)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_sums_so_two_halves_make_the_whole(name: str) -> None:
    """What makes one rank with 2B equal two ranks with B."""
    method = make_method(name)
    ledger = make_ledger(method)
    first = torch.arange(SAMPLES) < SAMPLES // 2
    whole = one_step(method, ledger, make_batch(method, ledger), 0)
    halves = [
        one_step(method, ledger, make_batch(method, ledger, part), 0) for part in (first, ~first)
    ]
    for index in range(method.networks):
        parts = halves[0].loss_sums[index] + halves[1].loss_sums[index]
        torch.testing.assert_close(whole.loss_sums[index], parts)


@pytest.mark.parametrize("name", NAMES)
def test_clean_samples_are_heard(name: str) -> None:
    method = make_method(name, has_clean=True)
    ledger = make_ledger(method)
    plain = make_batch(method, ledger)
    views = tuple(view[:6] for view in plain.views)
    clean = Batch(plain.ids[:6], views, plain.labels[:6], plain.valid[:6])
    with_clean = Batch(plain.ids, plain.views, plain.labels, plain.valid, clean)
    before = one_step(method, ledger, plain, 0)
    after = one_step(method, ledger, with_clean, 0)
    for index in range(method.networks):
        assert after.weight_sums[index] == before.weight_sums[index] + 6
        assert after.loss_sums[index] > before.loss_sums[index]


@pytest.mark.parametrize("name", NAMES)
def test_judgement_is_in_range_and_same_for_any_number_of_ranks(name: str) -> None:
    method = make_method(name)
    ledger = make_ledger(method)
    batch = make_batch(method, ledger)
    for epoch in range(EPOCHS):
        history = LedgerHistory(ledger, lambda values: values)
        ledger.overwrite(method.begin_epoch(history, progress_at(method, epoch)))
        result = one_step(method, ledger, batch, epoch)
        ledger.update(torch.arange(SAMPLES), result.records)
    history = LedgerHistory(ledger, lambda values: values)
    judgement = method.judge(history)
    for values in (judgement.clean_probability, judgement.confidence):
        assert len(values) == SAMPLES
        assert ((values >= 0) & (values <= 1.001)).all()
    assert ((judgement.suggested >= 0) & (judgement.suggested < CLASSES)).all()
    # Two ranks with the same samples: all sums double, and belief moves only by the pseudo-counts.
    doubled = method.judge(LedgerHistory(ledger, lambda values: values * 2))
    torch.testing.assert_close(
        judgement.clean_probability, doubled.clean_probability, atol=0.05, rtol=0
    )


BAD_OPTIONS = [
    ("ce", {"networks": 0}), ("ce", {"label_smoothing": 2.0}), ("mct", {"label_smoothing": 1.5}),
    ("mct", {"record_share": 0.0}), ("mct", {"sharpen": 0.0}), ("mct", {"em_steps": 0}),
    ("mct", {"momentum": 1.0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), BAD_OPTIONS)
def test_options_out_of_range_are_refused(name: str, options: dict[str, float]) -> None:
    kind = all_methods()[name]
    flag = next(iter(options)).replace("_", "-")
    with pytest.raises(UserError, match=rf"--{name}\.{flag} is .*; it must lie between"):
        kind(kind.Options(**options), Task(CLASSES, SAMPLES, EPOCHS, False))


@pytest.mark.parametrize("name", NAMES)
def test_a_method_keeps_to_its_side_of_the_seam(name: str) -> None:
    source = inspect.getsource(inspect.getmodule(all_methods()[name]) or all_methods()[name])
    called = {
        node.func.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    forbidden = {"backward", "item", "cpu", "nonzero", "tolist", "open", "print", "all_reduce"}
    assert not called & forbidden, "methods do not step, wait for the device, or talk"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("epoch", [0, EPOCHS - 1])
def test_a_step_stays_on_the_device_and_never_asks_it(
    name: str, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU that need not be there: PyTorch works out types, shapes and devices alone.

    A tensor that is made on the host, or a value that the host must see, is an error.
    """
    device = torch.device("cuda", 0)
    monkeypatch.setattr(augment, "_per_value", augment._per_value.__wrapped__)
    with FakeTensorMode():
        method = make_method(name)
        ledger = Ledger(
            np.arange(SAMPLES), np.zeros(SAMPLES, dtype=np.int64), method.columns, device
        )
        with device:
            members = [create_model("small_cnn", CLASSES) for _ in range(method.networks)]
        networks = Networks(tuple(Network(net, torch.no_grad()(net)) for net in members))
        canvas = torch.empty(SAMPLES, 3, 16, 16, dtype=torch.uint8, device=device)
        draws = torch.rand(SAMPLES, NUM_DRAWS, device=device)
        augmentation = Augmentation(2, True, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
        views = tuple(augmentation(canvas, view, draws) for view in method.views)
        places = torch.arange(SAMPLES, device=device)
        valid = torch.ones(SAMPLES, dtype=torch.bool, device=device)
        moment = with_mode(method, progress_at(method, epoch))
        for count in ("epoch", "step", "round_epoch"):
            scalar: Any = torch.zeros((), dtype=torch.int64, device=device)
            moment = moment._replace(**{count: scalar})
        batch = Batch(places, views, ledger.labels, valid)
        result = method.step(networks, batch, ledger.rows(places), moment)
        ledger.update(places, result.records)
        assert {value.device for value in result.loss_sums} == {device}
        assert {value.device for value in result.records.values()} == {device}
