"""What a rank is made to do, or to tell, at a step of its own training.

Each is called with the rank before Thresher's command line, see ``forks.py``. They know of the seam
between methods and the loop, and of nothing else inside.
"""

from __future__ import annotations

import functools
import gc
import itertools
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from thresher.methods.mutual_calibration import MutualCalibration
from thresher.sources.read import Reader

_BYTES_SENT = 200
"""Where Linux has ``tcpi_bytes_sent`` in what TCP_INFO tells, an unsigned integer of 8 bytes."""


def at_each_step(act: Callable[[int], None]) -> None:
    """Have something happen in the middle of every step, counted from 0 over the whole run."""
    real = MutualCalibration.step

    @functools.wraps(real)
    def watched(self: Any, networks: Any, batch: Any, history: Any, progress: Any) -> Any:
        act(progress.step)
        return real(self, networks, batch, history, progress)

    MutualCalibration.step = watched  # type: ignore[method-assign]


def at_step(step: int, act: Callable[[], None]) -> None:
    """The same of one step."""
    at_each_step(lambda now: act() if now == step else None)


def stop(step: int, rank: int) -> None:
    """The last rank gets SIGTERM in this step; all save after it and leave."""
    if rank + 1 == int(os.environ.get("WORLD_SIZE", "1")):
        at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM))


def kill_when_there_is(file: Path) -> None:
    """End this process by SIGKILL once a file is there; its other threads go on until then."""
    give_up = time.monotonic() + 30
    while not file.exists() and time.monotonic() < give_up:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def tell_first(folder: Path, rank: int) -> None:
    """Write down which step is the first that this process makes, and what it took to get there."""
    reads = itertools.count()
    real = Reader.read

    def counted(self: Reader, sample: int) -> bytes:
        next(reads)
        return real(self, sample)

    def tell(step: int) -> None:
        path = folder / f"{rank}.json"
        if not path.exists():
            seconds = time.time() - psutil.Process().create_time()
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"step": step, "seconds": seconds, "reads": next(reads)}))

    Reader.read = counted  # type: ignore[method-assign]
    at_each_step(tell)


def tell_first_and_stop(folder: Path, step: int, rank: int) -> None:
    """Both."""
    tell_first(folder, rank)
    stop(step, rank)


def measure(folder: Path, first: int, last: int, rank: int) -> None:
    """Write down the bytes of optimizers' states, and those sent in a mean step of some."""
    found: dict[str, float] = {}

    def begin() -> None:
        found["sent"] = -sent_bytes()

    def end() -> None:
        found["sent"] = (found["sent"] + sent_bytes()) / (last - first)
        found["state"], found["weights"] = optimizer_bytes()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{rank}.json").write_text(json.dumps(found))

    at_step(first, begin)
    at_step(last, end)


def measure_and_stop(folder: Path, first: int, last: int, rank: int) -> None:
    """Both: no more is trained than it takes."""
    measure(folder, first, last, rank)
    stop(last, rank)


def measured(folder: Path) -> list[dict[str, float]]:
    """What every rank wrote down."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def optimizer_bytes() -> tuple[int, int]:
    """(of all optimizers' states, of the weights that they change), whoever holds them."""
    optimizers = [one for one in gc.get_objects() if isinstance(one, torch.optim.Optimizer)]
    state = weights = 0
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            weights += sum(p.numel() * p.element_size() for p in group["params"])
        for values in optimizer.state.values():
            tensors = [value for value in values.values() if isinstance(value, torch.Tensor)]
            state += sum(t.numel() * t.element_size() for t in tensors)
    return state, weights


def sent_bytes() -> int:
    """All that this process has sent over the connections that it holds now; 0 if not on Linux."""
    total = 0
    if sys.platform != "linux":
        return total
    for path in list(Path("/proc/self/fd").iterdir()):
        try:
            with socket.socket(fileno=os.dup(int(path.name))) as one:
                told = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:  # no socket, or not of this kind
            continue
        if len(told) >= _BYTES_SENT + 8:
            total += struct.unpack_from("Q", told, _BYTES_SENT)[0]
    return total
