"""A batch size that nobody typed fits any number of ranks; one that a run began with stays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from tests import forks
from tests.conftest import write_classes
from tests.dist.runs import trained
from tests.dist.test_elastic import stop_on_the_way
from thresher.config import TrainConfig
from thresher.train.resolve import Facts, evenly, resolve

COMMON = (
    "--method", "ce", "--image-size", 16, "--val-share", 0, "--accelerator", "cpu",
    "--threads", 1, "--checkpoint-minutes", 0,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("batches") / "data", per_class=72)


@pytest.mark.parametrize(
    ("batch", "shares", "shared"),
    [(128, 1, 128), (128, 3, 126), (128, 8, 128), (32, 5, 30), (128, 300, 300), (256, 48, 240)],
)
def test_rounding_goes_down_to_what_comes_out_even(batch: int, shares: int, shared: int) -> None:
    assert evenly(batch, shares) == shared


def test_only_a_default_is_rounded() -> None:
    facts = Facts(2000, 28, "cpu", 1, shares=3)
    assert resolve(TrainConfig(data="x"), facts).batch_size == 126
    assert resolve(TrainConfig(data="x", batch_size="auto"), facts).batch_size == 126
    assert resolve(TrainConfig(data="x", batch_size=128), facts).batch_size == 128
    one = dataclasses.replace(facts, shares=1)
    assert resolve(TrainConfig(data="x"), one).batch_size == 128


def test_three_ranks_train_without_a_batch_size(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained(data, out, *COMMON, "--epochs", 1, "--devices", 3)
    assert yaml.safe_load((out / "config.yaml").read_text())["batch_size"] == 126
    words = (*COMMON, "--epochs", 1, "--batch-size", 128)
    refused = forks.run(3, "train", data, "--out", tmp_path / "other", *words)
    assert refused.codes == [2, 2, 2]
    assert "--batch-size 128 is shared out over 3 processes" in refused.said


def test_going_on_with_ranks_that_cannot_share_the_batch_says_what_can(
    data: Path, tmp_path: Path
) -> None:
    """A run that began with two ranks and the default batch of 128."""
    out = tmp_path / "run"
    stop_on_the_way(data, out, *COMMON, "--epochs", 400, "--devices", 2)
    refused = forks.run(3, "train", "--resume", "--out", out)
    assert refused.codes == [2, 2, 2]
    assert refused.said.splitlines()[-1] == (
        "thresher: --resume: this run's batches of 128 images do not come out even over 3"
        " processes. Go on with 2. A run that may go on with 3 is one that was started with"
        " --batch-size 120."
    )
    assert yaml.safe_load((out / "config.yaml").read_text())["batch_size"] == 128
    trained(data, tmp_path / "b", *COMMON, "--epochs", 1, "--devices", 3, "--batch-size", 120)
