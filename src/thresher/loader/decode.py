"""Bytes to pixels: uint8[3, H, W] in RGB, upright, or a plain reason why not.

JPEG goes to libjpeg-turbo through torchvision, the fastest decoder measured; whatever that cannot
do, and every other format, goes to Pillow. Transparent pixels are laid on white, 16-bit values are
scaled to 8, and of an animation the first frame counts.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from thresher.sources.probe import MOST_PIXELS

# torchvision 0.29 announces that its decoders will move to TorchCodec; pyproject.toml bounds it.
warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities")
# Pillow warns of damaged metadata and large pictures. Neither is a reason to refuse pixels that can
# be had; the filter is set once, since decoding runs in threads and filters belong to the process.
warnings.filterwarnings("ignore", module=r"PIL\.")


class DecodeError(ValueError):
    """An image that cannot be used; the message is the reason, without the file's name."""


def decode(data: bytes) -> Tensor:
    """Decode one image.

    Raises:
        DecodeError: the bytes are no image, damaged, cut short, or too large.
    """
    if not data:
        raise DecodeError("empty file")
    if data[:2] == b"\xff\xd8" and _ends_like_jpeg(data):
        _refuse_bomb(data)
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        try:
            image: Tensor = decode_jpeg(
                encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True
            )
            return image
        except RuntimeError:
            pass  # CMYK and damaged files: Pillow reads the one and explains the other
    return _decode_with_pillow(data)


def _refuse_bomb(data: bytes) -> None:
    """Look the size up in a JPEG's frame header; torchvision's decoder has no bound of its own."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            _refuse_too_large(width, height)
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _refuse_too_large(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise DecodeError(f"too large: {width} x {height} pixels")


def _ends_like_jpeg(data: bytes) -> bool:
    """Whether the end marker is there; libjpeg would fill a cut image with grey and say nothing."""
    return b"\xff\xd9" in data[-64:]


def _decode_with_pillow(data: bytes) -> Tensor:
    try:
        with Image.open(io.BytesIO(data)) as image:
            _refuse_too_large(image.width, image.height)
            image.load()
            rgb = _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise DecodeError("not an image") from None
    except Image.DecompressionBombError:
        raise DecodeError("too large: more pixels than a photograph has") from None
    # What Pillow's decoders raise for damaged files, by its own test images.
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
        IndexError,
    ) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(f"damaged: {error}") from None
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        # 16-bit files come as I;16 or I; dividing by 257 maps 65535 to 255.
        eight_bit = np.clip(values / 257 if values.max(initial=0) > 255 else values, 0, 255)
        return Image.fromarray(eight_bit.round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        canvas = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(canvas, with_alpha).convert("RGB")
    return image.convert("RGB")
