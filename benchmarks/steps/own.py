"""Thresher's sides: its loop with its loader, ledger and meter."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from steps.cases import Case
from steps.others import Images
from steps.spent import Spent
from thresher.bench.loop import time_loop
from thresher.bench.work import Work, on_images
from thresher.config import Precision, TrainConfig
from thresher.dist.runtime import Runtime
from thresher.methods import all_methods
from thresher.types import Progress

SKIP = 3
"""Steps before time is counted, of every side that starts anew."""


def work_of(case: Case, method: str, runtime: Runtime, precision: Precision, **more: Any) -> Work:
    """What the loop trains; ``more`` are options of the method."""
    options: Any = all_methods()[method].Options(**more)
    config = TrainConfig(
        data=case.data, method=method, model=case.model, image_size=case.pixels,
        batch_size=case.batch, epochs=case.mct_epochs if method == "mct" else 10_000,
        precision=precision, lr=0.01,
        cache="device" if runtime.device.type == "cuda" else "host",
    )  # fmt: skip
    return on_images(config, options, runtime)


def steps_of(work: Work, steps: int) -> Spent:
    """The loop, from fresh networks; the first ``SKIP`` steps are not counted."""
    begun = 0.0

    def heard(progress: Progress) -> None:
        nonlocal begun
        if progress.step + 1 == SKIP:
            begun = time.process_time()

    seconds = time_loop(work, steps, SKIP, by_part=False, heard=heard).seconds
    return Spent(seconds / steps, (time.process_time() - begun) / steps)


def decoded(work: Work) -> Images:
    """All images of a loader, as it would serve them; a cache of its is full after that."""
    loader, config = work.feed.loader, work.config
    plan = np.arange(len(loader)).reshape(1, -1)
    whole = next(iter(loader.batches(0, plan)))
    device = work.runtime.device
    return Images(
        canvases=whole.canvas.to(device),
        labels=torch.from_numpy(whole.labels).to(device),
        num_classes=work.num_classes,
        batch=config.batch_size,
        model=config.model,
        lr=config.lr,
        augmentation=work.feed.augmentation,
    )
