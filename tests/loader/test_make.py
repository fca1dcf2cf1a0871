"""Squares made a group at a time are those made one by one, and errors keep their places."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thresher.errors import UserError
from thresher.loader import make
from thresher.loader.decode import DecodeError
from thresher.loader.make import Maker, has_reason

NUM = 70  # more than two groups


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


IMAGES = [noise(seed) for seed in range(NUM)]


def squares(num: int = NUM) -> np.ndarray:
    return np.full((num, 16, 16, 3), 99, dtype=np.uint8)


def read_or(bad: dict[int, Exception | bytes]) -> Callable[[int], bytes]:
    """Reads the images, but for some of them gives other bytes or raises."""

    def read(sample: int) -> bytes:
        found = bad.get(sample, IMAGES[sample])
        if isinstance(found, Exception):
            raise found
        return found

    return read


@pytest.fixture
def one_by_one() -> np.ndarray:
    maker, made = Maker(IMAGES.__getitem__, "random_crop"), squares()
    for sample, out in enumerate(made):
        maker(sample, draws()[sample], out)
    return made


def draws() -> np.ndarray:
    return np.random.default_rng(0).random((NUM, 4), dtype=np.float32)


@pytest.mark.parametrize("num_bytes", [1, 2000, 2**24])
def test_groups_change_no_pixel(
    num_bytes: int, one_by_one: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "_READ_BYTES", num_bytes)
    monkeypatch.setattr(make, "_DECODED_BYTES", num_bytes)
    maker, found = Maker(IMAGES.__getitem__, "random_crop"), squares()
    made = maker.many(range(NUM), draws(), list(found))
    assert made == [(20, 24)] * NUM
    assert np.array_equal(found, one_by_one)


def test_images_that_cannot_be_used_keep_their_places(one_by_one: np.ndarray) -> None:
    bad = {0: b"", 5: OSError("gone"), 40: b"no image", 69: OSError("gone, too")}
    found = squares()
    made = Maker(read_or(bad), "random_crop").many(range(NUM), draws(), list(found))
    wrong = {at: answer for at, answer in enumerate(made) if isinstance(answer, Exception)}
    assert {at: str(error) for at, error in wrong.items()} == {
        0: "empty file", 5: "gone", 40: "not an image", 69: "gone, too",
    }  # fmt: skip
    assert all(map(has_reason, wrong.values()))
    good = [at for at in range(NUM) if at not in bad]
    assert np.array_equal(found[good], one_by_one[good])
    assert (found[list(bad)] == 99).all()


@pytest.mark.parametrize("error", [UserError("expired"), ZeroDivisionError("a bug"), MemoryError()])
def test_an_error_that_is_no_image_s_reason_comes_last(error: Exception) -> None:
    read: list[int] = []

    def read_and_note(sample: int) -> bytes:
        read.append(sample)
        return read_or({3: OSError("gone"), 37: error})(sample)

    made = Maker(read_and_note, "whole").many(range(NUM), None, list(squares()))
    assert len(made) == 38
    assert made[-1] is error
    assert isinstance(made[3], OSError)
    assert made[36] == (20, 24)
    assert read == list(range(38))


def test_an_error_in_decoding_ends_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(data: bytes, *_: object) -> None:
        raise DecodeError("odd") if data == IMAGES[0] else ZeroDivisionError("a bug")

    monkeypatch.setattr(make, "decode_part", decode)
    first, last = Maker(IMAGES.__getitem__, "whole").many(range(NUM), None, list(squares()))
    assert isinstance(first, DecodeError)
    assert isinstance(last, ZeroDivisionError)


@pytest.mark.parametrize("num_bytes", [1, 2**24])
def test_an_error_in_framing_is_that_image_s_and_comes_last(
    num_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, done = make.cut, 0

    def cut_five(*words: Any) -> None:
        nonlocal done
        if done == 5:
            raise MemoryError
        done += 1
        cut(*words)

    monkeypatch.setattr(make, "cut", cut_five)
    monkeypatch.setattr(make, "_DECODED_BYTES", num_bytes)
    made = Maker(IMAGES.__getitem__, "whole").many(range(NUM), None, list(squares()))
    assert made[:5] == [(20, 24)] * 5
    assert len(made) == 6
    assert isinstance(made[5], MemoryError)


def test_it_stops_when_told_to(one_by_one: np.ndarray) -> None:
    told: list[int] = []

    def going(sample: int) -> bool:
        told.append(sample)
        return len(told) <= 40  # 32 reads of the first group and 8 of its images

    found = squares()
    made = Maker(IMAGES.__getitem__, "random_crop").many(range(NUM), draws(), list(found), going)
    assert made == [(20, 24)] * 8
    assert told[:41] == [*range(32), *range(9)]
    assert np.array_equal(found[:8], one_by_one[:8])
    assert (found[8:] == 99).all()
