"""A trial: short, silent, and not misled by other work on the machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.conftest import encode
from thresher.errors import UserError
from thresher.loader import trial
from thresher.loader.make import Maker
from thresher.loader.pool import Pool
from thresher.loader.trial import Samples, Trial

IMAGE = encode(Image.new("RGB", (8, 8), "red"), "JPEG")
SAMPLES: Samples = [(sample, None) for sample in range(6)]


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(4)
    yield made
    made.close()


def sleeper(seconds: float) -> Maker:
    def read(sample: int) -> bytes:
        time.sleep(seconds)
        return IMAGE

    return Maker(read, "whole")


def test_every_number_of_threads_is_timed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "seconds_displaced", lambda: 0.0)
    rates = Trial(pool, sleeper(0.0002), SAMPLES, 8, cores=4).rates([1, 2, 4])
    assert list(rates) == [1, 2, 4]
    assert rates[4] > 1.5 * rates[1] > 0


@pytest.mark.parametrize("seconds", [0.003, 0.5, 100])
def test_slow_samples_are_tried_once_or_a_few_times(pool: Pool, seconds: float) -> None:
    reads: list[int] = []
    stop = threading.Event()

    def read(sample: int) -> bytes:
        reads.append(sample)
        stop.wait(seconds)
        return IMAGE

    started = time.monotonic()
    assert Trial(pool, Maker(read, "whole"), SAMPLES, 8, cores=4).rates([1, 2, 4]) == {}
    assert time.monotonic() - started < 2
    assert len(reads) <= 8
    stop.set()


def test_samples_that_fail_do_not_count(pool: Pool) -> None:
    def read(sample: int) -> bytes:
        if sample == 2:
            raise UserError("The credentials have expired.")
        if sample == 3:
            raise KeyError(sample)
        time.sleep(0.0002)
        return b"no image" if sample == 4 else IMAGE

    rates = Trial(pool, Maker(read, "whole"), SAMPLES, 8, cores=4).rates([1, 2, 4])
    assert rates[1] > 0
    only = Trial(pool, Maker(read, "whole"), SAMPLES[2:5], 8, cores=4).rates([1, 2, 4])
    assert only == {}


def test_a_trial_that_others_disturbed_says_only_what_one_thread_makes(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of every thread's time others have the cores."""
    monkeypatch.setattr(trial, "seconds_displaced", lambda: time.perf_counter() / 2)
    rates = Trial(pool, sleeper(0.0002), SAMPLES, 8, cores=4).rates([1, 2, 4])
    assert list(rates) == [1]
    assert 0 < rates[1] < 2 / 0.0002


def test_random_crops_are_tried_with_their_numbers(pool: Pool) -> None:
    seen: list[object] = []

    class Recorder(Maker):
        def __call__(
            self, sample: int, draws: np.ndarray | None, out: np.ndarray
        ) -> tuple[int, int]:
            seen.append((sample, draws, out.shape))
            time.sleep(0.001)
            return super().__call__(sample, draws, out)

    draws = np.full(4, 0.5, np.float32)
    maker = Recorder(lambda sample: IMAGE, "random_crop")
    Trial(pool, maker, [(7, draws)], 8, cores=4).rates([1])
    assert seen[0] == (7, draws, (8, 8, 3))


def test_the_kernel_is_asked_how_long_a_thread_had_no_core() -> None:
    first = trial.seconds_displaced()
    assert 0 <= first <= trial.seconds_displaced() < 1e6
