"""Whether threads decode or processes, and how many threads: decided by a trial.

Of a photograph's millisecond some 50 microseconds need the interpreter, so n threads are about n
times as fast as one. An image of 32 pixels needs little else: its threads would wait for each
other, and waking one another costs them more than the images do. Where a set of images lies in
between depends on its format, the disk and the machine.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass

from thresher.loader.make import Maker
from thresher.loader.pool import Pool
from thresher.loader.trial import Samples, Trial

MOST_THREADS = 16
"""That decode without processes. The interpreter runs one thread at a time, and of a photograph's
millisecond 4 to 5 % are Python: more than 16 threads would leave the training step too little of
it."""
FEWEST = 1000
"""Samples of a loader. Fewer are decoded before a trial has paid."""
_ALONE_SHARE, _SHARE = 1 / 1.2, 1 / 1.1
"""Of the best rate, what one thread or a few have to reach to be preferred: the training step needs
the interpreter, too."""
_CROWD_RATE = 4000.0
"""Images per second that one thread has to make to be preferred unseen: more than a crowd of
threads that wait for each other was seen to make of small PNG files."""
_FEWEST_PROCESSES = 4
_LONG_SECONDS = 60.0
"""Of decoding; processes take seconds, and some hundred megabytes each, to begin with."""


@dataclass(frozen=True)
class Choice:
    """How to decode.

    Attributes:
        threads: how many, where they decode themselves.
        processes: whether as many processes as threads may be had should do it instead.
    """

    threads: int
    processes: bool = False


def choose(pool: Pool, maker: Maker, samples: Samples, side: int, num: int) -> Choice:
    """Try and decide.

    Args:
        pool: of as many threads as may be had; nothing else may be going on in it.
        maker: of squares.
        samples: to try with.
        side: of the squares.
        num: how many samples there are to decode.
    """
    cores = _num_cores()
    rates: Mapping[int, float] = {}
    if pool.size > 1 and num >= FEWEST and samples:
        most = min(pool.size, MOST_THREADS)
        counts = [*itertools.takewhile(lambda count: count < most, (1, 2, 4, 8)), most]
        rates = Trial(pool, maker, samples, side, cores).rates(counts)
    return decide(rates, pool.size, num, cores)


def decide(rates: Mapping[int, float], threads: int, num: int, cores: int) -> Choice:
    """What follows from a trial.

    Args:
        rates: images per second by number of threads, see ``Trial.rates``.
        threads: how many may be had.
        num: how many samples there are to decode.
        cores: that may compute at the same time.
    """
    most = min(threads, MOST_THREADS)
    best = max(rates.values(), default=0.0)
    if set(rates) == {1}:
        few = 1 if best > _CROWD_RATE else most
    else:
        enough = {n: best * (_ALONE_SHARE if n == 1 else _SHARE) for n in rates}
        few = min((n for n, rate in rates.items() if rate >= enough[n]), default=most)
    if threads > most and few == most:  # well as they do, an interpreter feeds no more of them
        return Choice(few, num >= FEWEST)
    is_limited = len(rates) > 1 and best * 2 < rates[1] * min(threads, cores)
    is_long = num > best * _LONG_SECONDS
    return Choice(few, is_limited and is_long and threads >= _FEWEST_PROCESSES)


def _num_cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
