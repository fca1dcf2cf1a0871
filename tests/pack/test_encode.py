"""One image of each kind that a crawl brings."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.pack.helpers import ORIENTATION, encoded, photo, turned
from thresher.loader.decode import DecodeError
from thresher.pack.encode import repack
from thresher.pack.settings import PackSettings, Subsampling

SETTINGS = PackSettings(short_side=64)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def difference(packed: bytes, expected: Image.Image) -> float:
    """Mean difference of the pixels, 0 to 255."""
    image = opened(packed)
    assert image.mode == "RGB"
    assert image.size == expected.size
    wanted = np.asarray(expected.convert("RGB"), dtype=float)
    return float(np.abs(np.asarray(image, dtype=float) - wanted).mean())


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(64, 64), (300, 64), (5, 9)])
def test_small_jpegs_are_copied(mode: str, size: tuple[int, int]) -> None:
    data = encoded(photo(1, size).convert(mode), progressive=True, comment="kept")
    result = repack(data, SETTINGS)
    assert result.copied
    assert result.data == data


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (65, 65), (3000, 66), (1200, 800)])
def test_larger_ones_are_scaled(size: tuple[int, int]) -> None:
    image = photo(2, size)
    result = repack(encoded(image, quality=95), SETTINGS)
    short = min(size)
    expected = image.resize(
        (round(size[0] * 64 / short), round(size[1] * 64 / short)), Image.Resampling.LANCZOS
    )
    assert not result.copied
    assert difference(result.data, expected) < 3.5


def test_scaled_decoding_is_close_to_scaling_in_full() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    image = opened(encoded(Image.fromarray(noise).resize((2048, 2048)), quality=95))
    result = repack(encoded(image, quality=95), SETTINGS)  # through the draft mode
    full = repack(encoded(image, "PNG", compress_level=1), SETTINGS)
    assert difference(result.data, opened(full.data)) < 4


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("size", [(60, 40), (120, 80), (900, 600)])
def test_orientation_is_applied_and_metadata_dropped(
    orientation: int, size: tuple[int, int]
) -> None:
    data = turned(photo(3, size), orientation)
    result = repack(data, SETTINGS)
    tagged = opened(data)
    assert tagged.getexif()[ORIENTATION] == orientation
    upright = ImageOps.exif_transpose(tagged)
    if min(size) > 64:
        upright = upright.resize(
            tuple(round(side * 64 / min(size)) for side in upright.size), Image.Resampling.LANCZOS
        )
    assert difference(result.data, upright) < 2.5
    assert not opened(result.data).getexif()
    assert b"secret place" not in result.data


def test_cmyk_alpha_16_bit_palette_and_animation() -> None:
    image = photo(4, (60, 40))
    cmyk = encoded(image.convert("CMYK"), quality=95)
    assert not repack(cmyk, SETTINGS).copied
    assert difference(repack(cmyk, SETTINGS).data, opened(cmyk).convert("RGB")) < 3

    clear = image.convert("RGBA")
    clear.putalpha(0)
    white = Image.new("RGB", (60, 40), "white")
    assert difference(repack(encoded(clear, "PNG"), SETTINGS).data, white) < 1

    ramp = np.linspace(0, 65535, 60 * 40).reshape(40, 60).astype(np.uint16)
    grey = Image.fromarray((ramp // 257).astype(np.uint8))
    assert difference(repack(encoded(Image.fromarray(ramp), "PNG"), SETTINGS).data, grey) < 2

    palette = image.quantize(32)
    assert difference(repack(encoded(palette, "PNG"), SETTINGS).data, palette) < 10

    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "blue")]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert difference(repack(moving, SETTINGS).data, frames[0]) < 3
    webp = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    assert difference(repack(webp, SETTINGS).data, frames[0]) < 4


@pytest.mark.parametrize(
    ("subsampling", "factors"),
    [("4:4:4", (1, 1)), ("4:2:2", (2, 1)), ("4:2:0", (2, 2))],
)
def test_quality_and_subsampling(subsampling: Subsampling, factors: tuple[int, int]) -> None:
    data = encoded(photo(5, (200, 100)), quality=98)
    low = repack(data, PackSettings(short_side=64, quality=30, subsampling=subsampling))
    high = repack(data, PackSettings(short_side=64, quality=95, subsampling=subsampling))
    assert len(low.data) < len(high.data)
    first = opened(low.data).layer[0]  # of the brightness: name, horizontal, vertical, table
    assert tuple(first[1:3]) == factors


def test_damaged_images_are_refused() -> None:
    whole = encoded(photo(6, (60, 40)), quality=95)
    large = encoded(photo(6, (600, 400)), quality=95)
    for data in (b"", b"<html>", whole[: len(whole) // 2], large[: len(large) // 2]):
        with pytest.raises(DecodeError):
            repack(data, SETTINGS)


def test_longer_than_jpeg_allows() -> None:
    strip = encoded(Image.new("RGB", (70_000, 3)), "PNG")
    with pytest.raises(DecodeError, match="longer than JPEG allows: 70000"):
        repack(strip, SETTINGS)


def test_a_bomb_is_refused() -> None:
    with pytest.raises(DecodeError, match="too large"):
        repack(encoded(Image.new("1", (12_000, 12_000)), "PNG"), SETTINGS)
    bomb = encoded(Image.new("L", (12_000, 12_000)), quality=1)
    with pytest.raises(DecodeError, match="too large"):
        repack(bomb, SETTINGS)
