"""What an exchange takes from a step before a byte travels."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thresher.bench import handling, net
from thresher.bench.clock import Clock
from thresher.bench.net import Net
from thresher.bench.step import Setting, Step
from thresher.dist.group import Group

SETTING = Setting(
    model="small_cnn", method="mct", optimizer="sgd", num_classes=5, image_size=16, small=True,
    device=torch.device("cpu"), precision=None,
)  # fmt: skip


class Partly(nn.Module):
    """Has a head that it never asks, and maybe another one that it asks every other time."""

    def __init__(self, fickle: bool) -> None:
        super().__init__()
        self.body = nn.Linear(3 * 16 * 16, 5)
        self.never = nn.Linear(2, 2)
        self.sometimes = nn.Linear(5, 5)
        self._fickle = fickle
        self._passes = itertools.count()

    def __deepcopy__(self, _: dict[int, Any]) -> Partly:
        fresh = Partly(self._fickle)
        fresh.load_state_dict(self.state_dict())
        return fresh

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images.flatten(1))
        skips = self._fickle and self.training and next(self._passes) % 2
        return logits if skips else self.sometimes(logits)


def test_a_step_in_an_exchange_computes_what_one_without_does(
    monkeypatch: pytest.MonkeyPatch, pair: Group
) -> None:
    """Only then what it takes longer is the exchange's."""
    found: list[list[Tensor]] = []
    monkeypatch.setattr(Net, "update", lambda net: found.append(net.gradients))
    for joined in (False, True):
        torch.manual_seed(0)
        step = Step(SETTING)
        if joined:
            step.join(pair)
        step.resize(4)
        step.run(0, Clock(SETTING.device))
    assert len(found) == 4, "two networks, alone and joined"
    for alone, together in zip(found[:2], found[2:], strict=True):
        for one, other in zip(alone, together, strict=True):
            # Nobody is the second rank, but sums are doubled for it, the whole weight among them.
            torch.testing.assert_close(one, 2 * other)


@pytest.mark.parametrize(("apart", "expected"), [(0.002, 0.002), (-0.002, 0.0)])
def test_it_is_what_joined_steps_take_longer(
    apart: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(step: Step, _: int) -> float:
        return 0.010 if step._exchange is None else 0.010 + apart

    monkeypatch.setattr(handling, "_seconds", seconds)
    assert handling.measure_handling(SETTING, 4) == pytest.approx(expected)


def test_parameters_that_never_take_part_do_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "create_model", lambda *_: Partly(fickle=False))
    assert handling.measure_handling(SETTING, 4) is not None


def test_a_network_that_ranks_cannot_train_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "create_model", lambda *_: Partly(fickle=True))
    assert handling.measure_handling(SETTING, 4) is None


def test_a_machine_without_a_network_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "no-such0")
    assert handling.measure_handling(SETTING, 4) is None
