"""From what the user named to what a run trains and measures on."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass

import numpy as np

from thresher.config import DataOptions, TrainConfig
from thresher.dist.environment import surroundings
from thresher.errors import UserError
from thresher.loader.draws import uniforms
from thresher.sources.apart import require_apart
from thresher.sources.damage import left_out
from thresher.sources.detect import open_source
from thresher.sources.manifest import Manifest
from thresher.sources.probe import probe, require_readable_classes
from thresher.sources.read import Reader

MOST_HELD_OUT = 10_000
"""Enough to tell accuracies half a point apart; the rest is better used for training."""
NOTHING = "nothing"
_HOLD_OUT_STREAM = 1
_LOT_STREAM = 2


@dataclass(frozen=True)
class ImageSet:
    """Some images of a manifest, and how to read them."""

    manifest: Manifest
    reader: Reader
    ids: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """int64[n], the given labels of ``ids``."""
        labels: np.ndarray = self.manifest.labels[self.ids]
        return labels.astype(np.int64)


@dataclass(frozen=True)
class TrainData:
    """Everything a run reads.

    Attributes:
        train: images to learn from.
        measure: images to measure accuracy on, if any.
        measured_on: what their labels are, in words for people.
        clean: images whose labels are trusted, if the user has some.
        median_side: median of the shorter sides of the training images, pixels.
    """

    train: ImageSet
    measure: ImageSet | None
    measured_on: str
    clean: ImageSet | None
    median_side: int


def open_images(data: str, options: DataOptions, classes: tuple[str, ...] | None) -> ImageSet:
    """Open any kind of image data, take its usable samples, and say which shards are left out.

    Raises:
        UserError: see ``sources``.
    """
    manifest = open_source(
        data,
        path_column=options.path_column,
        label_column=options.label_column,
        image_column=options.image_column,
        classes=classes,
        allow_damaged=options.allow_damaged,
    )
    note = left_out(manifest.options)
    if note and surroundings().cluster.global_rank() == 0:  # one voice is enough
        print(f"note: {note}", file=sys.stderr, flush=True)
    return ImageSet(manifest, Reader(manifest), np.flatnonzero(manifest.usable))


def open_training_data(config: TrainConfig) -> TrainData:
    """Open training, measuring and clean images.

    Raises:
        UserError: any of them cannot be used.
    """
    if not config.data:
        raise UserError("Name the training images: thresher train DATA. See thresher train --help.")
    whole = _without_unreadable_classes(open_images(config.data, config, None))
    sizes = probe(whole.manifest, whole.reader, seed=config.seed)
    if len(sizes.sizes) == 0:
        some = next(iter(sizes.unreadable.values()))
        raise UserError(
            f"None of {len(sizes.unreadable)} images of {config.data} tried can be read, the first:"
            f" {some}. See what is wrong with: thresher scan {config.data}"
        )
    manifest = whole.manifest.with_states(sizes.unreadable)
    whole = ImageSet(manifest, whole.reader, np.flatnonzero(manifest.usable))
    train, measure, measured_on = whole, None, NOTHING
    if config.val is not None:
        require_apart(config.data, config.val, "--val")
        measure, measured_on = (
            _open_labelled(config.val, config, manifest.classes),
            "validation labels",
        )
    elif config.val_share > 0:
        train, measure = _hold_out(whole, config.val_share, config.seed)
        measured_on = "noisy held-out labels"
    if measure is not None and len(measure.ids) == 0:
        measure, measured_on = None, NOTHING
    return TrainData(
        train=train,
        measure=measure,
        measured_on=measured_on,
        clean=_open_labelled(config.clean, config, manifest.classes) if config.clean else None,
        median_side=int(np.median(sizes.sizes.min(axis=1))),
    )


def _open_labelled(data: str, config: TrainConfig, classes: tuple[str, ...]) -> ImageSet:
    """Images with labels of training's classes, at least one of each class present readable."""
    images = _without_unreadable_classes(open_images(data, config, classes))
    if len(images.ids) == 0:
        raise UserError(f"{data} has no labelled image that can be used.")
    return images


def _without_unreadable_classes(images: ImageSet) -> ImageSet:
    manifest = images.manifest.with_states(require_readable_classes(images.manifest, images.reader))
    return ImageSet(manifest, images.reader, np.flatnonzero(manifest.usable))


def _hold_out(whole: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split at random, each class by itself; training keeps at least one image of each.

    What a class's share leaves below a whole image is given by lot, so that small classes are
    measured in proportion too.
    """
    draws = uniforms(seed, 0, whole.ids, _HOLD_OUT_STREAM, 1)[:, 0]
    lots = uniforms(seed, 0, np.arange(len(whole.manifest.classes)), _LOT_STREAM, 1)[:, 0]
    share = min(share, MOST_HELD_OUT / len(whole.ids))
    held = np.zeros(len(whole.ids), dtype=bool)
    by_label = np.lexsort((draws, whole.labels))
    bounds = np.searchsorted(whole.labels[by_label], np.arange(len(whole.manifest.classes) + 1))
    for lot, (start, stop) in zip(lots, itertools.pairwise(bounds), strict=True):
        count = min(int(share * (stop - start) + lot), max(0, stop - start - 1))
        held[by_label[start : start + count]] = True
    return (
        ImageSet(whole.manifest, whole.reader, whole.ids[~held]),
        ImageSet(whole.manifest, whole.reader, whole.ids[held]),
    )
