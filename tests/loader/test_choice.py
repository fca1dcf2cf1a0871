"""How to decode: what follows from figures, and what real threads lead to."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from PIL import Image

from tests.conftest import encode
from thresher.loader import choice
from thresher.loader.choice import Choice, choose, decide
from thresher.loader.make import Maker
from thresher.loader.pool import Pool

IMAGE = encode(Image.new("RGB", (8, 8), "red"), "JPEG")
MANY = 10**9


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({1: 1000, 2: 1980, 4: 3900, 8: 7700, 16: 14000}, 16),  # photographs
        ({1: 33000, 2: 10300, 4: 9800, 8: 9500, 16: 9300}, 1),  # 32 pixels
        ({1: 7900, 2: 9400, 4: 9000, 8: 5000, 16: 3300}, 1),  # a little is not enough
        ({1: 2000, 2: 3900, 4: 6000, 8: 5500, 16: 4000}, 4),  # in between
        ({1: 1000, 2: 1900}, 2),
        ({1: 1000, 2: 1150}, 1),
        ({1: 1000, 2: 1900, 4: 3700, 8: 7000, 16: 8000}, 16),
        ({1: 1000, 2: 1900, 4: 3700, 8: 7000, 16: 7500}, 8),
        ({}, 16),  # the interpreter does not matter
        ({1: 30000}, 1),  # others had the cores
        ({1: 800}, 16),
    ],
)
def test_as_few_threads_as_do_as_well(rates: dict[int, float], expected: int) -> None:
    threads = max(rates) if len(rates) > 1 else 16
    assert decide(rates, threads, 50_000, cores=16) == Choice(expected)


CONVOY = {1: 8000.0, 2: 4500.0, 4: 4000.0, 8: 3500.0, 16: 3000.0}


def test_processes_where_the_interpreter_is_the_limit_and_the_work_is_long() -> None:
    assert decide(CONVOY, 16, 8000 * 61, cores=16) == Choice(1, processes=True)
    assert not decide(CONVOY, 16, 8000 * 59, cores=16).processes
    assert not decide(CONVOY, 16, MANY, cores=2).processes  # no cores for them
    assert not decide({1: 8000, 3: 5000}, 3, MANY, cores=16).processes
    assert not decide({1: 8000}, 16, MANY, cores=16).processes  # not known
    scaling = {n: 1000.0 * n for n in (1, 2, 4, 8)}
    assert not decide(scaling, 8, MANY, cores=16).processes


def test_more_threads_than_an_interpreter_feeds() -> None:
    scaling = {n: 1000.0 * n for n in (1, 2, 4, 8, 16)}
    assert decide(scaling, 32, 50_000, cores=32) == Choice(16, processes=True)
    assert decide({}, 32, 50_000, cores=32) == Choice(16, processes=True)
    assert decide({}, 32, 999, cores=32) == Choice(16)  # done before processes have started
    assert decide(CONVOY, 32, 50_000, cores=32) == Choice(1)
    assert decide(CONVOY, 32, MANY, cores=32) == Choice(1, processes=True)


def waits(sample: int) -> bytes:
    """As a decoder or a server does: the interpreter is free meanwhile."""
    time.sleep(0.0004)
    return IMAGE


def computes(sample: int) -> bytes:
    """As Python does: nobody else gets the interpreter."""
    sum(range(2000))
    return IMAGE


@pytest.mark.parametrize(("read", "expected"), [(waits, 4), (computes, 1)])
def test_threads_are_told_apart_from_the_interpreter(
    read: Callable[[int], bytes], expected: int
) -> None:
    pool = Pool(4)
    try:
        chosen = choose(pool, Maker(read, "whole"), [(n, None) for n in range(9)], 8, 50_000)
    finally:
        pool.close()
    assert chosen == Choice(expected)


def test_few_samples_are_not_tried() -> None:
    def never(sample: int) -> bytes:
        raise AssertionError

    pool = Pool(4)
    assert choose(pool, Maker(never, "whole"), [(0, None)], 8, choice.FEWEST - 1) == Choice(4)
    assert choose(pool, Maker(never, "whole"), [], 8, MANY) == Choice(4)
    assert choose(Pool(1), Maker(never, "whole"), [(0, None)], 8, MANY) == Choice(1)
    assert choose(Pool(20), Maker(never, "whole"), [], 8, 10) == Choice(16)
