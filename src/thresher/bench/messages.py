"""What a short message between processes of one machine costs its cores.

For each message of a sum a process is woken up, copies, and goes back to sleep: work, however few
bytes there are. Where more processes than cores take turns it also displaces another one, and finds
the caches full of that one's data. So two processes with a core each are measured, and four on the
same two cores; in time of the processor, which counts no waiting for others.

    python -m thresher.bench.messages

is one of the four, with torchrun's variables around it; the first prints what all found.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable

CORES = 2
"""That are used, so that crowding them needs few processes."""
_RANKS = 2 * CORES
_NUMBERS = 1024
_SKIPPED, _COUNTED = 5, 60
_LONGEST = 120.0
"""Seconds for all; starting four processes takes most of it."""


def processor_seconds() -> tuple[float, float] | None:
    """Per message: with a core for each process, and with two processes to a core.

    None where processes cannot be started or do not find one another: a profile is of use without.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {
        "WORLD_SIZE": str(_RANKS), "LOCAL_WORLD_SIZE": str(_RANKS), "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": uuid.uuid4().hex,
        "TORCHELASTIC_USE_AGENT_STORE": "False", "GROUP_RANK": "0",
    }  # fmt: skip
    command = [sys.executable, "-m", "thresher.bench.messages"]
    started: list[subprocess.Popen[str]] = []
    try:
        for rank in range(_RANKS):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            started.append(
                subprocess.Popen(
                    command, env={**os.environ, **common, **own}, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                )
            )  # fmt: skip
        said, _ = started[0].communicate(timeout=_LONGEST)
        free_seconds, crowded = json.loads(said.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return None
    finally:
        for one in started:
            one.kill()
            one.communicate()
    # Who displaces others does no less than who does not; where noise says so they are the same.
    return free_seconds, max(free_seconds, crowded)


def main() -> None:
    """One rank."""
    from thresher.dist.runtime import Runtime

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    import torch

    # Apart, the first two ranks are a group of their own while the others sleep in a barrier.
    runtime = Runtime("cpu", "fp32", placement="apart", peer_timeout=_LONGEST)
    values = torch.zeros(_NUMBERS)
    free = 0.0
    if runtime.rank < CORES:
        free = _price(lambda: runtime.group.start_sum(values).wait(), CORES)
    runtime.barrier()
    many = [0.0] * _NUMBERS
    crowded = _price(lambda: runtime.start_flags(many).wait(), _RANKS)
    everyone = runtime.gather((free, crowded))
    runtime.close()
    if runtime.is_first:
        means = [
            statistics.mean(one[0] for one in everyone[:CORES]),
            statistics.mean(one[1] for one in everyone),
        ]
        print(json.dumps(means), flush=True)


def _price(add_up: Callable[[], object], ranks: int) -> float:
    """This rank's seconds of a processor per message of the ring that gloo makes."""
    for _ in range(_SKIPPED):
        add_up()
    before = time.process_time()
    for _ in range(_COUNTED):
        add_up()
    return (time.process_time() - before) / (_COUNTED * 2 * (ranks - 1))


if __name__ == "__main__":
    main()
