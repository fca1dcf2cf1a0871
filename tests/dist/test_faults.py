"""A rank dies and the run goes on to the same end; accuracy is counted once over all ranks."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import torch

from tests.conftest import write_classes
from tests.dist.runs import thresher, trained, weights
from tests.dist.test_elastic import newest, start

COMMON = (
    "--method", "mct", "--epochs", 8, "--batch-size", 24, "--image-size", 16, "--val-share", 0,
    "--accelerator", "cpu", "--checkpoint-minutes", 0, "--devices", 2,
)  # fmt: skip


def test_a_killed_rank_changes_nothing(tmp_path: Path) -> None:
    """``benchmarks/faults.py`` does the same at random moments, in every other way too."""
    data = write_classes(tmp_path / "data", per_class=120)
    whole = trained(data, tmp_path / "whole", *COMMON)
    out = tmp_path / "broken"
    launcher = start(data, out, *COMMON, "--max-restarts", 2)
    give_up = time.monotonic() + 120
    while newest(out) is None:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    ranks = [
        child
        for child in psutil.Process(launcher.pid).children()
        if child.environ().get("RANK") == "1"
    ]
    ranks[0].kill()
    _, errors = launcher.communicate(timeout=200)
    assert launcher.returncode == 0, errors
    assert "the connection to another process is lost" in errors
    first, second = weights(whole), weights(out)
    assert all(torch.equal(first[name], second[name]) for name in first)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 9))


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
