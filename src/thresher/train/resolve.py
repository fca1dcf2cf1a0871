"""What follows from the data: every ``None`` of a configuration gets its value here."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

import torch

from thresher.config import Precision, ResolvedConfig, TrainConfig
from thresher.models.factory import SMALL_IMAGE_LIMIT, fixed_input_side
from thresher.train.check import check

_ADAMW_FAMILIES = ("vit", "deit", "swin", "convnext", "maxvit", "eva", "beit", "hiera", "mobilevit")


@dataclass(frozen=True)
class Facts:
    """What is known before training.

    Attributes:
        num_samples: usable training images.
        median_side: median of the images' shorter sides, in pixels.
        accelerator: cpu, cuda or mps.
        cores: of the processor, for this process.
        shares: equal parts that a batch is cut into, over all processes.
    """

    num_samples: int
    median_side: int
    accelerator: str
    cores: int = field(default_factory=lambda: os.cpu_count() or 2)
    shares: int = 1


def resolve(config: TrainConfig, facts: Facts) -> ResolvedConfig:
    """Fill in all that the user left open.

    Raises:
        UserError: a value that cannot be.
    """
    check(config)
    size = config.image_size or _image_size(facts.median_side)
    on_cpu = facts.accelerator == "cpu"
    model = config.model or _model(size <= SMALL_IMAGE_LIMIT, on_cpu)
    if config.image_size is None:
        size = fixed_input_side(model) or size
    small = size <= SMALL_IMAGE_LIMIT
    wanted = None if config.batch_size == "auto" else config.batch_size
    batch = wanted or evenly(_batch_size(small, on_cpu, facts.num_samples), facts.shares)
    epochs = config.epochs or _epochs(small, facts.num_samples)
    adamw = model.startswith(_ADAMW_FAMILIES)
    optimizer = config.optimizer or ("adamw" if adamw else "sgd")
    steps = max(1, epochs * -(-facts.num_samples // batch))
    chosen: dict[str, Any] = {
        "image_size": size,
        "model": model,
        "batch_size": batch,
        "epochs": epochs,
        "optimizer": optimizer,
        "lr": config.lr or _learning_rate(optimizer, small, batch),
        "weight_decay": _or(
            config.weight_decay, 0.05 if optimizer == "adamw" else 5e-4 if small else 5e-5
        ),
        "ema_decay": _or(config.ema_decay, min(0.9998, max(0.9, 1 - 10 / steps))),
        "augment": config.augment or ("small" if small else "photo"),
        "precision": config.precision or best_precision(facts.accelerator),
        "threads": config.threads or max(1, min(16, facts.cores)),
        "eval_every": config.eval_every or max(1, epochs // 10),
    }
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return ResolvedConfig(**{**fields, **chosen})


def accelerator_of(name: str) -> str:
    """The kind of device that ``--accelerator`` means on this machine."""
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _image_size(side: int) -> int:
    if side <= SMALL_IMAGE_LIMIT:
        return max(16, -(-side // 4) * 4)
    return min(224, -(-side // 32) * 32)


def _model(small: bool, on_cpu: bool) -> str:
    if not small:
        return "resnet50"
    return "small_cnn" if on_cpu else "small_resnet"


def _batch_size(small: bool, on_cpu: bool, num_samples: int) -> int:
    if not small:
        return 32 if on_cpu else 256
    return 128 if num_samples < 20_000 else 512


def evenly(batch: int, shares: int) -> int:
    """The largest batch up to this one that comes out even, of one image for each at least."""
    return max(shares, batch // shares * shares)


def _epochs(small: bool, num_samples: int) -> int:
    """Fewer passes the more there is to see; about 10 million images for large collections."""
    most = 60 if small else 30
    return max(10, min(most, 10_000_000 // max(1, num_samples)))


def _learning_rate(optimizer: str, small: bool, batch: int) -> float:
    """Linear in the batch size (Goyal et al. 2017), bounded where that rule ends."""
    if optimizer != "sgd":
        return min(2e-3, 5e-4 * batch / 256)
    return min(0.4, 0.1 * batch / 128) if small else min(1.6, 0.1 * batch / 256)


def best_precision(accelerator: str) -> Precision:
    """bfloat16 where the hardware multiplies it faster than float32.

    By what the processor has and not by a measurement, which other work on the machine would sway:
    all ranks, and a run that starts again, must come to the same.
    """
    if accelerator == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if accelerator == "cpu":
        has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if has_bf16 else "fp32"
    return "fp32"
