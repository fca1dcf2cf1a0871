"""Trying again what may pass: a few times, with growing random pauses, within a total time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from thresher.sources.places import shown
from thresher.sources.remote.errors import Missing, NoAccess, Passing, RemoteError, translate

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server.

    Attributes:
        tries: of one read, the first included.
        first_pause: seconds; the pause before try n is random, up to ``first_pause * 2**n``.
        longest_pause: seconds.
        total_seconds: no new try begins after this long.
        read_seconds: for one answer.
        most_failures: reads that fail in a row, all their tries included, before the server as a
            whole is given up: a run must not mark a million samples because a network is down.
    """

    tries: int = 5
    first_pause: float = 0.25
    longest_pause: float = 8.0
    total_seconds: float = 120.0
    read_seconds: float = 30.0
    most_failures: int = 10


class Persistence:
    """Applies patience to the reads of one server. Thread-safe."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._lock = threading.Lock()
        self._failures = 0

    def call(self, attempt: Callable[[], T], url: str) -> T:
        """What ``attempt`` returns, tried again while its errors may pass.

        Raises:
            RemoteError: this file cannot be read, or not within the bounds.
            NoAccess: the server lets nothing be read.
        """
        bounds = self.patience
        end = time.monotonic() + bounds.total_seconds
        for number in range(1, bounds.tries + 1):
            try:
                value = attempt()
            except Exception as error:
                problem = translate(error, url)
                pause = random.uniform(0, min(bounds.longest_pause, bounds.first_pause * 2**number))
                if isinstance(problem, Passing) and problem.wait:
                    pause += problem.wait  # others wait as long: not all at the same moment
                last = number == bounds.tries or time.monotonic() + pause > end
                if not isinstance(problem, Passing) or last:
                    raise self._failed(problem, url, number) from None
                time.sleep(pause)
            else:
                self._failures = 0
                return value
        raise AssertionError("the last try returns or raises")

    def _failed(self, problem: Exception, url: str, tries: int) -> Exception:
        if not isinstance(problem, RemoteError) or isinstance(problem, Missing):
            return problem  # that one file is absent says nothing about the others
        if isinstance(problem, Passing):
            problem = Passing(f"{problem}, {tries} time{'s' * (tries > 1)}")
        with self._lock:
            self._failures += 1
            many = self._failures >= self.patience.most_failures
        if not many:
            return problem
        return NoAccess(
            f"{self._failures} reads in a row failed, the last of {shown(url)}: {problem}. "
            "Check the network and the rights, then start again; a run goes on where it was."
        )
