"""A finished run's networks, ready to answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from thresher.dist.runtime import Runtime
from thresher.errors import UserError
from thresher.loader.augment import Augmentation
from thresher.loader.pipeline import Loader
from thresher.models.factory import create_model
from thresher.train.build import build_augmentation, evaluation_framing
from thresher.train.data import ImageSet
from thresher.train.evaluate import Score, predictions, score
from thresher.train.run_dir import RunDir

_BATCH = 256


@dataclass(frozen=True)
class Predictor:
    """The averaged prediction of a run's networks.

    Attributes:
        models: in eval mode, on the device.
        classes: in the order of the outputs.
        image_size: side that the networks see.
    """

    models: tuple[nn.Module, ...]
    classes: tuple[str, ...]
    image_size: int
    augment: str
    augmentation: Augmentation
    runtime: Runtime
    threads: int

    @classmethod
    def load(cls, path: Path) -> Predictor:
        """Load a finished run.

        Raises:
            UserError: no run, an unfinished one, or weights that do not fit its configuration.
        """
        run = RunDir(path)
        if not path.exists():
            raise UserError(f"There is no run at {path}.")
        config = run.read_config()
        if not run.timm_config.is_file():
            raise UserError(
                f"{path} holds no finished run: its weights are missing. Finish it with"
                f" thresher train --resume --out {path}."
            )
        exported = json.loads(run.timm_config.read_text())
        classes = tuple(exported["label_names"])
        # Where a run was trained does not matter here: another machine may have other devices.
        runtime = Runtime("auto", config["precision"], alone=True)
        models = []
        for index in range(exported["num_networks"]):
            model = create_model(config["model"], len(classes), weights=run.weights(index))
            placed = model.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            models.append(placed.eval())
        return cls(
            models=tuple(models),
            classes=classes,
            image_size=config["image_size"],
            augment=config["augment"],
            augmentation=build_augmentation(
                config["model"], config["augment"], config["flip"], config["image_size"]
            ),
            runtime=runtime,
            threads=config["threads"],
        )

    def score(self, images: ImageSet) -> Score:
        """Accuracy on labelled images."""
        loader = self._loader(images)
        try:
            return score(
                self._logits,
                loader,
                self.augmentation,
                self.runtime.device,
                len(self.classes),
                _BATCH,
            )
        finally:
            loader.close()

    def predict(self, images: ImageSet) -> Iterator[tuple[np.ndarray, np.ndarray, dict[int, str]]]:
        """Class probabilities in the images' order.

        Yields:
            (ids int64[b], probs float32[b, C], reasons of the unreadable images so far by id).
        """
        loader = self._loader(images)
        try:
            for positions, _, probs in predictions(
                self._logits, loader, self.augmentation, self.runtime.device, _BATCH
            ):
                yield images.ids[positions], probs, loader.unreadable
        finally:
            loader.close()

    def _logits(self, images: Tensor) -> list[Tensor]:
        with torch.no_grad(), self.runtime.autocast():
            return [model(images).float() for model in self.models]

    def _loader(self, images: ImageSet) -> Loader:
        return Loader(
            images.reader.read,
            images.ids,
            images.manifest.labels[images.ids],
            size=self.image_size,
            framing=evaluation_framing(self.augment),
            threads=self.threads,
            cache="none",
            place=images.reader.place,
        )
