"""What one image's bytes say."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from thresher.scan.look import BOMB, PICKLE, TRUNCATED, look

from .conftest import bomb, cut, encode, jpeg, picture


def bits(one: int | None, other: int | None) -> int:
    assert one is not None
    assert other is not None
    return (one ^ other).bit_count()


def test_a_good_photograph() -> None:
    seen = look(jpeg(1))
    assert (seen.state, seen.width, seen.height) == ("ok", 240, 180)
    assert (seen.format, seen.mode, seen.animated) == ("JPEG", "RGB", False)
    assert seen.bytes == len(jpeg(1))
    assert seen.std is not None
    assert seen.std > 10


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF"])
def test_the_same_picture_in_each_format_has_a_near_hash(kind: str) -> None:
    first, second = look(encode(picture(3))), look(encode(picture(3), kind))
    assert (second.state, second.format) == ("ok", kind)
    assert bits(first.phash, second.phash) <= 4
    assert bits(first.dhash, second.dhash) <= 4


@pytest.mark.parametrize(
    "changed",
    [
        encode(picture(5), quality=25),
        encode(picture(5).resize((96, 72))),
        encode(picture(5).resize((720, 540))),
        encode(picture(5).convert("L")),
        encode(cut(picture(5))),
    ],
)
def test_changed_copies_are_near_and_others_are_not(changed: bytes) -> None:
    original = look(jpeg(5))
    assert bits(original.phash, look(changed).phash) <= 8
    assert bits(original.dhash, look(changed).dhash) <= 10
    assert bits(look(jpeg(6)).phash, look(changed).phash) > 14


def test_orientation_is_undone_before_hashing() -> None:
    turned = picture(8).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    seen, upright = look(encode(turned, exif=exif)), look(encode(picture(8)))
    assert bits(seen.phash, upright.phash) <= 4


@pytest.mark.parametrize(
    ("data", "state"),
    [
        (b"", "empty file"),
        (b"<html>", "not an image: a web page, such as servers send for images that are gone"),
        (jpeg(1)[:1500], TRUNCATED),
        (encode(picture(1), "PNG")[:3000], TRUNCATED),
        (bomb(), BOMB),
        (bomb(10_000, 10_000), BOMB),
        (pickle.dumps({"a": 1}), PICKLE),
    ],
)
def test_what_cannot_be_used_has_a_reason(data: bytes, state: str) -> None:
    seen = look(data)
    assert seen.state == state
    assert seen.phash is None
    assert (seen.bytes, seen.hash is None) == (len(data), False)


def test_numpy_files_with_objects_are_never_loaded() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert look(buffer.getvalue()).state == PICKLE


def test_formats_that_start_other_programs_are_not_opened() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    assert look(postscript).state == "a PostScript file, which is not read here"


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGBA", (90, 60), (0, 0, 0, 0)),
        Image.new("P", (90, 60)),
        Image.new("CMYK", (90, 60), (0, 90, 90, 0)),
        Image.fromarray(np.full((60, 90), 40_000, dtype=np.uint16)),
        Image.new("1", (90, 60)),
        Image.new("LA", (1, 1)),
    ],
    ids=lambda image: image.mode,
)
def test_every_mode_is_looked_at(image: Image.Image) -> None:
    seen = look(encode(image, "TIFF" if image.mode == "CMYK" else "PNG"))
    assert (seen.state, seen.mode) == ("ok", image.mode)
    assert seen.std is not None
    assert seen.std < 3


def test_see_through_pictures_differ_by_what_they_show() -> None:
    def logo(seed: int) -> bytes:
        image = Image.new("RGBA", (240, 180))
        image.putalpha(picture(seed).convert("L"))  # all black, the picture is in the alpha
        return encode(image, "PNG")

    assert bits(look(logo(1)).phash, look(logo(2)).phash) > 14


def test_animations_are_told() -> None:
    data = encode(picture(1), "GIF", save_all=True, append_images=[picture(2)])
    assert look(data).animated is True
