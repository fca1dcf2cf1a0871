"""Who goes on in the middle of a long epoch starts there at once."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.dist import spies
from tests.forks import run
from thresher.train.checkpoint import commit, find_newest

IMAGES, BATCH = 200_000, 1000
STEP = 190
"""Of 200; to come there takes minutes."""
AHEAD = 5 * BATCH
"""Images that may be read before the first step: some batches are made ahead."""
SECONDS = 20.0
"""A few, on a machine that has other things to do."""


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stands far into its first epoch, as its checkpoint says."""
    folder = tmp_path_factory.mktemp("long")
    rng = np.random.default_rng(0)
    for index in range(8):
        pixels = rng.integers(256, size=(16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    rows = (f"{index % 8}.png,{'ab'[index % 2]}\n" for index in range(IMAGES))
    (folder / "images.csv").write_text("path,label\n" + "".join(rows))
    out = folder / "run"
    line = (
        "--method", "mct", "--epochs", 2, "--batch-size", BATCH, "--image-size", 16,
        "--val-share", 0, "--precision", "fp32", "--accelerator", "cpu", "--threads", 1,
    )  # fmt: skip
    ended = run(
        1, "train", folder / "images.csv", *line, "--out", out, before=partial(spies.stop, 0)
    )
    assert ended.codes == [143], ended.said
    found = find_newest(out / "checkpoints")
    assert found is not None
    path, meta = found
    assert (meta["epoch"], meta["step"]) == (0, 1)
    commit(path, path.with_name(f"000000-{STEP:06d}"), {**meta, "step": STEP})
    return out


@pytest.mark.parametrize("size", [1, 2])
def test_a_resume_replays_nothing(size: int, far: Path, tmp_path: Path) -> None:
    """With the number of ranks that saved, and with another one."""
    out = shutil.copytree(far, tmp_path / "run")
    spy = partial(spies.tell_first_and_stop, tmp_path / "told", STEP)
    ended = run(size, "train", "--resume", "--out", out, before=spy)
    assert ended.codes == [143] * size, ended.said
    told = [json.loads(path.read_text()) for path in (tmp_path / "told").glob("*.json")]
    assert len(told) == size
    for one in told:
        assert one["step"] == STEP
        assert one["reads"] < AHEAD
        assert one["seconds"] < SECONDS
