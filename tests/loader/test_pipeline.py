from __future__ import annotations

import operator
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import encode
from thresher.errors import UserError
from thresher.loader.choice import Choice
from thresher.loader.make import Maker
from thresher.loader.pipeline import Loader
from thresher.loader.pool import Pool
from thresher.loader.trial import Samples

COLOURS = [(i * 20, 255 - i * 20, i * 7 % 256) for i in range(10)]
IMAGES = [encode(Image.new("RGB", (12, 8), colour), "PNG") for colour in COLOURS]
PLAN = np.array([[3, 1, 4], [9, 0, 2], [5, 8, -1], [6, 7, -1]])


def make(read: Callable[[int], bytes] = IMAGES.__getitem__, **options: object) -> Loader:
    ids = np.arange(10)
    settings = {"size": 8, "framing": "whole", "cache": "auto", **options}
    return Loader(read, ids, ids % 3, **settings)


def test_batches_hold_the_planned_samples_in_order() -> None:
    loader = make()
    batches = list(loader.batches(0, PLAN))
    loader.close()
    assert [batch.ids[batch.valid].tolist() for batch in batches] == [
        [3, 1, 4], [9, 0, 2], [5, 8], [6, 7]
    ]  # fmt: skip
    for batch in batches:
        assert batch.canvas.shape == (3, 3, 8, 8)
        for place in np.flatnonzero(batch.valid):
            assert tuple(batch.canvas[place, :, 4, 4].tolist()) == COLOURS[batch.ids[place]]
            assert batch.labels[place] == batch.ids[place] % 3


@pytest.mark.parametrize("cache", ["none", "host"])
@pytest.mark.parametrize("framing", ["whole", "random_crop"])
def test_empty_places_repeat_valid_samples_and_do_not_count(framing: str, cache: str) -> None:
    loader = make(framing=framing, cache=cache)
    for epoch in range(2):  # images are kept from the second on
        batch = list(loader.batches(epoch, PLAN))[2]
        assert batch.valid.tolist() == [True, True, False]
        assert batch.ids.tolist() == [5, 8, 5]
        assert batch.labels.tolist() == [2, 2, 2]
        assert batch.positions.tolist() == [5, 8, 5]
        torch.testing.assert_close(batch.canvas[2], batch.canvas[0])
    loader.close()


def test_a_batch_of_empty_places_is_black() -> None:
    loader = make()
    for _ in range(2):
        *_, batch = loader.batches(0, np.array([[0, 1, 2], [-1, -1, -1]]))
        assert not batch.valid.any()
        assert not batch.canvas.any()
    loader.close()


@pytest.mark.parametrize("framing", ["whole", "centre", "random_crop"])
@pytest.mark.parametrize("epoch", [0, 3])
def test_same_batches_for_any_threads_and_with_and_without_cache(framing: str, epoch: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (10, 20, 30, 3), dtype=np.uint8)
    encoded = [encode(Image.fromarray(pixels), "PNG") for pixels in noise]

    def pixels(**options: object) -> torch.Tensor:
        loader = make(encoded.__getitem__, framing=framing, seed=5, **options)
        for warm_up in range(2):
            list(loader.batches(warm_up, PLAN))
        out = torch.stack([batch.canvas.clone() for batch in loader.batches(epoch, PLAN)])
        loader.close()
        return out

    expected = {cache: pixels(threads=1, cache=cache) for cache in ("none", "host")}
    if framing != "random_crop":
        torch.testing.assert_close(expected["none"], expected["host"])
    for cache, threads in (("none", 4), ("host", 2), ("host", 4)):
        torch.testing.assert_close(pixels(threads=threads, cache=cache), expected[cache])


@pytest.mark.parametrize("cache", ["none", "host"])
def test_random_crops_change_with_the_epoch(cache: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (10, 20, 30, 3), dtype=np.uint8)
    loader = make(
        [encode(Image.fromarray(p), "PNG") for p in noise].__getitem__,
        framing="random_crop",
        cache=cache,
    )
    first, second = (next(iter(loader.batches(epoch, PLAN))).canvas for epoch in (0, 1))
    loader.close()
    assert (first != second).any()


def test_starting_in_the_middle_serves_the_same_rest() -> None:
    loader = make()
    rest = [batch.ids.tolist() for batch in loader.batches(0, PLAN, start=2)]
    assert rest == [batch.ids.tolist() for batch in loader.batches(0, PLAN)][2:]
    loader.close()


@pytest.mark.parametrize("cache", ["host", "none"])
def test_unreadable_images_are_marked_counted_and_never_replaced(cache: str) -> None:
    def read(index: int) -> bytes:
        if index == 1:
            return b"not an image"
        if index == 4:
            raise OSError("file vanished")
        return IMAGES[index]

    loader = make(read, cache=cache)
    for _ in range(3):
        batches = list(loader.batches(0, PLAN))
        assert batches[0].valid.tolist() == [True, False, False]
        assert batches[0].ids.tolist() == [3, 3, 3]
        assert all(batch.valid[:2].all() for batch in batches[1:])
    loader.close()
    assert loader.unreadable == {1: "not an image", 4: "file vanished"}


@pytest.mark.parametrize("framing", ["whole", "random_crop"])
def test_cached_images_are_read_once(framing: str) -> None:
    reads: list[int] = []

    def read(index: int) -> bytes:
        reads.append(index)
        return IMAGES[index]

    loader = make(read, framing=framing)
    for epoch in range(3):
        list(loader.batches(epoch, PLAN))
    loader.close()
    assert sorted(reads) == list(range(10))


