"""Two networks for small images (up to about 64 px), known to timm under their own names.

``small_cnn`` is four convolutions, quick on a CPU. ``small_resnet`` has nine layers with residual
blocks in the manner of David Page's DAWNBench entry (2018), the better choice where there is a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, pool: bool = False) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
    if pool:
        layers.append(nn.MaxPool2d(2))
    return [*layers, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class Residual(nn.Module):
    """Two convolutions with a way around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(width, width), *_conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Feature map in, feature map of the same shape out."""
        out: Tensor = x + self.body(x)
        return out


class SmallNet(nn.Module):
    """Convolutions, global average, one linear layer; the interface of timm's networks."""

    def __init__(self, features: nn.Sequential, num_features: int, num_classes: int = 1000) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = num_features
        self.num_classes = num_classes
        self.features = features
        self.head = nn.Linear(num_features, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh last layer on; 0 classes leaves the features bare."""
        del global_pool  # timm passes it; there is only the average here
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Images float[B, in_chans, S, S] to feature maps."""
        out: Tensor = self.features(x)
        return out

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature maps to logits float[B, C], or to pooled features."""
        x = torch.mean(x, dim=(2, 3))
        out: Tensor = x if pre_logits else self.head(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        return self.forward_head(self.forward_features(x))


def _small_cnn(num_classes: int = 1000, in_chans: int = 3, width: int = 32) -> SmallNet:
    features = nn.Sequential(
        *_conv(in_chans, width, pool=True),
        *_conv(width, 2 * width, pool=True),
        *_conv(2 * width, 4 * width),
        *_conv(4 * width, 4 * width, pool=True),
    )
    return SmallNet(features, 4 * width, num_classes)


def _small_resnet(num_classes: int = 1000, in_chans: int = 3, width: int = 64) -> SmallNet:
    features = nn.Sequential(
        *_conv(in_chans, width),
        *_conv(width, 2 * width, pool=True),
        Residual(2 * width),
        *_conv(2 * width, 4 * width, pool=True),
        *_conv(4 * width, 8 * width, pool=True),
        Residual(8 * width),
    )
    return SmallNet(features, 8 * width, num_classes)


DATA_CONFIG = {
    "url": "",
    "num_classes": 1000,
    "input_size": (3, 32, 32),
    "min_input_size": (3, 8, 8),
    "fixed_input_size": False,
    "pool_size": None,
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "first_conv": "features.0",
    "classifier": "head",
}
default_cfgs = generate_default_cfgs({"small_cnn": DATA_CONFIG, "small_resnet": DATA_CONFIG})


@register_model  # type: ignore[untyped-decorator]
def small_cnn(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Four convolutions; about 250 thousand weights."""
    return _build(_small_cnn, "small_cnn", pretrained, kwargs)


@register_model  # type: ignore[untyped-decorator]
def small_resnet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Nine layers with two residual blocks; about 6.6 million weights."""
    return _build(_small_resnet, "small_resnet", pretrained, kwargs)


def _build(make: Any, variant: str, pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    for unused in ("global_pool", "drop_rate"):
        kwargs.pop(unused, None)
    model: nn.Module = build_model_with_cfg(make, variant, pretrained, **kwargs)
    return model
