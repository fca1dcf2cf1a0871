"""Rounds after the first: several ranks judge as one does, and a resume goes on in the midst."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.conftest import ROOT
from tests.dist import spies
from tests.dist.launchers import BIN
from tests.dist.runs import ENVIRONMENT, furthest, losses, weights
from tests.forks import run, trained
from thresher.ledger.rows import saved_columns

PER_CLASS, CLASSES, BATCH = 16, 3, 12
IMAGES = PER_CLASS * CLASSES
STEPS = IMAGES // BATCH
EPOCHS = 8
"""Two, two and four: rounds begin with the epochs 0, 2 and 4."""
MIDST = 2 * STEPS + 2
"""A step in the second round, early enough for optimizers to have a say in what comes of it."""
ITS_LAST = 2 * STEPS - 1
"""The first round's last step: who goes on from there judges labels first."""
COMMON = (
    "--method", "mct", "--mct.rounds", 3, "--mct.sharpen", 6, "--mct.record-share", 1,
    "--epochs", EPOCHS, "--batch-size", BATCH, "--image-size", 16, "--val-share", 0,
    "--precision", "fp32", "--accelerator", "cpu", "--lr", 0.02, "--ema-decay", 0.5,
    "--sync-batchnorm", "true",
)  # fmt: skip
APART = ("--placement", "apart")
TOGETHER = ("--placement", "together")
MEASURED = (5, 10)
"""Bytes are counted from the middle of one step to that of another."""
LOSS, BELIEF, WEIGHT = 5e-4, 3e-3, 2e-2
"""How far several ranks may be from one after 32 steps: they add up floats in another order."""

Started = tuple[int, tuple[str, ...]]
"""How many ranks, and further words."""


