"""Thresher's sides: its loop with its loader, ledger and meter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from steps.cases import Case
from steps.others import Images
from steps.spent import Spent, Watch
from thresher.bench.loop import time_loop
from thresher.bench.work import Work, on_images
from thresher.config import Precision, TrainConfig
from thresher.dist.runtime import Runtime
from thresher.methods import all_methods
from thresher.train.capture import TRIALS, WARM_UP, WAYS
from thresher.types import Progress

SKIP = 3
"""Steps before time is counted, of every side that starts anew."""
MCT_EPOCHS = 5
"""Of a round of mutual calibration; its teachers are asked in the last 40 %, as in any round."""


def skip_of(device: torch.device) -> int:
    """Steps before time is counted, of Thresher's: on a GPU, until they are recorded."""
    return WARM_UP + len(WAYS) * TRIALS + 2 if device.type == "cuda" else SKIP


def work_of(
    case: Case,
    method: str,
    runtime: Runtime,
    precision: Precision,
    like: Work | None = None,
    **more: Any,
) -> Work:
    """What the loop trains.

    Args:
        like: lends its loader, with what that keeps.
        more: options of the method.
    """
    options: Any = all_methods()[method].Options(**more)
    config = TrainConfig(
        data=case.data, method=method, model=case.model, image_size=case.pixels,
        batch_size=case.batch, epochs=MCT_EPOCHS if method == "mct" else 10_000,
        precision=precision, lr=0.01,
        cache="device" if runtime.device.type == "cuda" else "host",
    )  # fmt: skip
    work = on_images(config, options, runtime)
    if like is None:
        return work
    work.feed.close()
    return replace(work, feed=replace(work.feed, loader=like.feed.loader))


def compiled(work: Work) -> Work:
    """The same with ``--compile``."""
    return replace(work, config=replace(work.config, compile=True))


def steps_of(work: Work, steps: int) -> Spent:
    """The loop, from fresh networks; its first steps are not counted."""
    skip = skip_of(work.runtime.device)
    watch: Watch | None = None
    spent: Spent | None = None

    def heard(progress: Progress) -> None:
        nonlocal watch, spent
        if progress.step + 1 == skip:
            watch = Watch(work.runtime.device)
        elif progress.step + 1 == skip + steps:
            assert watch is not None
            spent = watch.per_step(steps)

    time_loop(work, steps, skip, by_part=False, heard=heard)
    assert spent is not None
    return spent


def round_of(work: Work) -> Spent:
    """A step of mutual calibration on average over a round, with and without its teachers.

    Steps of either kind are made for the first time, and on a GPU recorded, in the first epoch and
    in the fourth; these two are not counted. The next ones stand for them.
    """
    epoch = work.feed.order.steps
    watch: Watch | None = None
    parts: list[Spent] = []

    def heard(progress: Progress) -> None:
        nonlocal watch
        done = progress.step + 1
        if done in (epoch, 4 * epoch):
            watch = Watch(work.runtime.device)
        elif done in (3 * epoch, 5 * epoch):
            assert watch is not None
            parts.append(watch.per_step(2 * epoch if done == 3 * epoch else epoch))

    time_loop(work, MCT_EPOCHS * epoch - 1, 1, by_part=False, heard=heard)
    alone, asked = parts
    assert alone.cpu is not None
    assert asked.cpu is not None
    return Spent(0.6 * alone.wall + 0.4 * asked.wall, 0.6 * alone.cpu + 0.4 * asked.cpu)


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
