"""Bytes to pixels: uint8 RGB, upright, or a plain reason why not.

JPEG goes to libjpeg-turbo; whatever that cannot do, and every other format, goes to Pillow.
Transparent pixels are laid on white, 16-bit values are scaled to 8, and of an animation the first
frame counts.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from thresher.loader.canvas import Box
from thresher.loader.jpeg import ORIENTATION, Frame, decode_jpeg, read_frame
from thresher.sources.probe import MOST_PIXELS

# Pillow warns of damaged metadata and large pictures. Neither is a reason to refuse pixels that can
# be had; the filter is set once, since decoding runs in threads and filters belong to the process.
warnings.filterwarnings("ignore", module=r"PIL\.")


class DecodeError(ValueError):
    """An image that cannot be used; the message is the reason, without the file's name."""


def decode(data: bytes) -> Tensor:
    """Decode one image to uint8[3, H, W], channels last in memory.

    Raises:
        DecodeError: the bytes are no image, damaged, cut short, or too large.
    """
    pixels, _ = decode_part(data, lambda height, width: Box(0, 0, height, width), None)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def decode_part(
    data: bytes, choose: Callable[[int, int], Box], size: int | None
) -> tuple[np.ndarray, Box]:
    """Decode what is needed of an image to make a square of a part of it.

    Args:
        data: the file.
        choose: (height, width) of the upright image to the wanted part.
        size: side of the square. A JPEG whose part is at least twice as large is decoded at a
            fraction of its size, but never below the square's. None: in full.

    Returns:
        uint8[H, W, 3] and where the part lies in it. Below the part, rows may be missing.

    Raises:
        DecodeError: see ``decode``.
    """
    if not data:
        raise DecodeError("empty file")
    frame = read_frame(data)
    if frame is not None and frame.common and _ends_like_jpeg(data):
        _refuse_too_large(frame.width, frame.height)
        try:
            return _decode_jpeg_part(data, frame, choose, size)
        except ValueError:
            pass  # Pillow explains what is wrong
    return _decode_with_pillow(data, choose, size)


def _decode_jpeg_part(
    data: bytes, frame: Frame, choose: Callable[[int, int], Box], size: int | None
) -> tuple[np.ndarray, Box]:
    turned = frame.orientation >= 5
    height, width = (frame.width, frame.height) if turned else (frame.height, frame.width)
    box = choose(height, width)
    rows = box.top + box.height if frame.orientation == 1 else None
    shrink = _shrink(box, size)
    pixels = decode_jpeg(data, frame, rows, shrink)
    return pixels, box if shrink == 1 else box.scaled(1 / shrink, 1 / shrink)


def _shrink(box: Box, size: int | None) -> int:
    """By how much a JPEG's sides may be divided while its part is still no smaller than wanted."""
    ratio = min(box.height, box.width) // size if size else 1
    return 8 if ratio >= 8 else 4 if ratio >= 4 else 2 if ratio >= 2 else 1


def _refuse_too_large(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise DecodeError(f"too large: {width} x {height} pixels")


def _ends_like_jpeg(data: bytes) -> bool:
    """Whether the end marker is there; libjpeg would fill a cut image with grey and say nothing."""
    return b"\xff\xd9" in data[-64:]


def _decode_with_pillow(
    data: bytes, choose: Callable[[int, int], Box], size: int | None
) -> tuple[np.ndarray, Box]:
    with _as_reasons():
        image = Image.open(io.BytesIO(data))
    with image:
        _refuse_too_large(image.width, image.height)
        with _as_reasons():
            orientation = image.getexif().get(ORIENTATION, 1)
        turned = orientation in (5, 6, 7, 8)
        height, width = (image.width, image.height) if turned else (image.height, image.width)
        box = choose(height, width)
        with _as_reasons():
            if (shrink := _shrink(box, size)) > 1:
                # Which JPEG alone can do, and no further than this.
                image.draft(None, (image.width // shrink, image.height // shrink))
            image.load()
            # Pillow would copy the pixels even of what is upright; a small image feels that.
            upright = image if orientation == 1 else ImageOps.exif_transpose(image)
            pixels = np.array(_to_rgb(upright))
    if pixels.shape[:2] != (height, width):
        box = box.scaled(pixels.shape[0] / height, pixels.shape[1] / width)
    return pixels, box


@contextlib.contextmanager
def _as_reasons() -> Iterator[None]:
    """Turn what Pillow raises into reasons why an image cannot be used."""
    try:
        yield
    except UnidentifiedImageError:
        raise DecodeError("not an image") from None
    except Image.DecompressionBombError:
        raise DecodeError("too large: more pixels than a photograph has") from None
    except MemoryError:
        raise
    # Its decoders raise whatever their parsing stumbles over: RuntimeError for AVIF,
    # NotImplementedError for DDS, AttributeError and TypeError for metadata.
    except Exception as error:
        raise DecodeError(f"damaged: {error}") from error


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
    return image if image.mode == "RGB" else image.convert("RGB")
