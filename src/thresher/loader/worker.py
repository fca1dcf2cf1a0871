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
from thresher.loader.make import Made, Maker, has_reason
from thresher.loader.workers import PROGRESS_BYTES


def main(words: Sequence[str]) -> None:
    """Serve until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer decides what Ctrl-C means
    torch.set_num_threads(1)
    connection, memory = Connection(int(words[0])), mmap.mmap(int(words[1]), 0)
    progress = np.frombuffer(memory, np.int64, 1)

    def going(sample: int) -> bool:
        progress[0] = sample
        return True

    try:
        maker: Maker = pickle.loads(connection.recv_bytes())
        squares = np.frombuffer(memory, np.uint8, offset=PROGRESS_BYTES).reshape(connection.recv())
        while True:
            samples, draws = connection.recv()
            made = maker.many(samples, draws, list(squares), going)
            connection.send([_sendable(answer) for answer in made])
    except (EOFError, ConnectionError):
        return


def _sendable(answer: Made) -> Made:
    """The same, but for errors of ours, since not every class of error can be sent."""
    if not isinstance(answer, Exception) or has_reason(answer):
        return answer
    if isinstance(answer, UserError | MemoryError):
        return answer
    return RuntimeError("".join(traceback.format_exception(answer)))


if __name__ == "__main__":
    main(sys.argv[1:])
