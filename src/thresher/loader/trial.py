"""What threads make of some images, one of them, two, and so on: a quarter of a second at a start.

Other work on the machine would mislead: where it has all cores, two threads do no more than one
and do not get into each other's way either. The kernel tells how long a thread has waited for a
core, so that such a trial is known not to count.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from thresher.loader.make import Maker
from thresher.loader.pool import Pool

MOST_SAMPLES = 64
"""To try with: few, and the same for every number of threads, since images differ."""
_TRIAL_SECONDS = 0.25
_TURN_SECONDS = 0.02
_FIRST_SAMPLES = 8
_FIRST_SECONDS = 0.2
_STALLED_SECONDS = 0.5
_INTERPRETED_SECONDS = 250e-6
"""More than any image keeps the interpreter busy. With n threads, images that take n times as long
do not wait for it, but for the decoder, a disk or a server."""
_MOST_DISPLACED = 0.15
"""Share of the time that threads may have been without a core though there are enough of them."""

_SCHEDULED = Path("/proc/thread-self/schedstat")

Samples = Sequence[tuple[int, np.ndarray | None]]
"""Manifest ids and, of random crops, their random numbers."""


class _Turn(NamedTuple):
    """What one thread did in one turn.

    Attributes:
        made: images.
        seconds: from the turn's beginning to this thread's end.
        displaced: seconds of them in which it had no core.
    """

    made: int
    seconds: float
    displaced: float


class Trial:
    """Decodes a few samples over and over and throws them away.

    A sample that cannot be decoded does not count and is not marked: its batch will meet it.

    Args:
        pool: of threads.
        maker: of squares.
        samples: to decode.
        side: of the squares.
        cores: that may compute at the same time.
    """

    def __init__(self, pool: Pool, maker: Maker, samples: Samples, side: int, cores: int) -> None:
        self._pool = pool
        self._maker = maker
        self._samples = itertools.cycle(samples)
        self._side = side
        self._cores = cores

    def rates(self, counts: Sequence[int], seconds: float = _TRIAL_SECONDS) -> dict[int, float]:
        """Images per second by number of threads.

        Args:
            counts: the numbers to try, 1 first.
            seconds: how long to try, about.

        Returns:
            Empty if the interpreter does not matter, since a sample takes so long, or if none can
            be decoded. Of one thread alone, if others had the cores: what it makes while it has
            one.
        """
        times: list[float] = []
        if not self._have_done([partial(self._look, times)], _FIRST_SECONDS) or not times:
            return {}
        if statistics.median(times) >= max(counts) * _INTERPRETED_SECONDS:
            return {}
        turns: dict[int, list[_Turn]] = {count: [] for count in counts}
        until = time.perf_counter() + seconds
        while not turns[1] or time.perf_counter() < until:
            for count in counts:
                take = partial(self._take_turn, time.perf_counter(), turns[count])
                if not self._have_done([take] * count, _STALLED_SECONDS):
                    return {}
        with_cores = [turn for count in counts if count <= self._cores for turn in turns[count]]
        if statistics.fmean(turn.displaced / turn.seconds for turn in with_cores) > _MOST_DISPLACED:
            each = [turn.made / max(1e-3, turn.seconds - turn.displaced) for turn in turns[1]]
            return {1: statistics.fmean(each)}
        return {
            n: n * statistics.fmean(turn.made / turn.seconds for turn in turns[n]) for n in counts
        }

    def _have_done(self, tasks: Sequence[Callable[[], None]], seconds: float) -> bool:
        """Whether tasks are done within so much time."""
        work = self._pool.start(tasks)
        are_done = self._pool.is_done_within(work, seconds)
        work.cancel()
        return are_done

    def _look(self, times: list[float]) -> None:
        """Time single samples; the first also waits for what is loaded at its first use."""
        out = self._square()
        began = time.perf_counter()
        for index in range(_FIRST_SAMPLES):
            started = _own_clock()
            if self._make(out):
                times.append(_own_clock() - started)
            spent = time.perf_counter() - began
            if spent > _FIRST_SECONDS or (index > 1 and spent > _TURN_SECONDS):
                return

    def _take_turn(self, began: float, turns: list[_Turn]) -> None:
        """Make squares until the turn ends; who comes late to it has made less."""
        out = self._square()
        made, now, displaced = 0, time.perf_counter(), seconds_displaced()
        while now < began + _TURN_SECONDS:
            made += self._make(out)
            now = time.perf_counter()
        turns.append(_Turn(made, now - began, seconds_displaced() - displaced))

    def _square(self) -> np.ndarray:
        return np.empty((self._side, self._side, 3), dtype=np.uint8)

    def _make(self, out: np.ndarray) -> bool:
        sample, draws = next(self._samples)
        try:
            self._maker(sample, draws, out)
        except Exception:  # whatever it is, it will be met again
            return False
        return True


def seconds_displaced() -> float:
    """How long this thread has been ready to go on while others had the cores; 0 if unknown."""
    try:
        return int(_SCHEDULED.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):  # not Linux, or one that does not tell
        return 0.0


def _own_clock() -> float:
    """Seconds, but for those in which others had the cores."""
    return time.perf_counter() - seconds_displaced()
