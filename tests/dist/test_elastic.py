"""A run goes on with another number of ranks, from the middle of an epoch, and loses no sample."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests import forks
from tests.conftest import write_classes
from tests.dist.runs import ENVIRONMENT, free_port, trained, weights, without_devices
from thresher.ledger.rows import saved_columns

EPOCHS = 6
COMMON = (
    "--epochs", EPOCHS, "--batch-size", 12, "--image-size", 16, "--val-share", 0,
    "--precision", "fp32", "--accelerator", "cpu", "--checkpoint-minutes", 0,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """134 images: neither 2 nor 3 ranks nor a batch of 12 divide them."""
    return write_classes(tmp_path_factory.mktemp("elastic") / "data", per_class=67)


def start(data: Path, out: Path, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "thresher", "train", str(data), "--out", str(out), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def newest(out: Path) -> Path | None:
    found = sorted(p for p in (out / "checkpoints").glob("0*-0*") if (p / "meta.json").is_file())
    return found[-1] if found else None


def stop_on_the_way(data: Path, out: Path, *words: object) -> None:
    """SIGTERM to a rank once there is a checkpoint; all must save and exit with 143, one say so."""
    size, given = without_devices(words)
    port = free_port()
    line = ["train", data, "--out", out, *given]
    ranks = [forks.start(forks.Place(number, size, port), line) for number in range(size)]
    give_up = time.monotonic() + 120
    while newest(out) is None:
        assert ranks[0].poll() is None, ranks[0].communicate()
        assert time.monotonic() < give_up, "no checkpoint within two minutes"
        time.sleep(0.05)
    ranks[-1].send_signal(signal.SIGTERM)
    errors = "".join(rank.communicate(60)[1] for rank in ranks)
    assert [rank.returncode for rank in ranks] == [143] * size, errors
    assert errors.count("stopped by SIGTERM. Everything is saved") == 1, errors


def times_seen(out: Path) -> torch.Tensor:
    """How often each sample took part, over all parts of the last checkpoint's ledger."""
    folder = newest(out)
    assert folder is not None
    parts = [torch.load(path, weights_only=True) for path in sorted(folder.glob("ledger-*.pt"))]
    ids = torch.cat([part["ids"] for part in parts])
    assert ids.sort().values.tolist() == list(range(134))  # each in one part, none in two
    return torch.cat([saved_columns(part)["seen"] for part in parts])


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3)])
def test_another_number_of_ranks_repeats_and_skips_nothing(
    before: int, after: int, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stop_on_the_way(data, out, "--method", "mct", "--devices", before, *COMMON)
    folder = newest(out)
    assert folder is not None
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["world_size"] == before
    assert (meta["epoch"], meta["step"]) < (EPOCHS, 0), "it was stopped on the way"
    forks.trained(after, "--resume", out=out)
    seen = times_seen(out)
    assert (seen == EPOCHS).all()
    assert json.loads((out / "summary.json").read_text())["world_size"] == after
    epochs = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in epochs] == list(range(1, EPOCHS + 1))
    assert all(line["images"] == 134 for line in epochs)


def test_three_ranks_go_on_to_the_same_bits(data: Path, tmp_path: Path) -> None:
    """Two add up to the same in any order; what three do depends on where a value travels."""
    words = ("--method", "ce", "--devices", 3, *COMMON)
    whole = weights(trained(data, tmp_path / "whole", *words))
    out = tmp_path / "run"
    stop_on_the_way(data, out, *words)
    forks.trained(3, "--resume", out=out)
    found = weights(out)
    assert all(torch.equal(found[name], value) for name, value in whole.items())
