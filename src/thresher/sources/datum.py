"""Caffe's ``Datum`` records: protocol buffers with an image, encoded or raw, and its label.

The few rules of the wire format that a flat message needs are here; see 'Encoding' in the protocol
buffers documentation, and ``message Datum`` in Caffe's ``caffe.proto``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CHANNELS, _HEIGHT, _WIDTH, _DATA, _LABEL, _FLOATS, _ENCODED = range(1, 8)
_KINDS = {
    _CHANNELS: {_VARINT},
    _HEIGHT: {_VARINT},
    _WIDTH: {_VARINT},
    _DATA: {_BYTES},
    _LABEL: {_VARINT},
    _FLOATS: {_FIXED32, _BYTES},  # one by one as Caffe writes them, or packed
    _ENCODED: {_VARINT},
}


class NotADatum(ValueError):  # noqa: N818 - it is what the record is
    """The bytes are no ``Datum``, or one that holds no image."""


@dataclass
class Datum:
    """One record. ``data`` is a view of the record, not a copy."""

    channels: int = 0
    height: int = 0
    width: int = 0
    data: memoryview = memoryview(b"")
    label: int | None = None
    floats: bytes = b""
    encoded: bool = False


def parse_datum(record: memoryview) -> Datum:
    """Parse a record; of long contents only the place is looked at.

    Raises:
        NotADatum: it is something else.
    """
    datum = Datum()
    floats: list[bytes] = []
    position = 0
    try:
        while position < len(record):
            tag, position = _varint(record, position)
            field, kind = tag >> 3, tag & 7
            if field in _KINDS and kind not in _KINDS[field]:
                raise NotADatum("not a Datum record")
            number, content, position = _value(record, position, kind)
            match field:
                case 1:
                    datum.channels = number
                case 2:
                    datum.height = number
                case 3:
                    datum.width = number
                case 4:
                    datum.data = content
                case 5:
                    datum.label = number - (1 << 64) if number >> 63 else number
                case 6:
                    floats.append(bytes(content))
                case 7:
                    datum.encoded = bool(number)
                case 0:
                    raise NotADatum("not a Datum record")
    except IndexError:
        raise NotADatum("not a Datum record, or cut short") from None
    datum.floats = b"".join(floats)
    if not len(datum.data) and not datum.floats:
        raise NotADatum("not a Datum record: it has no data")
    return datum


def image_of(datum: Datum) -> bytes:
    """The image as an encoded file: as it was stored, or raw pixels as PPM or PGM.

    Raises:
        NotADatum: the pixels are not those of an image.
    """
    data = datum.data
    if datum.encoded:
        return bytes(data)
    channels, height, width = datum.channels, datum.height, datum.width
    num = channels * height * width
    if channels not in (1, 3) or num <= 0:
        if bytes(data[:2]) in (b"\xff\xd8", b"\x89P"):
            return bytes(data)  # encoded, by a tool that does not say so
        raise NotADatum(f"{channels} x {height} x {width} values are no image")
    if len(data):
        if len(data) != num:
            raise NotADatum(f"{len(data)} bytes are no {channels} x {height} x {width} pixels")
        values = np.frombuffer(data, dtype=np.uint8)
    else:
        values = _from_floats(datum.floats, num)
    pixels = values.reshape(channels, height, width)
    if channels == 3:
        pixels = pixels[::-1]  # Caffe's order is that of OpenCV: blue, green, red
    header = f"P{6 if channels == 3 else 5} {width} {height} 255\n"
    return header.encode() + pixels.transpose(1, 2, 0).tobytes()


def _from_floats(raw: bytes, num: int) -> np.ndarray:
    floats = np.frombuffer(raw[: len(raw) // 4 * 4], dtype="<f4")
    if len(floats) != num:
        raise NotADatum(f"{len(floats)} values where the size says {num}")
    if not (np.isfinite(floats).all() and floats.min() >= 0 and floats.max() <= 255):
        raise NotADatum("its values are not between 0 and 255, so they are features, not pixels")
    if 0 < floats.max() <= 1:
        floats = floats * 255
    pixels: np.ndarray = np.rint(floats).astype(np.uint8)
    return pixels


def _varint(record: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = record[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, position
        shift += 7
        if shift >= 70:
            raise NotADatum("not a Datum record")


def _value(record: memoryview, position: int, kind: int) -> tuple[int, memoryview, int]:
    """The number or the content of a field, and where the next begins."""
    if kind == _VARINT:
        number, position = _varint(record, position)
        return number, record[:0], position
    if kind == _BYTES:
        length, position = _varint(record, position)
    elif kind in (_FIXED32, _FIXED64):
        length = 4 if kind == _FIXED32 else 8
    else:
        raise NotADatum("not a Datum record")
    end = position + length
    if end > len(record):
        raise NotADatum("not a Datum record, or cut short")
    number = 0
    if kind == _FIXED64:
        (number,) = struct.unpack("<Q", record[position:end])
    return number, record[position:end], end
