"""One image: the bytes that are packed for it.

Scaling is torchvision's antialiased bicubic on the pixels that training would decode, twice as
fast as Pillow's Lanczos filter; encoding is Pillow's, which lets the subsampling be chosen.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from thresher.loader.decode import DecodeError, decode
from thresher.pack.settings import PackSettings
from thresher.sources.probe import MOST_PIXELS

_ORIENTATION = 0x0112
_MOST_JPEG_SIDE = 65_500
_DRAFT_FROM = 4  # times the target; the decoder then halves, quarters ... for much less work
_DRAFT_TO = 2  # times the target: scaling down by two more keeps the antialiasing good


@dataclass(frozen=True)
class Packed:
    """The JPEG file to store; ``copied``: it is the file that was read."""

    data: bytes
    copied: bool


def repack(data: bytes, settings: PackSettings) -> Packed:
    """Turn an encoded image of any format into an upright RGB JPEG of at most the wanted side.

    A JPEG that is small, upright and in RGB or grey already stays as it is, byte for byte, once
    decoding it has shown that it is whole.

    Raises:
        DecodeError: it cannot be used; the message is the reason.
    """
    header = _look(data)
    if header is not None and header.plain:
        if header.short_side <= settings.short_side:
            decode(data)
            return Packed(data, copied=True)
        if header.short_side >= _DRAFT_FROM * settings.short_side:
            pixels = _decode_smaller(data, settings.short_side * _DRAFT_TO)
            return Packed(_encode(_scale(pixels, settings.short_side), settings), copied=False)
    return Packed(_encode(_scale(decode(data), settings.short_side), settings), copied=False)


@dataclass(frozen=True)
class _Header:
    short_side: int
    plain: bool


def _look(data: bytes) -> _Header | None:
    """What the header of a JPEG says; None for other formats and for what cannot be read."""
    if data[:2] != b"\xff\xd8":
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            orientation = image.getexif().get(_ORIENTATION, 1) if "exif" in image.info else 1
            plain = image.format == "JPEG" and image.mode in ("RGB", "L") and orientation == 1
            plain = plain and image.width * image.height <= MOST_PIXELS
            return _Header(min(image.size), plain)
    except Exception:  # whatever Pillow's parsers stumble over; decoding will give the reason
        return None


def _decode_smaller(data: bytes, side: int) -> Tensor:
    """Decode a large JPEG at a fraction of its size, at least ``side`` pixels."""
    if b"\xff\xd9" not in data[-64:]:
        return decode(data)  # cut short: let the reason be found where all others are
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (side, side))
            rgb = ImageOps.exif_transpose(image).convert("RGB")
    except Exception:  # damaged or too large, for a reason that ``decode`` words
        return decode(data)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def _scale(image: Tensor, side: int) -> Tensor:
    height, width = image.shape[1:]
    short = min(height, width)
    if short <= side:
        return image
    size = [max(side, round(length * side / short)) for length in (height, width)]
    scaled: Tensor = tvf.resize(
        image, size, interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    return scaled


def _encode(image: Tensor, settings: PackSettings) -> bytes:
    if max(image.shape[1:]) > _MOST_JPEG_SIDE:
        raise DecodeError(f"longer than JPEG allows: {max(image.shape[1:])} pixels")
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer, format="JPEG", quality=settings.quality, subsampling=settings.subsampling
    )
    return buffer.getvalue()
