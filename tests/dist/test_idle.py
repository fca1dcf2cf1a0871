"""Networks with parameters that take no part in the loss: never, or not in every step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import write_classes
from tests.dist.runs import free_port, furthest, rank, sentences, weights
from thresher.dist.idle import find_idle

COMMON = (
    "--method", "mct", "--model", "odd", "--epochs", 2, "--batch-size", 12, "--image-size", 16,
    "--val-share", 0, "--accelerator", "cpu", "--precision", "fp32", "--lr", 0.01,
    "--peer-timeout", 30,
)  # fmt: skip
# What a user's own network would be: registered with timm before Thresher starts.
NETWORK = """
from timm.models import generate_default_cfgs, register_model
from torch import nn
class Odd(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.sometimes = nn.Linear(8, 8)
        self.head = nn.Linear(8, num_classes)
        self.steps = 0
    def skips(self):
        {skips}
    def forward(self, images):
        self.steps += self.training
        found = self.body(images).flatten(1)
        return self.head(found if self.skips() else self.sometimes(found))
default_cfgs = generate_default_cfgs({"odd": {"input_size": (3, 32, 32)}})
@register_model
def odd(pretrained=False, num_classes=2, **others):
    return Odd(num_classes)
"""
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("idle") / "data", per_class=24)


def train(
    data: Path, out: Path, size: int, skips: str, *words: object
) -> tuple[list[int], list[str]]:
    port = free_port()
    code = NETWORK.replace("{skips}", skips)
    given = ["train", data, "--out", out, *COMMON, *words]
    return sentences([rank(number, size, port, given, code) for number in range(size)])


@pytest.fixture(scope="module")
def alone(data: Path) -> Path:
    """The run of one process."""
    out = data.parent / "alone"
    codes, said = train(data, out, 1, "return False")
    assert codes == [0], said
    return out


class Odd(nn.Module):
    """A part that nothing asks, and one that only training asks."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.unused, self.other = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(self.other(x) if self.training else x)
        return out


def test_what_only_training_or_only_evaluation_asks_is_not_idle() -> None:
    assert find_idle(Odd(), torch.zeros(1, 2)) == {"unused.weight", "unused.bias"}


@pytest.mark.parametrize("words", [(), ("--accumulate", 2)], ids=["whole", "parts"])
def test_an_unused_parameter_changes_nothing(
    words: tuple[object, ...], data: Path, alone: Path, tmp_path: Path
) -> None:
    codes, said = train(data, tmp_path / "run", 2, "return False", *words)
    assert codes == [0, 0], said
    assert any("unused" in name for name in weights(alone))
    assert furthest(weights(tmp_path / "run"), weights(alone)) < TOLERANCE


@pytest.mark.parametrize(
    "skips",
    [
        "return self.steps == 3",
        # Of the four in an epoch the last: a sum over the ranks follows that is not of gradients.
        "import os; return self.steps == 4 and os.environ['RANK'] == '1'",
    ],
    ids=["all ranks", "one rank"],
)
def test_a_graph_that_changes_is_one_sentence(skips: str, data: Path, tmp_path: Path) -> None:
    codes, said = train(data, tmp_path / "run", 2, skips)
    assert set(codes) <= {2, 75}, said
    assert codes[1] == 2
    about = [line for line in said if "in some steps and not in others" in line]
    assert about, said
    assert "(sometimes.weight, sometimes.bias)" in about[0]
    assert "Choose another --model" in about[0]
