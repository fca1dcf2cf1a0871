"""Decoding a part of a JPEG gives the pixels that decoding all of it gives there."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from tests.conftest import encode
from thresher.loader.canvas import Box
from thresher.loader.decode import decode, decode_part
from thresher.loader.jpeg import read_frame


def photograph(height: int = 150, width: int = 201, seed: int = 0) -> Image.Image:
    """Random colours, blurred a little: every block differs and every edge shows."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("restart", [0, 3])
def test_rows_below_the_part_do_not_change_it(
    subsampling: int, progressive: bool, restart: int, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"restart_marker_blocks": restart} if restart else {}
    data = encode(photograph(), "JPEG", subsampling=subsampling, progressive=progressive, **options)
    whole = decode(data).permute(1, 2, 0).numpy()
    assert whole.shape == (150, 201, 3)
    for bottom in (1, 15, 16, 17, 63, 95, 130, 141, 142, 150):
        pixels, box = decode_part(data, lambda h, w, b=bottom: Box(0, 0, b, w), 4096)
        assert box.height == bottom
        assert len(pixels) == min(150, bottom + 8) or len(pixels) == 150
        np.testing.assert_array_equal(pixels[:bottom], whole[:bottom])
    assert capfd.readouterr().err == ""


def test_grey_is_trimmed_too() -> None:
    data = encode(photograph().convert("L"), "JPEG")
    whole = decode(data).permute(1, 2, 0).numpy()
    pixels, _ = decode_part(data, lambda h, w: Box(0, 0, 40, w), 4096)
    assert len(pixels) == 48
    np.testing.assert_array_equal(pixels[:40], whole[:40])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photograph(), "JPEG", exif=exif, subsampling=0)
    image = Image.open(io.BytesIO(data))
    expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_allclose(decode(data).permute(1, 2, 0).numpy(), expected, atol=2)
    frame = read_frame(data)
    assert frame is not None
    assert frame.orientation == orientation


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("size", "shrink"), [(40, 2), (20, 4), (10, 8), (60, 1)])
def test_a_large_source_is_decoded_at_a_fraction_of_its_size(
    size: int, shrink: int, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photograph(160, 240), "JPEG", exif=exif, subsampling=0, quality=95)
    whole = decode(data).permute(1, 2, 0).numpy()
    wanted = Box(17, 33, 96, 88)
    pixels, box = decode_part(data, lambda h, w: wanted, size)
    assert box == wanted.scaled(1 / shrink, 1 / shrink)
    assert min(box.height, box.width) >= size
    assert pixels.shape[1] == -(-whole.shape[1] // shrink)
    rows, columns = len(pixels) // 2 * shrink, pixels.shape[1] // 2 * shrink
    blocks = whole[:rows, :columns].reshape(rows // shrink, shrink, columns // shrink, shrink, 3)
    mean = blocks.mean(axis=(1, 3))
    assert np.abs(pixels[: len(mean), : mean.shape[1]] - mean).mean() < 3


@pytest.mark.parametrize("damage", ["count", "order", "short", "far"])
def test_a_damaged_exif_block_is_passed_over(damage: str) -> None:
    block = {
        "count": b"II*\0" + struct.pack("<IH", 8, 60_000),
        "order": b"XX*\0" + struct.pack("<I", 8),
        "short": b"MM\0*",
        "far": b"MM\0*" + struct.pack(">I", 2**31),
    }[damage]
    data = encode(photograph(), "JPEG", exif=b"Exif\0\0" + block)
    frame = read_frame(data)
    assert frame is not None
    assert (frame.orientation, frame.height, frame.width) == (1, 150, 201)
    assert decode(data).shape == (3, 150, 201)


def test_no_header_is_no_frame() -> None:
    data = encode(photograph(), "JPEG")
    for bytes_ in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG" + data, data[:100], b"\xff" * 99):
        assert read_frame(bytes_) is None
