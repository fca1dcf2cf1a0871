"""Networks by name: timm's and our own, one way to make them all."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import nn

from thresher.errors import UserError, unknown_name
from thresher.models import small

SMALL_IMAGE_LIMIT = 64
"""Up to this side in pixels a small-image network is the default."""


def check_model_name(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        UserError: it names the nearest ones.
    """
    if not timm.is_model(name.split(".")[0]):
        raise unknown_name("model", name, timm.list_models())
    if "." in name and not timm.models.is_model_pretrained(name):
        family = name.split(".")[0]
        raise unknown_name("model", name, timm.list_models(f"{family}.*", pretrained=True))


def create_model(
    name: str, num_classes: int, *, pretrained: bool = False, weights: Path | None = None
) -> nn.Module:
    """Make a network with a fresh last layer of ``num_classes``.

    Args:
        name: of timm's registry, which holds ``small_cnn`` and ``small_resnet`` too.
        num_classes: C.
        pretrained: take timm's published weights.
        weights: take the weights of this file; the last layer is taken only if it fits.

    Raises:
        UserError: unknown name, or weights of another network.
    """
    check_model_name(name)
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=num_classes)
    except RuntimeError as error:
        if pretrained and "pretrained" in str(error).lower():
            raise UserError(f"timm has no published weights for '{name}': {error}") from None
        raise
    if weights is not None:
        load_weights(model, weights)
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a .safetensors or .pth file; a last layer of another size is left fresh.

    Raises:
        UserError: no such file, not a weights file, or weights of another network.
    """
    try:
        state: dict[str, Any] = load_state_dict(str(path))
    except FileNotFoundError:
        raise UserError(f"There is no weights file {path}.") from None
    # What timm's loader raises for files that are no archives, no pickles of weights, or no dicts.
    except (
        SafetensorError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError,
        AttributeError, TypeError,
    ) as error:  # fmt: skip
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a weights file that can be read: {reason}") from None
    own = model.state_dict()
    head = [
        name
        for name, value in state.items()
        if name in own and value.shape != own[name].shape and _is_head(model, name)
    ]
    for name in head:
        del state[name]
    missing, unexpected = model.load_state_dict(
        {k: v for k, v in state.items() if k not in own or v.shape == own[k].shape}, strict=False
    )
    lost = [name for name in missing if name not in head]
    if lost or unexpected:
        raise UserError(
            f"{path} holds weights of another network: {len(lost)} of {len(own)} values are missing"
            f" ({', '.join(lost[:3])}) and {len(unexpected)} are unknown"
            f" ({', '.join(unexpected[:3])}). Choose its network with --model."
        )


def fixed_input_side(name: str) -> int | None:
    """The side in pixels of a network that takes one size only, or None."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.fixed_input_size:
        return None
    return int(config.input_size[-1])


def data_config(name: str) -> Mapping[str, Any]:
    """timm's data configuration of a network by name: mean, std, input_size, crop_pct."""
    pretrained_cfg = timm.get_pretrained_cfg(name)
    config: Mapping[str, Any] = timm.data.resolve_data_config(
        # A network that was registered without one gets timm's defaults.
        pretrained_cfg=pretrained_cfg.to_dict() if pretrained_cfg else {"input_size": (3, 224, 224)}
    )
    return config


def _is_head(model: nn.Module, name: str) -> bool:
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    heads = (classifier,) if isinstance(classifier, str) else classifier
    return name.rsplit(".", 1)[0] in heads


__all__ = [
    "SMALL_IMAGE_LIMIT",
    "check_model_name",
    "create_model",
    "data_config",
    "load_weights",
    "small",
]
