"""Optimizers that take all weights at once change them as those that take one after the other."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from thresher.config import TrainConfig
from thresher.models.factory import create_model
from thresher.train.optimizer import make_optimizer
from thresher.train.resolve import Facts, resolve

CPU = torch.device("cpu")


def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor) -> None:
    optimizer.zero_grad()
    network(images).square().mean().backward()
    optimizer.step()


def saved_and_back(optimizer: torch.optim.Optimizer) -> None:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    optimizer.load_state_dict(torch.load(file, weights_only=True))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_all_at_once_is_as_one_after_the_other(name: str) -> None:
    """Also where weights lie in memory channel by channel, and after a checkpoint."""
    config = resolve(TrainConfig(data="x", optimizer=name), Facts(2000, 16, "cpu"))
    torch.manual_seed(0)
    network = create_model("small_cnn", 3).to(memory_format=torch.channels_last)
    other = copy.deepcopy(network)
    at_once = make_optimizer(network, config, CPU)
    assert all(group["fused"] for group in at_once.param_groups)
    in_turn = make_optimizer(other, config, CPU)
    for group in in_turn.param_groups:
        group.update(fused=False, foreach=False)
    images = torch.randn(8, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    for turn in range(4):
        step(network, at_once, images)
        step(other, in_turn, images)
        if turn == 1:
            saved_and_back(at_once)
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_what_cannot_take_all_at_once_is_made_as_it_is() -> None:
    config = resolve(TrainConfig(data="x", optimizer="lamb"), Facts(2000, 16, "cpu"))
    optimizer = make_optimizer(create_model("small_cnn", 3), config, CPU)
    assert "fused" not in optimizer.param_groups[0]


class _SkipsAtFirst(nn.Module):
    """Like networks that leave out layers at random: the first step sees one layer, then two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.late = nn.Linear(4, 4), nn.Linear(4, 4)
        self.steps = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        hidden: torch.Tensor = self.first(images)
        return hidden if self.steps == 1 else self.late(hidden)


def test_a_weight_may_get_its_first_gradient_late() -> None:
    config = resolve(TrainConfig(data="x"), Facts(2000, 16, "cpu"))
    torch.manual_seed(0)
    network = _SkipsAtFirst()
    other = copy.deepcopy(network)
    optimizer = make_optimizer(network, config, CPU)
    plain = torch.optim.SGD(
        [{"params": group["params"], "weight_decay": group["weight_decay"]}
         for group in make_optimizer(other, config, CPU).param_groups],
        lr=optimizer.param_groups[0]["lr"], momentum=0.9, nesterov=True,
    )  # fmt: skip
    images = torch.randn(8, 4)
    for turn in range(3):
        step(network, optimizer, images)
        step(other, plain, images)
        if turn == 0:
            saved_and_back(optimizer)
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