def write_noisy(root: Path) -> Path:
    """Three classes of colours; a quarter of the labels is wrong."""
    rng = np.random.default_rng(0)
    colours = np.full((CLASSES, 3), 90) + 110 * np.eye(CLASSES)
    for label in range(CLASSES):
        folder = root / f"class-{label}"
        folder.mkdir(parents=True)
        for index in range(PER_CLASS):
            true = label if index >= PER_CLASS // 4 else (label + 1) % CLASSES
            level = colours[true] + rng.normal(0, 25, 3)
            pixels = level + rng.normal(0, 20, (16, 16, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index:02d}.png")
    return root


class Runs:
    """Runs that several tests look at, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.data = write_noisy(folder / "data")
        self.folder = folder
        self.whole = cache(self._whole)
        self.stopped = cache(self._stopped)

    def measured(self, size: int, *words: str) -> list[dict[str, float]]:
        """What each rank of a whole run measured."""
        return spies.measured(self.whole(size, *words).with_suffix(".measured"))

    def _whole(self, size: int, *words: str) -> Path:
        out = self.folder / "-".join(["whole", str(size), *words])
        spy = partial(spies.measure, out.with_suffix(".measured"), *MEASURED)
        return trained(size, self.data, *COMMON, *words, out=out, before=spy)

    def _stopped(self, step: int, size: int, *words: str) -> Path:
        out = self.folder / "-".join(["stopped", str(step), str(size), *words])
        line = ("train", self.data, *COMMON, *words, "--out", out)
        ended = run(size, *line, before=partial(spies.stop, step))
        assert ended.codes == [143] * size, ended.said
        assert position(out) == divmod(step + 1, STEPS)
        return out

    def resumed(self, step: int, before: Started, after: Started, out: Path) -> Path:
        shutil.copytree(self.stopped(step, before[0], *before[1]), out)
        size, words = after
        return trained(size, "--resume", *words, out=out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("rounds"))


def newest(out: Path) -> Path:
    return max((out / "checkpoints").glob("0*-0*"))


def position(out: Path) -> tuple[int, int]:
    """(epoch, step) that a run would go on with."""
    meta = json.loads((newest(out) / "meta.json").read_text())
    return meta["epoch"], meta["step"]


def ledger(out: Path) -> dict[str, Tensor]:
    """All columns, by sample id: each in one part, none in two."""
    parts = [torch.load(p, weights_only=True) for p in newest(out).glob("ledger-*.pt")]
    ids = torch.cat([part["ids"] for part in parts])
    assert ids.sort().values.tolist() == list(range(IMAGES))
    columns = [saved_columns(part) for part in parts]
    order = ids.argsort()
    return {name: torch.cat([c[name] for c in columns])[order] for name in columns[0]}


def assert_whole(out: Path) -> None:
    """Every sample took part once an epoch, and every epoch was counted once."""
    assert (ledger(out)["seen"] == EPOCHS).all()
    epochs = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in epochs] == list(range(1, EPOCHS + 1))
    assert [line["images"] for line in epochs] == [IMAGES] * EPOCHS


def assert_close(out: Path, expected: Path) -> None:
    """The same losses, judgements and weights, up to the order of sums."""
    assert_whole(out)
    for ours, theirs in zip(losses(out), losses(expected), strict=True):
        assert ours == pytest.approx(theirs, abs=LOSS)
    mine, other = ledger(out), ledger(expected)
    for name in ("trust", "guess_probs", "record_1_probs", "record_2_probs"):
        torch.testing.assert_close(mine[name], other[name], rtol=0, atol=BELIEF, msg=name)
    assert furthest(weights(out), weights(expected)) < WEIGHT


def assert_equal(out: Path, expected: Path) -> None:
    """The same to the bit."""
    assert_whole(out)
    assert losses(out) == losses(expected)
    mine, other = ledger(out), ledger(expected)
    assert all(torch.equal(mine[name], other[name]) for name in other)
    assert furthest(weights(out), weights(expected)) == 0


def test_labels_are_judged_at_all(runs: Runs) -> None:
    """Else the tests below would compare nothing."""
    trust = ledger(runs.whole(1))["trust"].float()
    assert float(trust.std()) > 10 * BELIEF
    assert float(trust.max()) < 0.99


@pytest.mark.parametrize(("size", "words"), [(2, ()), (3, ()), (2, APART)])
def test_ranks_judge_as_one_does(size: int, words: tuple[str, ...], runs: Runs) -> None:
    assert_close(runs.whole(size, *words), runs.whole(1))


@pytest.mark.parametrize("started", [(1, ()), (2, ()), (2, APART)], ids=["1", "2", "2-apart"])
def test_a_resume_in_the_second_round_comes_to_the_same_bits(
    started: Started, runs: Runs, tmp_path: Path
) -> None:
    out = runs.resumed(MIDST, started, (started[0], ()), tmp_path / "run")
    assert_equal(out, runs.whole(started[0], *started[1]))


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        (MIDST, (1, ()), (2, ())),
        (MIDST, (2, ()), (1, ())),
        (ITS_LAST, (2, ()), (1, ())),
        (MIDST, (2, APART), (2, TOGETHER)),
        (MIDST, (2, ()), (2, APART)),
        (MIDST, (2, APART), (1, ())),
        (MIDST, (4, APART), (2, TOGETHER)),
    ],
    ids=[
        "1-2",
        "2-1",
        "2-1 between rounds",
        "apart-together",
        "together-apart",
        "apart-1",
        "4 apart-together",
    ],
)
def test_a_resume_on_other_ranks_comes_to_the_same(
    step: int, before: Started, after: Started, runs: Runs, tmp_path: Path
) -> None:
    out = runs.resumed(step, before, after, tmp_path / "run")
    assert_close(out, runs.whole(1))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["world_size"] == after[0]
    if after[1]:
        assert summary["placement"] == after[1][1]


DIES_ONCE = """
import os, signal, sys
from functools import partial
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.conftest import ROOT
from tests.dist import spies
from thresher.cli import main
rank, attempt = int(os.environ["RANK"]), os.environ["TORCHELASTIC_RESTART_COUNT"]
spies.tell_first(Path({told!r}, attempt), rank)
if attempt == "0" and rank == 1:
    spies.at_step({step}, partial(spies.kill_when_there_is, Path({checkpoint!r})))
sys.exit(main(sys.argv[1:]))
"""


def test_torchrun_starts_again_where_a_killed_rank_was(runs: Runs, tmp_path: Path) -> None:
    """SIGKILL in the middle of the second epoch; nobody does anything about it."""
    out, told, epoch = tmp_path / "run", tmp_path / "told", 1
    script = tmp_path / "dies_once.py"
    script.write_text(
        DIES_ONCE.format(
            root=str(ROOT),
            told=str(told),
            step=epoch * STEPS + 2,
            checkpoint=str(out / "checkpoints" / f"{epoch:06d}-000001"),
        )
    )
    launcher = [BIN / "torchrun", "--nproc-per-node", 2, "--max-restarts", 1, script]
    line = ["train", runs.data, "--out", out, *COMMON, "--checkpoint-minutes", 0]
    done = subprocess.run(
        list(map(str, [*launcher, *line])),
        env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first = {
        attempt: [json.loads(path.read_text())["step"] for path in (told / attempt).iterdir()]
        for attempt in ("0", "1")
    }
    assert first == {"0": [0, 0], "1": [epoch * STEPS + 1] * 2}
    assert_equal(out, runs.whole(2))


def test_apart_each_rank_keeps_the_optimizer_of_one_network(runs: Runs) -> None:
    together = runs.measured(2)
    apart = runs.measured(2, *APART)
    for mine, both in zip(apart, together, strict=True):
        assert both["state"] >= both["weights"], "a momentum of each weight"
        assert mine["state"] == both["state"] / 2
        assert mine["weights"] == both["weights"] / 2


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what was sent")
def test_compressed_gradients_are_half_as_many_bytes(runs: Runs, tmp_path: Path) -> None:
    """As the kernel counts what it sends: statistics and flags, too, which keep their size."""
    spy = partial(spies.measure_and_stop, tmp_path / "measured", *MEASURED)
    line = ("train", runs.data, *COMMON, "--compress-gradients", "bf16", "--out", tmp_path / "run")
    ended = run(2, *line, before=spy)
    assert ended.codes == [143] * 2, ended.said
    for ours, plain in zip(spies.measured(tmp_path / "measured"), runs.measured(2), strict=True):
        assert plain["sent"] == pytest.approx(plain["weights"], rel=0.1)
        assert ours["sent"] == pytest.approx(plain["sent"] / 2, rel=0.1)
