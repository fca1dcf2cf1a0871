"""PreActResNet-18 for 32 pixels (He et al. 2016), which timm lacks; known to timm once imported.

The network in which rates on CIFAR are quoted: 3x3 stem without pooling, normalisation and ReLU
before every convolution, four stages of two blocks, 64 to 512 channels.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from thresher.models.small import DATA_CONFIG, SmallNet

WIDTHS = (64, 128, 256, 512)


class PreActBlock(nn.Module):
    """Two convolutions, each after its normalisation, with a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        fits = stride == 1 and inputs == outputs
        self.around = None if fits else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        ready = self.before(x)
        short = x if self.around is None else self.around(ready)
        out: Tensor = self.body(ready) + short
        return out


def _network(num_classes: int = 1000, in_chans: int = 3) -> SmallNet:
    layers: list[nn.Module] = [nn.Conv2d(in_chans, WIDTHS[0], 3, padding=1, bias=False)]
    inputs = WIDTHS[0]
    for stage, width in enumerate(WIDTHS):
        layers += [PreActBlock(inputs, width, 2 if stage else 1), PreActBlock(width, width, 1)]
        inputs = width
    layers += [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)]
    return SmallNet(nn.Sequential(*layers), inputs, num_classes)


default_cfgs = generate_default_cfgs({"preact_resnet18": DATA_CONFIG})


@register_model  # type: ignore[untyped-decorator]
def preact_resnet18(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """About 11 million weights."""
    for unused in ("global_pool", "drop_rate"):
        kwargs.pop(unused, None)
    model: nn.Module = build_model_with_cfg(_network, "preact_resnet18", pretrained, **kwargs)
    return model
