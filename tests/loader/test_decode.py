from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from tests.conftest import encode
from thresher.loader.canvas import Box, cut
from thresher.loader.decode import DecodeError, decode, decode_part

RED_LEFT = np.zeros((6, 8, 3), dtype=np.uint8)
RED_LEFT[:, :4] = (255, 0, 0)
PICTURE = Image.fromarray(RED_LEFT)


def corner(data: bytes) -> list[int]:
    return decode(data)[:, 0, 0].tolist()


def near(actual: list[int], expected: tuple[int, ...], within: int = 6) -> bool:
    return all(abs(a - b) <= within for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_formats_give_upright_rgb(kind: str) -> None:
    image = decode(
        encode(PICTURE, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    )
    assert image.shape == (3, 6, 8)
    assert image.dtype == torch.uint8
    assert near(image[:, 0, 0].tolist(), (255, 0, 0))
    assert near(image[:, 0, 7].tolist(), (0, 0, 0))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_becomes_three_equal_channels(kind: str) -> None:
    image = decode(encode(Image.new("L", (5, 4), 77), kind))
    assert image.shape == (3, 4, 5)
    assert near(image.flatten(1).float().mean(1).int().tolist(), (77, 77, 77), 1)


def test_cmyk_jpeg() -> None:
    assert near(corner(encode(PICTURE.convert("CMYK"), "JPEG", quality=95)), (255, 0, 0), 12)


def test_palette_and_its_transparency_lies_on_white() -> None:
    assert near(corner(encode(PICTURE.convert("P"), "PNG")), (255, 0, 0), 0)
    clear = Image.new("P", (4, 4), 0)
    clear.putpalette([10, 20, 30] * 256)
    assert corner(encode(clear, "PNG", transparency=0)) == [255, 255, 255]


def test_alpha_lies_on_white() -> None:
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert near(corner(encode(half, "PNG")), (127, 127, 127), 1)
    grey_alpha = Image.new("LA", (4, 4), (0, 0))
    assert corner(encode(grey_alpha, "PNG")) == [255, 255, 255]


def test_sixteen_bit_is_scaled_to_eight() -> None:
    values = np.full((4, 4), 65535, dtype=np.uint16)
    values[0, 0] = 32896  # 128 * 257
    image = decode(encode(Image.fromarray(values), "PNG"))
    assert image[:, 0, 0].tolist() == [128] * 3
    assert image[:, 1, 1].tolist() == [255] * 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    exact = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    image = decode(encode(PICTURE, kind, exif=exif, **exact))
    assert image.shape == (3, 8, 6)
    assert near(image[:, 0, 5].tolist(), (255, 0, 0), 12)
    assert near(image[:, 7, 0].tolist(), (0, 0, 0), 12)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", PICTURE.size, "blue")]
    data = encode(PICTURE, kind, save_all=True, append_images=frames)
    assert near(corner(data), (255, 0, 0), 8)


def test_truncated_jpeg_is_refused_at_every_length() -> None:
    rng = np.random.default_rng(0)
    data = encode(Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)), "JPEG")
    for length in range(2, len(data) - 1, 97):
        with pytest.raises(DecodeError, match=r"damaged|not an image"):
            decode(data[:length])


def test_truncated_png_is_refused() -> None:
    rng = np.random.default_rng(0)
    data = encode(Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)), "PNG")
    with pytest.raises(DecodeError, match="damaged"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>404 not found</html>", "not an image"),
        (b"\xff\xd8\xff\xe0 no jpeg at all \xff\xd9", "not an image|damaged"),
        (b"\x80\x04\x95pickle", "not an image"),
    ],
)
def test_other_bytes_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode(data)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_bombs_are_refused_before_their_pixels_are_made() -> None:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"")
    with pytest.raises(DecodeError, match="too large"):
        decode(bomb)
    jpeg = bytearray(encode(PICTURE, "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    with pytest.raises(DecodeError, match="too large: 65000 x 65000"):
        decode(bytes(jpeg))


def test_what_pillow_raises_is_a_reason_whatever_it_is() -> None:
    avif = bytearray(encode(PICTURE, "AVIF"))
    at = avif.index(b"mdat") + 4
    avif[at:] = bytes(len(avif) - at)
    with pytest.raises(DecodeError, match="damaged: "):  # RuntimeError
        decode(bytes(avif))
    # A description that is a fraction; Pillow meets it when it turns the image.
    entries = struct.pack("<HHIIHHII", 0x010E, 5, 1, 38, 0x0112, 3, 1, 6)
    block = b"II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<III", 0, 1, 3)
    with pytest.raises(DecodeError, match="damaged: "):  # AttributeError
        decode(encode(PICTURE, "PNG", exif=b"Exif\0\0" + block))


@pytest.mark.parametrize("orientation", [1, 6])
def test_pillow_decodes_large_jpegs_at_a_fraction_of_their_size(orientation: int) -> None:
    """Those that libjpeg-turbo's wrapper does not take: four colours."""
    large = Image.effect_noise((1203, 802), 30).filter(ImageFilter.GaussianBlur(12)).convert("CMYK")
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(large, "JPEG", exif=exif)
    upright = (1203, 802) if orientation == 6 else (802, 1203)
    wanted = Box(100, 50, 500, 600)
    whole, box = decode_part(data, lambda height, width: wanted, None)
    assert whole.shape[:2] == upright
    assert box == wanted
    seen = []

    def choose(height: int, width: int) -> Box:
        seen.append((height, width))
        return wanted

    part, box = decode_part(data, choose, 224)
    assert seen == [upright]
    assert part.shape[:2] == (-(-upright[0] // 2), -(-upright[1] // 2))
    assert box == Box(50, 25, 250, 300)
    squares = np.zeros((2, 224, 224, 3), np.uint8)
    cut(whole, wanted, squares[0])
    cut(part, box, squares[1])
    assert np.abs(squares[0].astype(int) - squares[1].astype(int)).mean() < 2
