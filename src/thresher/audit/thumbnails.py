"""Small copies of images as data URIs, so that the report needs no other file."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageOps

MAX_SIDE = 128
# Up to this side an image is kept as it is, loss-free, and the browser enlarges it crisply.
TINY_SIDE = 64
_QUALITY = 80


@dataclass(frozen=True)
class Thumbnail:
    """A picture for the report, or the reason why there is none."""

    uri: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""

    @property
    def tiny(self) -> bool:
        """Whether the picture is to be enlarged pixel by pixel."""
        return max(self.width, self.height) <= TINY_SIDE


def thumbnail(index: int, read: Callable[[int], bytes] | None) -> Thumbnail:
    """Read the image of sample ``index`` and make it small."""
    if read is None:
        return Thumbnail(reason="images were not at hand")
    # Whatever is wrong with one image, the report of the others is still wanted: the reason is
    # printed in its place.
    try:
        data = read(index)
    except Exception as error:
        return Thumbnail(reason=f"not found: {_reason(error)}")
    try:
        return shrink(data)
    except Exception as error:
        return Thumbnail(reason=f"not readable: {_reason(error)}")


def shrink(data: bytes) -> Thumbnail:
    """Decode, turn upright, and encode again in at most ``MAX_SIDE`` pixels a side."""
    with warnings.catch_warnings():
        # Pillow warns about odd metadata and very large images; here both are harmless.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as opened:
            opened.draft("RGB", (MAX_SIDE * 2, MAX_SIDE * 2))  # lets a JPEG decode small at once
            image = _plain(opened)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(image.size) <= TINY_SIDE:
        image.save(buffer, format="PNG", optimize=True)
        kind = "png"
    else:
        image.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
        kind = "jpeg"
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/{kind};base64,{encoded}", image.width, image.height)


def _plain(image: Image.Image) -> Image.Image:
    """The first frame, upright, as RGB or grey; see-through parts on white."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):  # 16-bit and float: stretch what is there to 0..255
        low, high = upright.convert("F").getextrema()
        assert isinstance(low, float)
        assert isinstance(high, float)
        scale = 255.0 / (high - low) if high > low else 0.0
        return upright.convert("F").point(lambda v: v * scale - low * scale).convert("L")
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return upright.copy() if upright.mode in ("L", "RGB") else upright.convert("RGB")


def _reason(error: Exception) -> str:
    # Pillow names the buffer it was given by its address; say something that helps.
    if "cannot identify image file" in str(error):
        return "no known image format"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text[:160]
