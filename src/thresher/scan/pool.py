"""Worker processes that may die: of a broken decoder, of memory, by somebody's hand.

Processes and not threads, although two threads looked at 10 % more images per second than two
processes (2 cores, 250 photographs, 9 rounds): a decoder that crashes takes only its own image
with it, whatever a file does to memory ends with its process, and the interpreter lock, which
a look holds for a sixth of its time, does not bound a machine of many cores.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from thresher.errors import UserError
from thresher.scan.look import Look

CRASHED = "refused: the decoder crashed on it"
_AHEAD = 2  # chunks per worker: one at work, one waiting, so that none idles
_POLL_SECONDS = 0.2


class Stopped(Exception):  # noqa: N818 - no error: it was asked for
    """Somebody asked for the end."""


class Chunk(NamedTuple):
    """Rows to look at, and the stamps that their results will be known by."""

    rows: np.ndarray
    stamps: np.ndarray


class _Worker:
    """One process, the connection to it, and what it was given."""

    def __init__(self, locations: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "thresher.scan.worker"),
                    *(str(theirs.fileno()), str(locations)),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal goes to whole groups
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self.connection = Connection(ours.detach())
        self.given: deque[Chunk] = deque()
        self.ready = False

    def end(self) -> None:
        """End it at once; what it was given is lost."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


class Pool:
    """Looks at chunks in ``num`` processes, each started when there is work for it.

    Args:
        num: most processes at a time.
        locations: file that ``save_locations`` wrote.
        stop: asked several times a second whether to stop.
    """

    def __init__(self, num: int, locations: Path, stop: Callable[[], bool]) -> None:
        self._num = num
        self._locations = locations
        self._stop = stop
        self._workers: list[_Worker] = []
        self._again: deque[Chunk] = deque()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.end()
        self._workers = []

    def run(self, chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, list[Look]]]:
        """Yield each chunk with its results, in whatever order they come.

        Raises:
            Stopped: ``stop`` said so.
            UserError: a worker cannot start, or no image can be read any more.
        """
        while True:
            self._hand_out(chunks)
            busy = {worker.connection: worker for worker in self._workers if worker.given}
            if not busy:
                return
            if self._stop():
                raise Stopped
            for connection in wait(list(busy), timeout=_POLL_SECONDS):
                assert isinstance(connection, Connection)
                worker = busy[connection]
                try:
                    answer = connection.recv()
                except (EOFError, ConnectionError):
                    yield from self._bury(worker)
                    continue
                if isinstance(answer, str):
                    raise UserError(f"{answer} What was looked at is kept.")
                if worker.ready:
                    yield worker.given.popleft(), [Look(*values) for values in answer]
                worker.ready = True

    def _hand_out(self, chunks: Iterator[Chunk]) -> None:
        while True:
            worker = min(self._workers, key=lambda worker: len(worker.given), default=None)
            may_start = len(self._workers) < self._num
            if worker is None or (worker.given and may_start):
                worker = None
            elif len(worker.given) >= _AHEAD:
                return
            chunk = self._again.popleft() if self._again else next(chunks, None)
            if chunk is None:
                return
            if worker is None:
                worker = _Worker(self._locations)
                self._workers.append(worker)
            worker.given.append(chunk)
            with contextlib.suppress(ConnectionError):  # it died; reading from it will tell
                worker.connection.send(chunk.rows)

    def _bury(self, worker: _Worker) -> Iterator[tuple[Chunk, list[Look]]]:
        """Take back what a dead worker was given; only the first can have killed it."""
        worker.end()
        self._workers.remove(worker)
        if not worker.ready:
            raise UserError(
                "A process that looks at images ended before it began (code "
                f"{worker.process.returncode}). What it printed may say why; if memory ran out,"
                " choose fewer --workers. What was looked at is kept: start the scan again."
            )
        suspect, *others = worker.given
        self._again.extend(others)
        half = len(suspect.rows) // 2
        if half:
            for part in (slice(0, half), slice(half, None)):
                self._again.appendleft(Chunk(suspect.rows[part], suspect.stamps[part]))
        else:
            yield suspect, [Look(CRASHED)]
