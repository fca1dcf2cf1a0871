"""What a configuration cannot be, whatever the data."""

from __future__ import annotations

from thresher.config import TrainConfig
from thresher.errors import UserError, unknown_name


def check(config: TrainConfig) -> None:
    """Refuse values that cannot be, before any data is opened.

    Raises:
        UserError: naming the option.
    """
    # timm takes two seconds to come, which a launcher without these need not wait for.
    if config.model is not None:
        from thresher.models.factory import check_model_name

        check_model_name(config.model)
    if config.optimizer is not None:
        from timm.optim import list_optimizers

        if config.optimizer not in list_optimizers():
            raise unknown_name("optimizer", config.optimizer, list_optimizers())
    at_least_one = (
        "epochs",
        "batch_size",
        "image_size",
        "threads",
        "eval_every",
        "keep_checkpoints",
        "devices",
        "accumulate",
    )
    for name in at_least_one:
        value = getattr(config, name)
        if value not in (None, "auto") and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
    if config.lr is not None and config.lr <= 0:
        raise UserError(f"--lr is {config.lr}; it must be above 0.")
    if not 0 <= config.val_share < 1:
        raise UserError(f"--val-share is {config.val_share}; it must be at least 0 and below 1.")
    if config.ema_decay is not None and not 0 <= config.ema_decay < 1:
        raise UserError(f"--ema-decay is {config.ema_decay}; it must be at least 0 and below 1.")
    if not 0 < config.warmup_share < 1:
        raise UserError(f"--warmup-share is {config.warmup_share}; it must lie between 0 and 1.")
    if not 0 < config.min_crop_area <= 1:
        raise UserError(
            f"--min-crop-area is {config.min_crop_area}; it must be above 0 and at most 1."
        )
    if config.peer_timeout <= 0:
        raise UserError(f"--peer-timeout is {config.peer_timeout}; it must be above 0.")
    for name in ("weight_decay", "checkpoint_minutes", "max_restarts"):
        value = getattr(config, name)
        if value is not None and value < 0:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it must not be negative.")
    if config.seed < 0:
        raise UserError(f"--seed is {config.seed}; it must not be negative.")
