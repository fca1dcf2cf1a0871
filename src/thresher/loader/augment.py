"""Canvases to views, batched on the device: uint8[B, 3, S, S] to normalised float[B, 3, S, S].

Every parameter is drawn per sample by the caller (``draws.uniforms``), so a view is a pure
function of its image and its row of draws, and the shapes never change.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from thresher.types import View

NUM_DRAWS = 12
"""Uniform numbers per sample and view."""


@dataclass(frozen=True)
class Augmentation:
    """Strength of the views.

    Args:
        shift: largest shift of the weak view, in pixels; 0 where crops were already random.
        flip: mirror half of the images.
        mean, std: of the normalisation, per channel, for values in 0..1.
        rotate: largest rotation of the strong view, in degrees.
        scale: largest change of size of the strong view, as a logarithm.
        shear: largest shear of the strong view.
        translate: largest shift of the strong view, as a share of the side.
        contrast: largest change of contrast and saturation, as a logarithm.
        brightness: largest change of brightness, in standard deviations.
        hole: side of the strong view's square hole, as a share of the side.
    """

    shift: int
    flip: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rotate: float = 15.0
    scale: float = 0.2
    shear: float = 0.15
    translate: float = 0.08
    contrast: float = 0.35
    brightness: float = 0.2
    hole: float = 0.3

    def __call__(self, canvas: Tensor, view: View, draws: Tensor) -> Tensor:
        """Make one view of a batch.

        Args:
            canvas: uint8[B, 3, S, S].
            view: which.
            draws: float[B, NUM_DRAWS] in [0, 1).
        """
        # What only moves pixels goes first, while they are bytes: a quarter of the traffic.
        flip = draws[:, 0] < 0.5 if self.flip and view is not View.PLAIN else None
        if view is View.WEAK and self.shift > 0:
            canvas = shift(canvas, self.shift, draws[:, 1:3], flip)
        elif flip is not None:
            canvas = torch.where(flip[:, None, None, None], canvas.flip(3), canvas)
        if view is not View.STRONG:
            return self._normalised(canvas)
        images = self._distorted(canvas.float(), draws[:, 1:6])
        images = self._recoloured(images, draws[:, 6:9])
        return self._punched(self._normalised(images), draws[:, 9:11])

    def _normalised(self, images: Tensor) -> Tensor:
        """Values in 0..255 as float32 with the mean 0 and the deviation 1, channels last."""
        num, channels, height, width = images.shape
        # Whole images are rows of numbers, each with its channel's factor: the fewest passes over
        # memory, and none that stops after every pixel's three.
        offset, factor = _per_value(self.mean, self.std, height * width, images.device)
        values = images.permute(0, 2, 3, 1).reshape(num, -1).float()
        normalised = torch.addcmul(offset, values, factor)
        return normalised.view(num, height, width, channels).permute(0, 3, 1, 2)

    def _distorted(self, images: Tensor, draws: Tensor) -> Tensor:
        """Rotate, scale and shift by one affine map with reflected borders."""
        turn, grow, slant, right, down = (2 * draws[:, i] - 1 for i in range(5))
        angle = turn * (self.rotate * torch.pi / 180)
        zoom = torch.exp(grow * self.scale)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        reach = 2 * self.translate  # grid coordinates run from -1 to 1
        theta = torch.stack(
            [
                torch.stack([cos, slant * self.shear * zoom - sin, right * reach], dim=1),
                torch.stack([sin, cos, down * reach], dim=1),
            ],
            dim=1,
        )
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    def _recoloured(self, images: Tensor, draws: Tensor) -> Tensor:
        contrast, saturation = (
            torch.exp(self.contrast * (2 * draws[:, i] - 1))[:, None, None, None] for i in range(2)
        )
        most = 255 * self.brightness * sum(self.std) / len(self.std)
        brightness = (most * (2 * draws[:, 2] - 1))[:, None, None, None]
        grey = images.mean(dim=1, keepdim=True)
        return torch.lerp(grey, images, saturation).mul_(contrast).add_(brightness)

    def _punched(self, images: Tensor, draws: Tensor) -> Tensor:
        """Fill a square with the mean colour, 0 by now (DeVries and Taylor 2017)."""
        size = images.shape[-1]
        half = self.hole / 2
        at = (torch.arange(size, device=images.device) + 0.5) / size
        rows = (at[None, :] - draws[:, 0:1]).abs() < half
        columns = (at[None, :] - draws[:, 1:2]).abs() < half
        hole = (rows[:, :, None] & columns[:, None, :])[:, None]
        return images.masked_fill_(hole, 0.0)


@functools.lru_cache
def _per_value(
    mean: tuple[float, ...], std: tuple[float, ...], pixels: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What is added to each value of an image, and what it is multiplied by before, float32[3 S S].

    Sent to the device once: each sending would make the host wait.
    """
    means, stds = torch.tensor(mean), torch.tensor(std)
    return (-means / stds).repeat(pixels).to(device), (1 / (255 * stds)).repeat(pixels).to(device)


def shift(images: Tensor, reach: int, draws: Tensor, flip: Tensor | None = None) -> Tensor:
    """Move each image by whole pixels, at most ``reach`` each way, with reflected borders.

    Args:
        images: [B, 3, S, S] of any type.
        reach: pixels.
        draws: float[B, 2] in [0, 1), down and right.
        flip: bool[B], which images to mirror first.
    """
    num, channels, size, _ = images.shape
    # What says where each pixel comes from takes more memory than the pixels do.
    dtype = torch.int32 if num * size**2 < 2**31 else torch.int64
    offset = (draws * (2 * reach + 1)).to(dtype) - reach
    at = torch.arange(size, dtype=dtype, device=images.device)[None, :]
    rows, columns = (_reflect(at + offset[:, i : i + 1], size) for i in range(2))
    if flip is not None:
        columns = torch.where(flip[:, None], size - 1 - columns, columns)
    first = torch.arange(num, dtype=dtype, device=images.device)[:, None] * size
    source = (((first + rows) * size)[:, :, None] + columns[:, None, :]).view(-1)
    # Whole pixels at a time, which lie together.
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, source)
    return pixels.view(num, size, size, channels).permute(0, 3, 1, 2)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Reflect positions outside 0..size-1 back inside, without repeating the border."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
