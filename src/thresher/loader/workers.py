"""Decoding in processes of their own, for machines with more cores than one interpreter can feed.

Each decoding thread has one worker process and waits for it, so that all else is as it is with
threads: the same order, the same batches. Pixels come back in memory that both have mapped and
that has no name, so that none can stay behind. A worker ends when its connection closes, which it
does however the trainer ends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import IO

import numpy as np

from thresher.errors import UserError
from thresher.loader.make import Made, Maker

PROGRESS_BYTES = 8
"""At the start of the shared memory: the id of the sample that the worker is busy with."""
_END_SECONDS = 3.0
_OWN_BYTES = 400 * 10**6
"""Of a process, mostly PyTorch."""
_COPIES = 2
"""Of what it is sent: the bytes, and what is made of them."""
_SHARE = 0.25
"""Of the free memory."""


def affordable(maker: Maker, num: int, num_bytes: int) -> bool:
    """Whether so many processes may be had without having been asked for.

    Args:
        maker: what they would run.
        num: of processes.
        num_bytes: of free memory. Each copies what the maker knows, such as a manifest.
    """
    try:
        copied = len(pickle.dumps(maker))
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return num * (_OWN_BYTES + _COPIES * copied) <= num_bytes * _SHARE


class Workers:
    """One process for each thread that calls ``many``, started at its first call.

    Args:
        maker: what they run; has to be picklable.
        side: of the squares.
        most: squares in one call.
        name: names a sample, in words.
    """

    def __init__(self, maker: Maker, side: int, most: int, name: Callable[[int], str]) -> None:
        self._shape = (most, side, side, 3)
        self._name = name
        try:
            self._maker = pickle.dumps(maker)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UserError(
                f"--decoder processes cannot send these data to another process ({error})."
                " Choose --decoder threads."
            ) from None
        self._mine = threading.local()
        self._all: list[_Worker] = []
        self._lock = threading.Lock()

    def many(
        self, samples: Sequence[int], draws: np.ndarray | None, outs: Sequence[np.ndarray]
    ) -> list[Made]:
        """As ``Maker.many``, in this thread's process.

        Raises:
            UserError: the process ended; the message names the sample it was busy with.
        """
        worker = self._worker()
        try:
            worker.connection.send((list(samples), draws))
            made: list[Made] = worker.connection.recv()
        except (EOFError, OSError):
            raise self._death(worker) from None
        for answer, square, out in zip(made, worker.squares, outs, strict=False):
            if not isinstance(answer, Exception):
                out[...] = square
        return made

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            workers, self._all = self._all, []
        for worker in workers:
            worker.connection.close()
        until = time.monotonic() + _END_SECONDS  # of all; each may wait for the same server
        for worker in workers:
            worker.end(max(0.0, until - time.monotonic()))

    def _worker(self) -> _Worker:
        worker: _Worker | None = getattr(self._mine, "worker", None)
        if worker is None:
            worker = self._mine.worker = _Worker(self._maker, self._shape)
            with self._lock:
                self._all.append(worker)
        return worker

    def _death(self, worker: _Worker) -> UserError:
        code = worker.end()
        sample = int(worker.progress[0])
        where = "before its first image" if sample < 0 else f"at {self._name(sample)}"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return UserError(
            f"A process that decodes images {how} {where}. Go on with --resume, with --decoder"
            " threads, or look at the image with thresher scan."
        )


class _Worker:
    """A process, the connection to it, and the memory that both write to."""

    def __init__(self, maker: bytes, shape: Sequence[int]) -> None:
        num_bytes = PROGRESS_BYTES + int(np.prod(shape))
        with _nameless_file() as file:
            os.truncate(file.fileno(), num_bytes)
            memory = mmap.mmap(file.fileno(), num_bytes)
            ours, theirs = socket.socketpair()
            handles = (theirs.fileno(), file.fileno())
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "thresher.loader.worker", *map(str, handles)],
                    pass_fds=handles,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C in a terminal goes to whole groups
                    env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                )
        self.progress = np.frombuffer(memory, np.int64, 1)
        self.progress[0] = -1
        self.squares = np.frombuffer(memory, np.uint8, offset=PROGRESS_BYTES).reshape(shape)
        self.connection = Connection(ours.detach())
        with contextlib.suppress(OSError):  # it died; the first answer will tell
            self.connection.send_bytes(maker)
            self.connection.send(tuple(shape))

    def end(self, seconds: float = _END_SECONDS) -> int:
        """See that it has ended, and how: its exit code, negative for a signal."""
        self.connection.close()
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _nameless_file() -> IO[bytes]:
    """Memory that can be passed on as a file; elsewhere than on Linux a file without a name."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("thresher"), "w+b")
    return tempfile.TemporaryFile()
