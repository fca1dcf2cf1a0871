"""Notices a rank that stalls or is gone, and names it.

Every rank counts what it does and writes into a store, every few seconds, how many of the things
it has done that all ranks do alike (steps, sums). A rank that has done nothing for the time-out
looks at all counts twice: who does not even write is stopped or dead; else who has counted least
holds up the rest. The first rank hosts the store: if that does not answer, it is the first that is
stopped.
A collective that waits for a lost peer cannot be called off, so the process ends itself.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from thresher.dist.errors import PEERS_LOST
from thresher.dist.store import Store, StoreSilentError, within

_LONGEST_BEAT = 5.0
_LEAST_ANSWER = 1.0
"""Seconds in which a store that lives answers, also on crowded cores."""
_PARENT = os.getppid()
"""Taken down when the process starts, which is long before there is anything to watch."""

T = TypeVar("T")


class Watch:
    """Watches over all ranks while the run lasts.

    Args:
        connect: a fresh connection to the store, for this thread alone.
        rank, world_size: this process's place.
        timeout: seconds without any progress.
        end: called with a sentence (or None, to keep silent) when a peer has been found lost.
        orphaned: called once when the process that started this one is gone.
        deputy: speaks where the first rank cannot, and with it perhaps all ranks of its machine.
    """

    def __init__(
        self,
        connect: Callable[[], Store],
        rank: int,
        world_size: int,
        timeout: float,
        end: Callable[[str | None], None] | None = None,
        orphaned: Callable[[], None] | None = None,
        deputy: bool | None = None,
    ) -> None:
        self._store = connect()
        self._rank = rank
        self._world_size = world_size
        self._timeout = timeout
        self._end = end or _exit
        self._orphaned = orphaned
        self._deputy = rank == 1 if deputy is None else deputy
        self._pause = min(_LONGEST_BEAT, timeout / 4)
        self._count = 0
        self._activity = 0
        self._beats = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._beat()
        self._thread.start()

    def tick(self, *, alike: bool = True) -> None:
        """Something was done; ``alike`` if every rank does it equally often."""
        self._activity += 1
        self._count += alike

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        seen, since = self._activity, time.monotonic()
        while not self._stop.wait(self._pause):
            if self._orphaned is not None and os.getppid() != _PARENT:
                self._orphaned()
                self._orphaned = None
            now = time.monotonic()
            if self._activity != seen:
                seen, since = self._activity, now
            try:
                self._beat()
                if now - since > self._timeout:
                    self._look()
                    return
            except (RuntimeError, dist.DistError) as error:
                if self._stop.is_set():
                    return
                silent = isinstance(error, StoreSilentError)
                what = self._sentence("0", "says nothing any more") if silent else "rank 0 is gone"
                self._end(what if self._deputy else None)
                return

    def _beat(self) -> None:
        self._beats += 1
        beat = f"{self._beats} {self._count}"
        self._ask(lambda: self._store.set(f"beat/{self._rank}", beat))

    def _ask(self, question: Callable[[], T]) -> T:
        return within(max(_LEAST_ANSWER, 2 * self._pause), question)

    def _look(self) -> None:
        """Find out who holds up the rest, and end this process."""
        before = self._all_beats()
        for _ in range(3):
            if self._stop.wait(self._pause):
                return
            self._beat()  # others look as well
        after = self._all_beats()
        silent = [rank for rank in after if rank != self._rank and after[rank] == before[rank]]
        least = min(count for _, count in after.values())
        slowest = [rank for rank, (_, count) in after.items() if count == least]
        lost = silent or slowest
        lively = [rank for rank in after if rank not in lost]
        names = ", ".join(str(rank) for rank in lost[:8])
        what = "says nothing any more" if silent else "makes no progress"
        speaks = not lively or self._rank == min(lively)
        self._end(self._sentence(names, what) if speaks else None)

    def _sentence(self, names: str, what: str) -> str:
        return (
            f"rank {names} of {self._world_size} {what}: no step for {self._timeout:g} s, while"
            " the others wait"
        )

    def _all_beats(self) -> dict[int, tuple[int, int]]:
        keys = [f"beat/{rank}" for rank in range(self._world_size)]
        beats = {}
        for rank, value in enumerate(self._ask(lambda: self._store.multi_get(keys))):
            number, count = value.decode().split()
            beats[rank] = (int(number), int(count))
        return beats


def _exit(sentence: str | None) -> None:
    if sentence is not None:
        print(
            f"thresher: {sentence}. Everything saved so far is whole; go on with --resume.",
            file=sys.stderr,
            flush=True,
        )
    os._exit(PEERS_LOST)
