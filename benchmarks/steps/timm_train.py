"""The user's own copy of timm's ``train.py``, run as it is on a case's folder.

Thresher's small networks are known to it by ``--device-modules``, which imports any module before
the network is made; so every case has the same network on both sides. Views are crops and flips
without colour changes; images are read and decoded anew in every epoch, by as many worker
processes as there are cores.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import timm
import torch

from steps.apart import run
from steps.cases import Case
from steps.own import SKIP
from steps.spent import Block, Spent

LINE = re.compile(r"Train: \d+ \[ *\d+/\d+ .*? Time: [\d.]+s, +([\d.]+)/s ")


def find() -> Path | None:
    """The script beside timm, where timm is used from a checkout."""
    beside = Path(timm.__file__).parents[1] / "train.py"
    return beside if beside.exists() else None


def block_of(script: Path, case: Case, device: torch.device, bf16: bool, lr: float) -> Block:
    def block(steps: int) -> Spent:
        with tempfile.TemporaryDirectory() as out:
            log = run(command(script, case, device, bf16, lr, steps, out), out)
        return Spent(seconds_per_step(log, case.batch, steps), None)

    return block


def command(
    script: Path, case: Case, device: torch.device, bf16: bool, lr: float, steps: int, out: str
) -> list[str]:
    images = sum(1 for path in Path(case.data).rglob("*") if path.is_file())
    classes = sum(1 for path in Path(case.data).iterdir())
    # The script leaves out the rest of an epoch that makes no whole batch.
    epochs = -(-(SKIP + steps) // (images // case.batch))
    words = [
        str(script.resolve()), "--data-dir", case.data, "--val-split", "", "--output", out,
        "--device-modules", "thresher.models.small", "steps.preact",
        "--model", case.model, "--num-classes", str(classes),
        "--input-size", "3", str(case.pixels), str(case.pixels), "--batch-size", str(case.batch),
        "--epochs", str(epochs), "--warmup-epochs", "0", "--log-interval", "1",
        "--device", device.type, "--channels-last", "--workers", str(os.cpu_count() or 2),
        "--opt", "sgd", "--momentum", "0.9", "--weight-decay", "5e-4", "--lr", str(lr),
        "--smoothing", "0", "--color-jitter", "0", "--model-ema", "--model-ema-decay", "0.99",
        "--checkpoint-hist", "1",
    ]  # fmt: skip
    return [*words, "--amp", "--amp-dtype", "bfloat16"] if bf16 else words


def seconds_per_step(log: str, batch: int, steps: int) -> float:
    """The mean of ``steps`` steps, after the first ``SKIP``, by the script's own count.

    It counts a step from the end of the one before, its wait for the loader included; not what
    lies between two epochs, as checkpoints. Its rate has more digits than its seconds.
    """
    rates = [float(found[1]) for found in LINE.finditer(log)]
    counted = rates[SKIP : SKIP + steps]
    if len(counted) < steps:
        raise SystemExit(f"train.py logged {len(rates)} steps of {SKIP + steps}:\n{log[-2000:]}")
    return sum(batch / rate for rate in counted) / steps
