"""Decoded image to canvas: the square that all views of an epoch are made from.

What is cut out is a ``Box``, chosen from the image's size alone, so that a decoder can leave out
what lies outside it and a cache can apply it to an image of another size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

EVALUATION_MARGIN = 0.875
"""Photographs are measured on the central 87.5 %, as the field does (Krizhevsky et al. 2012)."""
MIN_CROP_AREA = 0.25
CROP_RATIO = (3 / 4, 4 / 3)
CROP_DRAWS = 4
_RESIZE: Callable[..., Tensor] = torch._C._nn._upsample_bilinear2d_aa
"""What ``torch.nn.functional.interpolate`` calls for bilinear scaling with antialiasing."""


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def scaled(self, down: float, right: float) -> Box:
        """The same part of an image of another size; its edges fall on whole pixels."""
        top, left = round(self.top * down), round(self.left * right)
        bottom = max(top + 1, round((self.top + self.height) * down))
        end = max(left + 1, round((self.left + self.width) * right))
        return Box(top, left, bottom - top, end - left)


def all_of_it(height: int, width: int) -> Box:
    """The whole image."""
    return Box(0, 0, height, width)


def centre_box(height: int, width: int, margin: float = 1.0) -> Box:
    """The central square of ``margin`` times the shorter side."""
    side = max(1, round(min(height, width) * margin))
    return Box((height - side) // 2, (width - side) // 2, side, side)


def random_box(height: int, width: int, draws: np.ndarray, min_area: float = MIN_CROP_AREA) -> Box:
    """A random part (Szegedy et al. 2015), from ``CROP_DRAWS`` uniforms.

    Its share of the image lies between ``min_area`` and 1, before it is cut to fit.
    """
    area = height * width * (min_area + (1 - min_area) * float(draws[0]))
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    ratio = math.exp(low + (high - low) * float(draws[1]))
    box_width = min(width, max(1, round(math.sqrt(area * ratio))))
    box_height = min(height, max(1, round(math.sqrt(area / ratio))))
    top = int((height - box_height + 1) * float(draws[2]))
    left = int((width - box_width + 1) * float(draws[3]))
    return Box(top, left, box_height, box_width)


def cut(image: np.ndarray, box: Box, out: np.ndarray) -> None:
    """Cut a part out and scale it, antialiased, to fill ``out``.

    Args:
        image: uint8[H, W, 3].
        box: inside the image.
        out: uint8[S, S, 3], in one piece.
    """
    part = image[box.top : box.top + box.height, box.left : box.left + box.width]
    if part.shape == out.shape:
        out[...] = part
        return
    # A copy in one piece with strides in the order of its axes takes PyTorch's fastest kernel.
    # NumPy makes it, since PyTorch would wake threads of its own for so large a copy.
    source, target = (
        torch.from_numpy(pixels[None].transpose(0, 3, 1, 2))
        for pixels in (np.ascontiguousarray(part), out)
    )
    # Called by itself to write straight into place: after a decoder has used the caches, each of
    # PyTorch's operations on the way there would take 10 to 20 microseconds of an image's 1,000.
    align_corners, scales = False, (None, None)
    _RESIZE(source, out.shape[:2], align_corners, *scales, out=target)
