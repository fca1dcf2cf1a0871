"""What one image's bytes say: size, format, state, and the hashes that copies are found by.

The pixels are decoded, so that a damaged image is found, but a JPEG only at a fraction of its
size and in grey: that is where a scan gets its speed from.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import xxhash
from PIL import Image, ImageOps, UnidentifiedImageError

from thresher.scan.hashes import dhash, icon_of, phash
from thresher.sources.manifest import OK
from thresher.sources.probe import MOST_PIXELS
from thresher.sources.request import printable
from thresher.sources.sniff import not_an_image

VERSION = 1  # raise it when a column changes its meaning: older results are then not reused
DRAFT_SIDE = 32  # a JPEG is decoded at the smallest eighth that is at least this large
BOMB = "too many pixels: it may be a decompression bomb"
TRUNCATED = "truncated image"
PICKLE = "refused: a pickle, which runs code when loaded"

# Only formats that a collection of photographs holds. Pillow knows more, and some of them start
# other programs (EPS runs Ghostscript) for whatever name the file has.
_WANTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF")
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
_MOMENTS = np.arange(256, dtype=np.float64) ** np.arange(3)[:, None]
"""Grey levels to the power of 0, 1 and 2."""

Image.init()
_FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)


class Look(NamedTuple):
    """One row of what a scan knows; None where it could not be found out.

    Attributes:
        state: ``ok``, or the reason why the image cannot be used.
        width: as the header says, before any orientation in its EXIF data.
        bytes: length of the encoded image.
        hash: xxh3 of the bytes, 64 bits.
        phash: 64 bits; by the signs of the lowest frequencies, 0..64 bits differ.
        dhash: 64 bits; by the signs of neighbours' differences. Confirms ``phash``.
        mean: of the grey pixels, 0..255.
        std: likewise; almost 0 for a blank image.
    """

    state: str
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    format: str | None = None
    mode: str | None = None
    animated: bool | None = None
    hash: int | None = None
    phash: int | None = None
    dhash: int | None = None
    mean: float | None = None
    std: float | None = None


def look(data: bytes) -> Look:
    """Look at one encoded image; whatever is wrong with it becomes its state."""
    seen = Look("empty file", bytes=len(data), hash=xxhash.xxh3_64_intdigest(data))
    if not data:
        return seen
    if is_pickle(data):
        return seen._replace(state=PICKLE)
    try:
        image = Image.open(BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        return seen._replace(state=not_an_image(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return seen._replace(state=BOMB)
    except Exception as error:  # Pillow's readers raise whatever their parsing stumbles over
        return seen._replace(state=_damage(error))
    with image:
        seen = seen._replace(
            width=image.width, height=image.height, format=image.format, mode=image.mode
        )
        if image.width * image.height > MOST_PIXELS:
            return seen._replace(state=BOMB)
        try:
            animated = image.format in _ANIMATED and bool(getattr(image, "is_animated", False))
            grey = _grey(image)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return seen._replace(state=BOMB)
        except Exception as error:
            return seen._replace(state=_damage(error))
    return seen._replace(state=OK, animated=animated, **_measure(grey))


def is_pickle(head: bytes) -> bool:
    """Whether bytes are a pickle, or a NumPy file with one inside."""
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    return head[:6] == b"\x93NUMPY" and b"'|O" in head[:256]


def _grey(image: Image.Image) -> Image.Image:
    """Decode; upright, see-through parts on white, a large image perhaps smaller."""
    image.draft("L", (DRAFT_SIDE, DRAFT_SIDE))
    image.load()
    if "exif" in image.info or image.format == "TIFF":
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # more than 8 bits: stretch what is there
        values = np.asarray(image, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        scale = 255 / (high - low) if high > low else 0.0
        return Image.fromarray(((values - low) * scale).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        ground = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(ground, with_alpha).convert("L")
    return image if image.mode == "L" else image.convert("L")


def _measure(grey: Image.Image) -> dict[str, Any]:
    # From the histogram, which Pillow counts in C: no copy of a large image as floats.
    total, levels, squares = (_MOMENTS @ grey.histogram()).tolist()
    mean = levels / total
    icon = icon_of(grey)
    return {
        "mean": mean,
        "std": max(squares / total - mean * mean, 0.0) ** 0.5,
        "phash": phash(icon),
        "dhash": dhash(icon),
    }


def _damage(error: Exception) -> str:
    text = printable(str(error).strip() or type(error).__name__)[:200]
    return TRUNCATED if "truncated" in text.lower() else f"damaged image: {text}"
