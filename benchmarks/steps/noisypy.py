"""noisypy's cross-entropy, where noisypy is installed: its strategy, its data module, its trainer.

noisypy (Hudovernik et al. 2026, MIT licence) is on no package index; it is installed by
``pip install git+https://github.com/KlemenVovk/noisy-labels``. It trains as its own configuration
of cross-entropy has it: Lightning's trainer in float32, two loader processes, its crops and flips;
without its checkpoints and its bar. It runs in a process of its own, as Lightning changes much.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable
from typing import Any

import torch

from steps.apart import run
from steps.cases import Case
from steps.own import SKIP
from steps.spent import Block, Spent, Watch

NEEDED = ("noisypy", "lightning", "torchmetrics", "sklearn")


def missing() -> str | None:
    """The first package that is not there."""
    return next((name for name in NEEDED if importlib.util.find_spec(name) is None), None)


def block_of(case: Case, device: torch.device, lr: float) -> Block:
    def block(steps: int) -> Spent:
        words = [
            "-m", "steps.noisypy", "--data", case.data, "--model", case.model,
            "--pixels", str(case.pixels), "--batch", str(case.batch), "--device", device.type,
            "--lr", str(lr), "--steps", str(steps),
        ]  # fmt: skip
        with tempfile.TemporaryDirectory() as out:
            last = run(words, out).splitlines()[-1]
        return Spent(float(json.loads(last)), None)

    return block


def main() -> None:
    """Train, and print the seconds of a whole batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("data", str), ("model", str), ("device", str), ("lr", float),
                       ("pixels", int), ("batch", int), ("steps", int)):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, required=True)
    print(json.dumps(train(parser.parse_args())))


def train(given: argparse.Namespace) -> float:
    import lightning
    from lightning.pytorch.loggers import CSVLogger
    from noisypy.data.datamodule import MultiSampleDataModule
    from noisypy.methods.learning_strategies import CE
    from torchvision import datasets, transforms

    import steps.preact
    import thresher.models.factory

    # Both make networks known to timm.
    assert steps.preact
    assert thresher.models.factory.small
    views = transforms.Compose(
        [
            transforms.Resize(given.pixels),
            transforms.RandomCrop(given.pixels, padding=given.pixels // 8),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )
    images: Any = datasets.ImageFolder(given.data, views)
    images.num_classes = len(images.classes)
    module = MultiSampleDataModule([images], [], [], batch_size=given.batch, num_workers=2)
    create: Callable[..., torch.nn.Module] = thresher.models.factory.create_model
    model = CE(
        module, create, {"name": given.model, "num_classes": images.num_classes},
        torch.optim.SGD, {"lr": given.lr, "momentum": 0.9, "weight_decay": 5e-4},
        torch.optim.lr_scheduler.MultiStepLR, {"milestones": [60], "gamma": 0.1},
    )  # fmt: skip
    device = torch.device(given.device)

    class Timer(lightning.Callback):  # type: ignore[misc]
        """Counts images, as the last batch of an epoch is a smaller one."""

        made, images, result = 0, 0, 0.0

        def on_train_batch_end(self, trainer: Any, _: Any, __: Any, batch: Any, ___: int) -> None:
            self.made += 1
            if self.made > SKIP:
                self.images += len(batch[0][1])
            if self.made == SKIP:
                self.watch = Watch(device)
            if self.made == SKIP + given.steps:
                self.result = self.watch.per_step(1).wall * given.batch / self.images
                trainer.should_stop = True

    timer = Timer()
    lightning.Trainer(
        max_steps=SKIP + given.steps, deterministic=True, logger=CSVLogger("."),
        accelerator="gpu" if given.device == "cuda" else "cpu", devices=1, callbacks=[timer],
        limit_val_batches=0, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model, module)  # fmt: skip
    return timer.result


if __name__ == "__main__":
    main()
