"""A process that decodes: gets sample ids, fills squares in shared memory, says how it went.

Started by ``workers`` as ``python -m thresher.loader.worker CONNECTION MEMORY``, two handles.
"""

from __future__ import annotations

import mmap
import pickle
import signal
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np
import torch

from thresher.errors import UserError
from thresher.loader.decode import DecodeError
from thresher.loader.make import Maker
from thresher.loader.workers import PROGRESS_BYTES


def main(words: Sequence[str]) -> None:
    """Serve until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer decides what Ctrl-C means
    torch.set_num_threads(1)
    connection, memory = Connection(int(words[0])), mmap.mmap(int(words[1]), 0)
    progress = np.frombuffer(memory, np.int64, 1)
    try:
        maker: Maker = pickle.loads(connection.recv_bytes())
        squares = np.frombuffer(memory, np.uint8, offset=PROGRESS_BYTES).reshape(connection.recv())
        while True:
            samples, draws = connection.recv()
            answers = []
            for row, sample in enumerate(samples):
                progress[0] = sample
                draw = None if draws is None else draws[row]
                answers.append(_make(maker, sample, draw, squares[row]))
            connection.send(answers)
    except (EOFError, ConnectionError):
        return


def _make(
    maker: Maker, sample: int, draws: np.ndarray | None, out: np.ndarray
) -> tuple[int, int] | Exception:
    try:
        return maker(sample, draws, out)
    except (DecodeError, OSError, UserError, MemoryError) as error:
        return error
    except Exception as error:  # of ours; not every class of error can be sent
        return RuntimeError("".join(traceback.format_exception(error)))


if __name__ == "__main__":
    main(sys.argv[1:])
