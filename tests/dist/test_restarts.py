"""What is started again goes on with what it began itself, and mistakes are made once only."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import write_classes
from tests.dist.launchers import BIN
from tests.dist.runs import ENVIRONMENT, thresher, trained
from thresher.commands import train_run
from thresher.config import TrainConfig
from thresher.methods import all_methods
from thresher.train.resolve import Facts, resolve
from thresher.train.run_dir import RunDir

COMMON = (
    "--method", "ce", "--epochs", 1, "--batch-size", 12, "--image-size", 16, "--val-share", 0,
    "--accelerator", "cpu", "--threads", 1,
)  # fmt: skip
TORCHRUN = (BIN / "torchrun", "--nproc-per-node", 2, "--max-restarts", 1, "-m", "thresher")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("restarts") / "data", per_class=12)


@pytest.fixture(scope="module")
def older(data: Path) -> Path:
    """A run that was finished before."""
    return trained(data, data.parent / "older", *COMMON)


def contents(run: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in run.iterdir()}


def test_a_mistake_is_not_repeated_and_an_older_run_is_left_alone(data: Path, older: Path) -> None:
    before = contents(older)
    words = ("train", data, "--out", older, *COMMON, "--devices", 2, "--max-restarts", 2)
    done = thresher(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("already holds a run") == 1, done.stderr
    assert contents(older) == before


def test_torchrun_repeats_it_but_goes_on_with_no_older_run(data: Path, older: Path) -> None:
    before = contents(older)
    words = (*TORCHRUN, "train", data, "--out", older, *COMMON)
    done = subprocess.run(
        list(map(str, words)), env=ENVIRONMENT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1
    assert done.stderr.count("already holds a run") == 2, done.stderr  # once for each start
    assert "nothing is left to train" not in done.stdout
    assert contents(older) == before


def test_a_mistake_found_on_the_way_ends_the_run(data: Path, tmp_path: Path) -> None:
    words = ("train", data, "--out", tmp_path / "run", *COMMON, "--epochs", 50)
    done = thresher(*words, "--devices", 2, "--max-restarts", 2, "--lr", 1e30)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("no longer finite") == 1, done.stderr


@pytest.mark.parametrize(("launched_before", "began"), [(True, True), (False, False)])
def test_a_run_counts_as_begun_if_it_is_younger_than_its_launcher(
    launched_before: bool, began: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path)
    run.manifest.touch()
    config = resolve(TrainConfig(data="x", method="ce"), Facts(2000, 28, "cpu"))
    run.write_config(config, all_methods()["ce"].Options())
    written = run.config.stat().st_mtime
    monkeypatch.setattr(train_run, "launched_at", lambda: written + (-1 if launched_before else 1))
    assert train_run._began(tmp_path) == began
