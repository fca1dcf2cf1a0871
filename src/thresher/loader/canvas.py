"""Decoded image to canvas: the uint8[3, S, S] square that all views of an epoch are made from."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as V

Canvas = Callable[[Tensor, np.ndarray | None], Tensor]

EVALUATION_MARGIN = 0.875
"""Photographs are measured on the central 87.5 %, as the field does (Krizhevsky et al. 2012)."""
CROP_AREA = (0.25, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_DRAWS = 4


def whole(image: Tensor, size: int) -> Tensor:
    """Scale so that the short side fits and cut the middle out."""
    return centre(image, size, margin=1.0)


def centre(image: Tensor, size: int, margin: float = EVALUATION_MARGIN) -> Tensor:
    """Scale the short side to ``size / margin`` and cut the central square out."""
    height, width = image.shape[-2:]
    side = max(1, round(min(height, width) * margin))
    top, left = (height - side) // 2, (width - side) // 2
    return _crop_and_scale(image, top, left, side, side, size)


def random_crop(image: Tensor, size: int, draws: np.ndarray) -> Tensor:
    """Cut a random part out and scale it (Szegedy et al. 2015), from ``CROP_DRAWS`` uniforms."""
    height, width = image.shape[-2:]
    area = height * width * (CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * float(draws[0]))
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    ratio = math.exp(low + (high - low) * float(draws[1]))
    crop_width = min(width, max(1, round(math.sqrt(area * ratio))))
    crop_height = min(height, max(1, round(math.sqrt(area / ratio))))
    top = int((height - crop_height + 1) * float(draws[2]))
    left = int((width - crop_width + 1) * float(draws[3]))
    return _crop_and_scale(image, top, left, crop_height, crop_width, size)


def _crop_and_scale(
    image: Tensor, top: int, left: int, height: int, width: int, size: int
) -> Tensor:
    part = image[:, top : top + height, left : left + width]
    if (height, width) == (size, size):
        return part
    scaled: Tensor = V.resize(part, [size, size], antialias=True)
    assert scaled.dtype == torch.uint8
    return scaled
