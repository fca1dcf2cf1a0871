"""JPEG bytes to pixels by libjpeg-turbo, decoding no more of an image than is asked for.

Most of a JPEG's decoding is undoing its entropy code, which runs from the top to the bottom. So
rows below the wanted part cost nothing if the decoder is told of a lower image, and an image much
larger than what is made of it is decoded at a half, a quarter or an eighth of its size at once.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np
import simplejpeg

_SIZELESS = {0x01, *range(0xD0, 0xD8)}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
ORIENTATION = 0x0112
"""EXIF's number of the tag that says how an image is to be turned."""
_ROWS_OF_CONTEXT = 8
"""Rows below a part that its last rows' colours are interpolated from, and some more."""


class Frame(NamedTuple):
    """What a JPEG's header says.

    Attributes:
        height, width: as stored, pixels.
        orientation: 1 to 8, how the stored image is to be turned (EXIF).
        at: position of the height in the bytes.
        common: whether it is of 8 bits, in grey or three colours.
    """

    height: int
    width: int
    orientation: int
    at: int
    common: bool


def read_frame(data: bytes) -> Frame | None:
    """Look the header up; None if the bytes are no JPEG with a size in its header."""
    if data[:2] != b"\xff\xd8":
        return None
    at, orientation = 2, 1
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _SIZELESS:
            at += 2
            continue
        length = data[at + 2] << 8 | data[at + 3]
        if marker in _FRAMES:
            precision, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            common = precision == 8 and components in (1, 3) and marker <= 0xC2
            return Frame(height, width, orientation, at + 5, common) if height and width else None
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _orientation(data[at + 10 : at + 2 + length])
        at += 2 + length
    return None


def decode_jpeg(data: bytes, frame: Frame, rows: int | None = None, shrink: int = 1) -> np.ndarray:
    """Decode to uint8[H, W, 3], upright.

    Args:
        data: the file.
        frame: its header.
        rows: how many rows from the top are needed, of the stored image; fewer than all only for
            images that are stored upright. More may be returned.
        shrink: 1, 2, 4 or 8: sides are divided by it, rounded up.

    Raises:
        ValueError: the decoder refuses the bytes.
    """
    height = frame.height
    encoded: bytes | bytearray = data
    if rows is not None and rows + _ROWS_OF_CONTEXT < height:
        assert frame.orientation == 1
        height = rows + _ROWS_OF_CONTEXT * shrink
        if height < frame.height:
            encoded = bytearray(data)
            encoded[frame.at : frame.at + 2] = height.to_bytes(2, "big")
    pixels = simplejpeg.decode_jpeg(
        encoded,
        # libjpeg warns of bytes that it did not need, and of damage that Pillow would pass too.
        strict=False,
        min_height=math.ceil(min(height, frame.height) / shrink) if shrink > 1 else 0,
        min_width=math.ceil(frame.width / shrink) if shrink > 1 else 0,
        min_factor=shrink,
    )
    return _upright(pixels, frame.orientation)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    right = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::down, ::right])


def _orientation(exif: bytes) -> int:
    """The orientation in a TIFF block's first directory; 1 where there is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # the block is cut short, which says nothing of the pixels
    return 1
