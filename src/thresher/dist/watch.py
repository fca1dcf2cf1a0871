"""Notices a rank that stalls or is gone, and names it.

Every rank counts what it does and writes into a store, every few seconds, how many of the things
it has done that all ranks do alike (steps, sums). A rank that has done nothing for the time-out
looks at all counts twice: who does not even write is stopped or dead; else who has counted least
holds up the rest.
A collective that waits for a lost peer cannot be called off, so the process ends itself.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

import torch.distributed as dist

from thresher.dist.errors import PEERS_LOST
from thresher.dist.store import Store

_LONGEST_BEAT = 5.0
_PARENT = os.getppid()
"""Taken down when the process starts, which is long before there is anything to watch."""


class Watch:
    """Watches over all ranks while the run lasts.

    Args:
        connect: a fresh connection to the store, for this thread alone.
        rank, world_size: this process's place.
        timeout: seconds without any progress.
        end: called with a sentence (or None, to keep silent) when a peer has been found lost.
        orphaned: called once when the process that started this one is gone.
    """

    def __init__(
        self,
        connect: Callable[[], Store],
        rank: int,
        world_size: int,
        timeout: float,
        end: Callable[[str | None], None] | None = None,
        orphaned: Callable[[], None] | None = None,
    ) -> None:
        self._store = connect()
        self._rank = rank
        self._world_size = world_size
        self._timeout = timeout
        self._end = end or _exit
        self._orphaned = orphaned
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
        pause = min(_LONGEST_BEAT, self._timeout / 4)
        seen, since = self._activity, time.monotonic()
        while not self._stop.wait(pause):
            if self._orphaned is not None and os.getppid() != _PARENT:
                self._orphaned()
                self._orphaned = None
            now = time.monotonic()
            if self._activity != seen:
                seen, since = self._activity, now
            try:
                self._beat()
                if now - since > self._timeout:
                    self._look(pause)
                    return
            except (RuntimeError, dist.DistError):
                if self._stop.is_set():
                    return
                self._end("rank 0 is gone" if self._rank == 1 else None)
                return

    def _beat(self) -> None:
        self._beats += 1
        self._store.set(f"beat/{self._rank}", f"{self._beats} {self._count}")

    def _look(self, pause: float) -> None:
        """Find out who holds up the rest, and end this process."""
        before = self._all_beats()
        for _ in range(3):
            if self._stop.wait(pause):
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
        sentence = (
            f"rank {names} of {self._world_size} {what}: no step for {self._timeout:g} s, while"
            " the others wait"
        )
        self._end(sentence if not lively or self._rank == min(lively) else None)

    def _all_beats(self) -> dict[int, tuple[int, int]]:
        keys = [f"beat/{rank}" for rank in range(self._world_size)]
        beats = {}
        for rank, value in enumerate(self._store.multi_get(keys)):
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
