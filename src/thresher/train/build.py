"""Configuration to parts: the second of the three hops command line -> build -> loop."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thresher.config import ResolvedConfig, TrainConfig
from thresher.dist.runtime import Runtime
from thresher.errors import UserError
from thresher.ledger.ledger import Ledger
from thresher.loader.augment import Augmentation
from thresher.loader.feed import Feed
from thresher.loader.order import Dealt, Order, choose_num_homes
from thresher.loader.pipeline import Framing, Loader
from thresher.methods import all_methods
from thresher.methods.base import Method, Task
from thresher.models.factory import create_model, data_config
from thresher.train.data import ImageSet, TrainData
from thresher.train.evaluate import Score, score
from thresher.train.learner import Learner, MakeLearner
from thresher.train.resolve import Facts, evenly
from thresher.train.team import Team
from thresher.types import View

_EVALUATION_BATCH = 500
_COMMON_SIZES = (2, 3, 4)
"""Numbers of processes that a run may go on with, if its batch is a multiple of all of them."""
_SHIFTS_PER_SIDE = 14
"""Small images move by at most this part of their side: 2 pixels of 28 or 32."""


def facts_of(config: TrainConfig, data: TrainData, runtime: Runtime) -> Facts:
    """What a configuration is resolved by."""
    return Facts(
        len(data.train.ids),
        data.median_side,
        runtime.device.type,
        runtime.cores,
        shares=runtime.group.size * config.accumulate,
    )


def build_method(config: ResolvedConfig, options: Any, data: TrainData) -> Method:
    """The method that was chosen, told what it may know of the data."""
    task = Task(
        num_classes=len(data.train.manifest.classes),
        num_samples=len(data.train.ids),
        epochs=config.epochs,
        has_clean=data.clean is not None,
    )
    return all_methods()[config.method](options, task)


def build_augmentation(model: str, augment: str, flip: bool, image_size: int) -> Augmentation:
    """Views for a network's normalisation; small images are shifted, photographs were cropped."""
    normalisation = data_config(model)
    return Augmentation(
        shift=max(1, image_size // _SHIFTS_PER_SIDE) if augment == "small" else 0,
        flip=flip and augment != "none",
        mean=tuple(normalisation["mean"]),
        std=tuple(normalisation["std"]),
    )


def _augmentation(config: ResolvedConfig) -> Augmentation:
    return build_augmentation(config.model, config.augment, config.flip, config.image_size)


def build_loader(
    images: ImageSet,
    config: ResolvedConfig,
    framing: Framing,
    ids: np.ndarray,
    runtime: Runtime,
) -> Loader:
    """A loader of these samples of an image set.

    Raises:
        UserError: the cache that the user wants cannot be had.
    """
    return Loader(
        images.reader.read,
        ids,
        images.manifest.labels[ids],
        size=config.image_size,
        framing=framing,
        min_area=config.min_crop_area,
        seed=config.seed,
        threads=config.threads,
        decoder=config.decoder,
        cache=config.cache,
        place=images.reader.place,
        device=runtime.device,
        processes=runtime.local_size,
    )


def build_feed(
    config: ResolvedConfig,
    images: ImageSet,
    views: tuple[View, ...],
    runtime: Runtime,
    clean: Feed | None = None,
) -> Feed:
    """Batches of this rank's share of an image set.

    Raises:
        UserError: a number of processes, or a batch size, that cannot be shared out evenly.
    """
    homes = choose_num_homes(len(images.ids))
    group = runtime.group
    if homes % group.size:
        fitting = [n for n in range(1, group.size + 1) if homes % n == 0]
        raise UserError(
            f"{group.size} processes cannot share {len(images.ids):,} samples evenly: they live in"
            f" {homes} homes. Start {fitting[-1]} processes, or another divisor of {homes}."
        )
    batch_size, parts = config.batch_size, config.accumulate
    if batch_size % (group.size * parts):
        in_parts = f" in {parts} parts" if parts > 1 else ""
        raise UserError(
            f"--batch-size {batch_size} is shared out over {group.size} processes{in_parts}, which"
            f" does not come out even. Choose a multiple of {group.size * parts}."
        )
    order = Order(
        num_samples=len(images.ids),
        batch_size=batch_size,
        seed=config.seed,
        rank=group.rank,
        world_size=group.size,
        num_homes=homes,
    )
    framing: Framing = "random_crop" if config.augment == "photo" else "whole"
    return Feed(
        loader=build_loader(images, config, framing, images.ids[order.owned], runtime),
        order=order,
        augmentation=_augmentation(config),
        views=views,
        device=runtime.device,
        seed=config.seed,
        parts=parts,
        clean=clean,
    )


def build_feeds(
    config: ResolvedConfig,
    data: TrainData,
    method: Method,
    runtime: Runtime,
    *,
    resume: bool = False,
) -> Feed:
    """The training feed, with the clean feed inside it where there is one.

    Raises:
        UserError: see ``build_feed``; ``resume`` tells that the batch size cannot be changed.
    """
    if resume:
        _require_even_again(config, runtime)
    clean = None
    if data.clean is not None:
        clean = _build_clean_feed(config, data.clean, method.views, runtime)
    return build_feed(config, data.train, method.views, runtime, clean)


def _build_clean_feed(
    config: ResolvedConfig, images: ImageSet, views: tuple[View, ...], runtime: Runtime
) -> Feed:
    """Clean batches of the same images for any number of processes, which may outnumber them.

    No ledger is kept of them, so that no process need own any: each may read all of this small set,
    and takes its turn in every batch.
    """
    # A quarter of the batch: enough to be heard in every step, too little to double its cost.
    size = max(1, min(config.batch_size // 4, len(images.ids)) // config.accumulate)
    group = runtime.group
    framing: Framing = "random_crop" if config.augment == "photo" else "whole"
    return Feed(
        loader=build_loader(images, config, framing, images.ids, runtime),
        order=Dealt(
            num_samples=len(images.ids),
            batch_size=size,
            seed=config.seed,
            num_homes=1,
            place=group.rank,
            players=group.size,
        ),
        augmentation=_augmentation(config),
        views=views,
        device=runtime.device,
        seed=config.seed,
    )


def _require_even_again(config: ResolvedConfig, runtime: Runtime) -> None:
    """Refuse to go on with processes that cannot share the batch that the run began with.

    Raises:
        UserError: with a number of processes that can, and a batch that these could have shared.
    """
    batch, parts, size = config.batch_size, config.accumulate, runtime.group.size
    if batch % (size * parts) == 0:
        return
    copies = runtime.world_size // size  # with --placement apart two processes share a sample
    fitting = max(n for n in range(1, size + 1) if batch % (n * parts) == 0)
    shared = evenly(batch, math.lcm(size, *_COMMON_SIZES) * parts)
    raise UserError(
        f"--resume: this run's batches of {batch} images do not come out even over"
        f" {runtime.world_size} processes. Go on with {fitting * copies}. A run that may go on with"
        f" {runtime.world_size} is one that was started with --batch-size {shared}."
    )


def build_ledger(feed: Feed, method: Method) -> Ledger:
    """A ledger of the samples that this rank owns."""
    return Ledger(feed.loader.ids, feed.loader.labels, method.columns, feed.device)


def learner_maker(config: ResolvedConfig, num_classes: int, runtime: Runtime) -> MakeLearner:
    """Makes networks whose start depends on (seed, network, round) alone."""

    def make(network: int, round_index: int) -> Learner:
        with torch.random.fork_rng([runtime.device] if runtime.device.type == "cuda" else []):
            torch.manual_seed(config.seed * 1_000_003 + round_index * 1_009 + network)
            weights = Path(config.init_weights) if config.init_weights else None
            model = create_model(
                config.model, num_classes, pretrained=config.pretrained, weights=weights
            )
        return Learner(model, config, runtime)

    return make


def try_network(learner: Learner, config: ResolvedConfig, runtime: Runtime) -> None:
    """See that a network takes images of the chosen size, and which of its parameters they need.

    Raises:
        UserError: it does not.
    """
    side = config.image_size
    images = torch.zeros(2, 3, side, side, device=runtime.device)
    try:
        learner.predictor(teacher=False)(images)
        # A copy of the average: its batch statistics wait for no other rank.
        runtime.leave_out_idle(copy.deepcopy(learner.ema).requires_grad_(True), images)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"{config.model} does not take images of {side} x {side} pixels"
            f" ({str(error).splitlines()[0]}). Choose another --image-size or --model."
        ) from None


@dataclass(frozen=True)
class Measure:
    """Accuracy of the averaged prediction on the images set apart for it.

    Attributes:
        loader: of this rank's share of them.
    """

    loader: Loader
    augmentation: Augmentation
    runtime: Runtime
    num_classes: int
    teacher: bool

    def __call__(self, team: Team) -> Score:
        """Count right answers of the networks as they are now, over all ranks."""
        predict = team.predict(self.teacher)

        def predict_and_tell(images: Tensor) -> list[Tensor]:
            self.runtime.tick(alike=False)
            return predict(images)

        own = score(
            predict_and_tell,
            self.loader,
            self.augmentation,
            self.runtime.device,
            num_classes=self.num_classes,
            batch_size=max(1, min(_EVALUATION_BATCH, len(self.loader))),
        )
        counts = torch.from_numpy(np.stack([own.correct, own.total])).to(self.runtime.device)
        correct, total = self.runtime.sum(counts).cpu().numpy()
        return Score(correct, total, own.unreadable)


def build_measure(
    config: ResolvedConfig, data: TrainData, method: Method, runtime: Runtime
) -> Measure | None:
    """What measures accuracy, or None where there is nothing to measure on."""
    images = data.measure
    if images is None:
        return None
    framing = evaluation_framing(config.augment)
    mine = images.ids[runtime.group.rank :: runtime.group.size]
    return Measure(
        loader=build_loader(images, config, framing, mine, runtime),
        augmentation=_augmentation(config),
        runtime=runtime,
        num_classes=len(images.manifest.classes),
        teacher=method.predicts_with_teacher,
    )


def evaluation_framing(augment: str) -> Framing:
    """How images are framed when nothing is random."""
    return "centre" if augment == "photo" else "whole"
