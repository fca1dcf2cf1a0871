"""From a sample's id to its square of pixels: the work of a decoding thread or process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from thresher.loader.canvas import (
    EVALUATION_MARGIN,
    MIN_CROP_AREA,
    Box,
    all_of_it,
    centre_box,
    cut,
    random_box,
)
from thresher.loader.decode import decode_part

Framing = Literal["whole", "centre", "random_crop"]


@dataclass(frozen=True)
class Maker:
    """Reads, decodes and frames one sample at a time.

    Args:
        read: bytes of a sample by manifest id.
        framing: how an image becomes a square.
        min_area: least share of an image that a random crop shows.
    """

    read: Callable[[int], bytes]
    framing: Framing
    min_area: float = MIN_CROP_AREA

    def __call__(self, sample: int, draws: np.ndarray | None, out: np.ndarray) -> tuple[int, int]:
        """Fill a square.

        Args:
            sample: manifest id.
            draws: float32[CROP_DRAWS] of a random crop; None: nothing is random, and of images
                that are to be cropped later all is kept.
            out: uint8[S, S, 3].

        Returns:
            Height and width of the upright image.

        Raises:
            DecodeError: the image cannot be used.
            Exception: whatever ``read`` raises.
        """
        seen = (0, 0)

        def choose(height: int, width: int) -> Box:
            nonlocal seen
            seen = height, width
            if draws is not None:
                return random_box(height, width, draws, self.min_area)
            if self.framing == "random_crop":
                return all_of_it(height, width)
            return centre_box(height, width, EVALUATION_MARGIN if self.framing == "centre" else 1.0)

        pixels, box = decode_part(self.read(sample), choose, out.shape[0])
        cut(pixels, box, out)
        return seen
