"""A rank dies and the run goes on to the same end; accuracy is counted once over all ranks."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch

from tests.conftest import write_classes
from tests.dist.runs import free_port, rank, thresher, trained, weights
from tests.dist.test_elastic import newest, start, stop_on_the_way

COMMON = (
    "--method", "mct", "--epochs", 8, "--batch-size", 24, "--image-size", 16, "--val-share", 0,
    "--accelerator", "cpu", "--checkpoint-minutes", 0, "--devices", 2,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("faults") / "data", per_class=120)


@pytest.fixture(scope="module")
def whole(data: Path) -> dict[str, torch.Tensor]:
    """Weights of the run that nothing disturbed."""
    return weights(trained(data, data.parent / "whole", *COMMON))


@pytest.fixture(scope="module")
def stopped(data: Path) -> Path:
    """A run with several checkpoints that was stopped on the way."""
    out = data.parent / "stopped"
    stop_on_the_way(data, out, *COMMON)
    return out


def kill_second_rank(launcher: subprocess.Popen[str], out: Path) -> None:
    give_up = time.monotonic() + 120
    while newest(out) is None:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    children = psutil.Process(launcher.pid).children()
    (rank_1,) = (child for child in children if child.environ().get("RANK") == "1")
    rank_1.kill()


def test_a_killed_rank_changes_nothing(
    data: Path, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """``benchmarks/faults.py`` does the same at random moments, in every other way too."""
    out = tmp_path / "broken"
    launcher = start(data, out, *COMMON, "--max-restarts", 2)
    kill_second_rank(launcher, out)
    _, errors = launcher.communicate(timeout=200)
    assert launcher.returncode == 0, errors
    found = weights(out)
    assert all(torch.equal(found[name], value) for name, value in whole.items())
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 9))


def test_a_killed_rank_is_named_by_who_started_it(data: Path, tmp_path: Path) -> None:
    """It cannot say anything, and the launcher may end the others before they do."""
    out = tmp_path / "broken"
    launcher = start(data, out, *COMMON)
    kill_second_rank(launcher, out)
    _, errors = launcher.communicate(timeout=200)
    assert launcher.returncode == 128 + 9
    assert "thresher: rank 1 was ended by SIGKILL, as when" in errors


# What the second rank does to its part once the first has found the checkpoint whole.
LATE_DAMAGE = """
import thresher.train.loop as loop
restore = loop.restore
def late(path, *rest):
    part = path / "rank-1.pt"
    if {when}:
        {damage}
    return restore(path, *rest)
loop.restore = late
"""
ONCE = "not list(path.parent.glob('damaged-*'))"


def resume_with(damage: str, when: str, stopped: Path, out: Path) -> tuple[list[int], str]:
    """Exit codes, and everything that the two ranks wrote to stderr."""
    shutil.copytree(stopped, out)
    code = LATE_DAMAGE.format(damage=damage, when=when)
    words, port = ["train", "--resume", "--out", out], free_port()
    ranks = [rank(0, 2, port, words), rank(1, 2, port, words, code)]
    errors = "".join(process.communicate(timeout=150)[1] for process in ranks)
    return [process.returncode for process in ranks], errors


@pytest.mark.parametrize("damage", ["part.unlink()", "part.write_bytes(b'not it')"])
def test_what_one_rank_cannot_read_all_pass_over(
    damage: str, stopped: Path, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    last = newest(stopped)
    assert last is not None
    codes, errors = resume_with(damage, ONCE, stopped, tmp_path / "run")
    assert codes == [0, 0], errors
    assert errors.count("cannot be read (rank 1: ") == 1, errors
    assert "trying the one before" in errors
    folder = tmp_path / "run" / "checkpoints"
    assert [path.name for path in folder.glob("damaged-*")] == [f"damaged-{last.name}"]
    found = weights(tmp_path / "run")
    assert all(torch.equal(found[name], value) for name, value in whole.items())


def test_no_checkpoint_that_all_can_read_is_a_sentence(stopped: Path, tmp_path: Path) -> None:
    codes, errors = resume_with("part.unlink()", "True", stopped, tmp_path / "run")
    assert codes == [2, 2], errors
    assert errors.count("thresher: None of the 2 checkpoints in") == 1, errors
    assert "Traceback" not in errors


def test_accuracy_counts_each_image_once(tmp_path: Path) -> None:
    """Seven images over two ranks: a padded repeat would be counted, were there one."""
    data = write_classes(tmp_path / "data", per_class=24)
    checked = write_classes(tmp_path / "checked", per_class=4, seed=7)
    next(checked.rglob("*.png")).unlink()
    out = trained(
        data, tmp_path / "run", "--val", checked, "--method", "ce", "--epochs", 1, "--lr", 1e-6,
        "--batch-size", 12, "--image-size", 16, "--accelerator", "cpu", "--devices", 2,
    )  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    done = thresher("evaluate", out, checked)
    assert done.returncode == 0, done.stderr
    assert "7" in done.stdout
    right = round(summary["accuracy"] * 7)
    assert summary["accuracy"] == right / 7
    assert f"{summary['accuracy']:.2%}" in done.stdout
