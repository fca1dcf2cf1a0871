"""What must not drift: memory over epochs, and the loss curve with less precision."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.test_run import METHODS, QUIET, losses_of, options_of, run, tiny
from thresher.config import TrainConfig
from thresher.train.loop import Loop
from thresher.train.run import train

MIB = 2**20


def resident_bytes() -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in x)
    return int(line.split()[1]) * 1024


def live_tensors() -> tuple[int, int]:
    """How many there are, and the bytes they look at."""
    gc.collect()
    found = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    return len(found), sum(one.nbytes for one in found)


@pytest.mark.parametrize("method", METHODS)
def test_memory_does_not_grow_over_epochs(
    method: str, two_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With checkpoints after every epoch; a later round's networks take the old ones' place."""
    tensors: list[tuple[int, int]] = []
    resident: list[int] = []
    original = Loop._train_epoch

    def watched(self: Loop, *words: Any) -> None:
        self._saver.wait()
        tensors.append(live_tensors())
        resident.append(resident_bytes())
        original(self, *words)

    monkeypatch.setattr(Loop, "_train_epoch", watched)
    run(tiny(two_classes, method, epochs=24, checkpoint_minutes=0.0), tmp_path / "run")
    # A third of the run is more than one round of mutual calibration: all was made once by then.
    settled = 8
    assert set(tensors[settled:]) == {tensors[settled]}
    assert max(resident[settled:]) - resident[settled] < 16 * MIB


def test_bfloat16_learns_as_float32_does(fashion: Path, tmp_path: Path) -> None:
    """Their loss curves lie closer together than those of other seeds."""

    def curve(name: str, **changes: Any) -> np.ndarray:
        config = TrainConfig(
            data=str(fashion / "train.parquet"), method="ce", model="small_cnn", epochs=2,
            batch_size=128, lr=0.1, **changes,
        )  # fmt: skip
        train(config, options_of("ce"), tmp_path / name, console=QUIET)
        return np.array(losses_of(tmp_path / name))

    seeds = [curve(f"seed-{seed}", precision="fp32", seed=seed) for seed in range(3)]
    low = curve("low", precision="bf16", seed=0)
    apart = np.abs(low - seeds[0])
    assert apart.max() > 0, "it was computed otherwise"
    assert apart.mean() < np.ptp(seeds, axis=0).mean()
