"""Weights in the form that timm loads: ``timm.create_model("local-dir:RUN", pretrained=True)``."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from thresher.files import write_atomically
from thresher.models.factory import data_config


def write_weights(model: nn.Module, path: Path) -> None:
    """Write a .safetensors file with timm's names."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with write_atomically(path) as temporary, _errors_of_the_system():
        save_file(state, temporary, metadata={"format": "pt"})


@contextlib.contextmanager
def _errors_of_the_system() -> Iterator[None]:
    """Raise what a full disk raises elsewhere: safetensors has an error of its own for it."""
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from None


def write_timm_config(
    model: nn.Module,
    path: Path,
    *,
    architecture: str,
    image_size: int,
    crop_share: float,
    classes: tuple[str, ...],
    num_networks: int = 1,
) -> None:
    """Write timm's ``config.json``, which belongs beside the weights.

    Args:
        model: the network.
        path: where.
        architecture: timm's name of the network.
        image_size: side that it was trained on, in pixels.
        crop_share: share of the side that is cut out of an image to be predicted.
        classes: in the order of the network's outputs.
        num_networks: whose predictions are averaged; timm loads the first.
    """
    normalisation = data_config(architecture)
    body = {
        "architecture": architecture.split(".")[0],
        "num_classes": len(classes),
        "num_networks": num_networks,
        "label_names": list(classes),
        "pretrained_cfg": {
            "input_size": [3, image_size, image_size],
            "fixed_input_size": False,
            "crop_pct": crop_share,
            "num_classes": len(classes),
            "mean": list(normalisation["mean"]),
            "std": list(normalisation["std"]),
            "interpolation": "bilinear",
            **_layer_names(model),
        },
    }
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")


def _layer_names(model: nn.Module) -> dict[str, str]:
    """Which layers timm adapts when the user asks for other channels or classes."""
    config = getattr(model, "pretrained_cfg", None) or {}
    return {name: config[name] for name in ("first_conv", "classifier") if name in config}
