"""Perceptual hashes: numbers of 64 bits that are near each other for images that look alike.

The definitions are those of ImageHash, the field's usual choice, bit for bit; the tests compare
with it. They are written here as two small matrix products, because ImageHash brings SciPy and
PyWavelets, 150 MB, for one cosine transform, and takes five times as long.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

ICON_SIDE = 32
"""What the cosine transform works on; the icon is made once and serves both hashes."""
_SIDE = 8
_HALF = _SIDE * _SIDE // 2
_DIGITS = 6


def _lowest_frequencies() -> np.ndarray:
    """float64[8, 32], the first rows of the cosine transform (DCT-II, not normalised)."""
    rows, at = np.arange(_SIDE)[:, None], np.arange(ICON_SIDE)[None, :]
    return 2 * np.cos(np.pi * rows * (2 * at + 1) / (2 * ICON_SIDE))


_DCT = _lowest_frequencies()


def icon_of(grey: Image.Image) -> Image.Image:
    """The image in grey at the size that the hashes take."""
    return grey.resize((ICON_SIDE, ICON_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)


def phash(icon: Image.Image) -> int:
    """Which of the lowest frequencies are above their median."""
    # Rounded, so that zeros of a symmetric picture are no noise that other copies do not share.
    low = (_DCT @ np.asarray(icon) @ _DCT.T).ravel().round(_DIGITS)
    ordered = np.sort(low)
    return _to_int(low > (ordered[_HALF - 1] + ordered[_HALF]) / 2)


def dhash(icon: Image.Image) -> int:
    """Which pixels of a very small copy are brighter than their left neighbour."""
    small = np.asarray(icon.resize((_SIDE + 1, _SIDE), Image.Resampling.LANCZOS))
    return _to_int(small[:, 1:] > small[:, :-1])


def _to_int(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