def test_an_error_of_ours_reaches_the_consumer() -> None:
    def read(index: int) -> bytes:
        raise KeyError(index)

    loader = make(read)
    with pytest.raises(KeyError) as caught:
        list(loader.batches(0, PLAN))
    loader.close()
    assert caught.value.__notes__ == ["This happened at the image with the id 3."]


@pytest.mark.parametrize("cache", ["host", "none"])
def test_lost_access_ends_the_run_at_once_and_marks_no_image(cache: str) -> None:
    """What ``Reader.read`` raises when credentials have expired."""

    def read(index: int) -> bytes:
        if index == 2:
            raise UserError("The credentials have expired.")
        return IMAGES[index]

    loader = make(read, cache=cache, threads=3, place="{}.png in a.tar".format)
    started = time.perf_counter()
    with pytest.raises(UserError) as caught:
        list(loader.batches(0, PLAN))
    loader.close()
    assert time.perf_counter() - started < 10
    assert str(caught.value) == (
        "The credentials have expired. This happened at the image with the id 2 (2.png in a.tar)."
    )
    assert loader.unreadable == {}


def test_an_error_beside_a_stalled_server_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first image of a batch never comes; one of the next batch tells what is the matter."""
    answer = threading.Event()

    def read(index: int) -> bytes:
        if index == 3:
            answer.wait(100)
        if index == 9:
            raise UserError("The credentials have expired.")
        return IMAGES[index]

    loader = make(read, threads=2, place="{}.png in a.tar".format)
    started = time.perf_counter()
    with pytest.raises(UserError, match=r"expired\. This happened at the image with the id 9"):
        list(loader.batches(0, PLAN))
    loader.close()
    assert time.perf_counter() - started < 10
    answer.set()


STALLED = """
import threading
import numpy as np
from thresher.loader.choice import Choice
from thresher.loader.make import Maker
from thresher.loader.pipeline import Loader
from thresher.loader.pool import Pool
from thresher.loader.trial import Samples
def read(index):
    if index == 0:
        threading.Event().wait()
    raise RuntimeError("the server is gone")
loader = Loader(read, np.arange(8), np.zeros(8), size=8, framing="whole", threads=3, cache="none")
try:
    list(loader.batches(0, np.arange(8).reshape(2, 4)))
finally:
    loader.close()
"""


def test_a_stalled_read_does_not_keep_the_process() -> None:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STALLED], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("This happened at the image with the id 1.")
    assert "the server is gone" in done.stderr
    assert time.perf_counter() - started < 30  # most of it to import PyTorch on a busy machine


@pytest.mark.parametrize("cache", ["none", "host"])
@pytest.mark.parametrize("framing", ["whole", "random_crop"])
def test_a_trial_changes_no_batch_and_marks_nothing(
    framing: str, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the trial meets and chooses, batches and reasons are those of the user's word."""
    monkeypatch.setattr("thresher.loader.choice.FEWEST", 1)
    monkeypatch.setattr("thresher.loader.trial._TRIAL_SECONDS", 0.05)
    noise = np.random.default_rng(0).integers(0, 255, (10, 20, 30, 3), dtype=np.uint8)
    images = [encode(Image.fromarray(pixels), "PNG") for pixels in noise]
    images[1] = images[1][:-100]

    def read(index: int) -> bytes:
        if index == 4:
            raise OSError("file vanished")
        return images[index]

    served = []
    for decoder in ("threads", "auto"):
        loader = make(read, decoder=decoder, threads=4, framing=framing, cache=cache)
        batches = [batch for epoch in range(2) for batch in loader.batches(epoch, PLAN)]
        loader.close()
        served.append([(b.canvas.tolist(), b.valid.tolist(), b.ids.tolist()) for b in batches])
        assert sorted(loader.unreadable) == [1, 4]
        assert loader.unreadable[4] == "file vanished"
    assert served[0] == served[1]


def test_an_error_of_ours_met_in_a_trial_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thresher.loader.choice.FEWEST", 1)

    def read(index: int) -> bytes:
        raise UserError("The credentials have expired.")

    loader = make(read, threads=4)
    with pytest.raises(UserError, match=r"expired\. This happened at the image with the id 3"):
        list(loader.batches(0, PLAN))
    loader.close()
    assert loader.unreadable == {}


@pytest.mark.parametrize("decoder", ["threads", "processes"])
def test_what_the_user_says_is_not_tried(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("thresher.loader.pipeline.choose", never)
    loader = make(partial(operator.getitem, IMAGES), decoder=decoder, threads=3)
    assert len(list(loader.batches(0, PLAN))) == 4
    assert loader._pool.size == 3
    loader.close()


def test_what_is_kept_already_needs_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def choose(pool: Pool, maker: Maker, samples: Samples, side: int, num: int) -> Choice:
        tried.extend(sample for sample, _ in samples)
        return Choice(1)

    monkeypatch.setattr("thresher.loader.pipeline.choose", choose)
    loader = make(threads=3, cache="host")
    for epoch in range(2):
        list(loader.batches(epoch, PLAN))
    assert tried == [3, 1, 4]  # those of the first batch, once
    assert loader._pool.size == 1
    loader.close()


def test_leaving_early_and_closing_leaves_no_thread() -> None:
    before = threading.active_count()
    loader = make(threads=4)
    next(iter(loader.batches(0, PLAN)))
    loader.close()
    assert threading.active_count() == before
