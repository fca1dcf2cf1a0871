"""What processes of one machine cost each other: beside one another, by messages, by taking turns.

Processes with cores of their own still share caches and memory. For each message of a sum a process
is woken up, copies, and goes back to sleep: work, however few bytes there are. Where more processes
than cores take turns it also displaces another one, and finds the caches full of that one's data.
So does a step: two that take turns on a core take longer than one after the other, and each waits
for the slower one at its end.

Messages and steps are measured between as many processes as compute at the same time, then between
twice as many on the same cores; steps of one process by itself, too.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray
from multiprocessing.synchronize import Barrier

import torch

from thresher.bench.clock import Clock
from thresher.bench.step import PHASES, Setting, Step
from thresher.dist.memory import keep_memory
from thresher.dist.runtime import Runtime
from thresher.loader.keep import free_memory

_PLACES = 2
"""Processes that compute at the same time, so that crowding them needs few."""
_NUMBERS = 1024
_SKIPPED, _COUNTED = 5, 60
_WINDOW_SECONDS = 0.3
_FEW_ROUNDS = 3
"""Where a window is a single step, which takes long."""
_LONGEST = 600.0
"""Seconds for all; starting processes takes most of it unless a step takes seconds."""
_LOOK_SECONDS = 0.5
_OWN_BYTES = 600 * 10**6
"""Of a process before its first step, mostly PyTorch."""
_MEMORY_SHARE = 0.5
_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
"""That there are, before a process keeps to some of them."""


@dataclass(frozen=True)
class Neighbours:
    """What was found.

    Attributes:
        message: seconds of a processor per message, with a core for each process.
        crowded_message: the same with two processes to a core.
        beside: (images of a step, how many times as long it takes while another process computes on
            cores of its own), at least 1; empty if there are no such cores.
        turns: (images of a step, how many times as long two steps take when their processes take
            turns on the same cores as one after the other), at least 1.
    """

    message: float
    crowded_message: float
    beside: tuple[tuple[float, float], ...]
    turns: tuple[tuple[float, float], ...]


def has_room(num_bytes: float) -> bool:
    """Whether there is memory for processes that each need so much for a step."""
    return 2 * _PLACES * (num_bytes + _OWN_BYTES) <= _MEMORY_SHARE * free_memory()


def measure_neighbours(
    setting: Setting, sizes: Sequence[int], threads: int, repeats: int
) -> Neighbours | None:
    """Measure on the CPU; None where processes cannot be started or do not find one another.

    Args:
        setting: of the step.
        sizes: images in a step, ascending; none if there is no memory for so many networks.
        threads: of a process.
        repeats: of each comparison of steps.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    start = multiprocessing.get_context("spawn")
    ranks = 2 * _PLACES
    common = {
        "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": uuid.uuid4().hex,
        "TORCHELASTIC_USE_AGENT_STORE": "False", "GROUP_RANK": "0",
    }  # fmt: skip
    answer, told = start.Pipe(duplex=False)
    meetings = {size: start.Barrier(size) for size in range(1, ranks + 1)}
    steps = start.Value("i", 0)
    seconds = start.Array("d", ranks)
    started = []
    try:
        for rank in range(ranks):
            own = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            one = _Rank(
                rank, own, setting, tuple(sizes), threads, repeats, meetings, steps, seconds
            )
            process = start.Process(target=one.run, args=(told,), daemon=True)
            process.start()
            started.append(process)
        told.close()  # so that the answer ends with the processes
        until = time.monotonic() + _LONGEST
        while not answer.poll(_LOOK_SECONDS):
            if time.monotonic() > until or any(process.exitcode for process in started):
                return None
        found: Neighbours = answer.recv()
        return found
    except (OSError, EOFError):
        return None
    finally:
        for process in started:
            process.kill()
            process.join()


@dataclass(frozen=True)
class _Rank:
    """One of the processes.

    Attributes:
        meetings: of the first processes, by their number.
        steps: of a window, as the first process says.
        seconds: of each process's last window.
    """

    rank: int
    environment: dict[str, str]
    setting: Setting
    sizes: tuple[int, ...]
    threads: int
    repeats: int
    meetings: dict[int, Barrier]
    steps: Synchronized[int]
    seconds: SynchronizedArray[float]

    def run(self, told: Connection) -> None:
        """What the process does; the first tells what all found."""
        os.environ.update(self.environment)
        # Whoever fails ends, and the others with it; nobody measures then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        message, crowded = self._messages()
        beside, turns = self._factors()
        if self.rank == 0:
            # Who displaces others does no less than who does not; noise may say so.
            told.send(Neighbours(message, max(message, crowded), beside, turns))

    def _messages(self) -> tuple[float, float]:
        """Means over the processes; each measures its own processor, which counts no waiting."""
        self._stay_on(_PLACES)
        # Apart, the first two ranks are a group of their own while the others sleep in a barrier.
        runtime = Runtime("cpu", "fp32", placement="apart", peer_timeout=_LONGEST)
        values = torch.zeros(_NUMBERS)
        free = 0.0
        if self.rank < _PLACES:
            free = _price(lambda: runtime.group.start_sum(values).wait(), _PLACES)
        runtime.barrier()
        many = [0.0] * _NUMBERS
        crowded = _price(lambda: runtime.start_flags(many).wait(), 2 * _PLACES)
        everyone = runtime.gather((free, crowded))
        runtime.close()
        return (
            statistics.mean(one[0] for one in everyone[:_PLACES]),
            statistics.mean(one[1] for one in everyone),
        )

    def _factors(self) -> tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]]:
        """``beside`` and ``turns``."""
        if not self.sizes:
            return (), ()
        keep_memory()  # as training does
        cores = self._stay_on(_PLACES * self.threads)
        torch.set_num_threads(self.threads)
        few = max(1, min(_PLACES, cores // self.threads))
        step = Step(self.setting)
        found = [(float(size), *self._factors_of(step, size, few)) for size in self.sizes]
        beside = tuple((size, longer) for size, longer, _ in found)
        return beside if few > 1 else (), tuple((size, longer) for size, _, longer in found)

    def _factors_of(self, step: Step, size: int, few: int) -> tuple[float, float]:
        """How many times as long a step takes beside others, and twice as many processes take for
        twice as many steps.
        """
        step.resize(size)
        for phase in (0, PHASES - 1):
            _run(step, phase)
        self._meet(2 * _PLACES)
        if self.rank == 0:
            start = time.perf_counter()
            _run(step, 0)
            self.steps.value = max(1, round(_WINDOW_SECONDS / (time.perf_counter() - start)))
        self._meet(2 * _PLACES)
        steps = self.steps.value
        rounds = self.repeats if steps > 1 else min(self.repeats, _FEW_ROUNDS)
        besides, turns = [], []
        for _ in range(rounds):
            alone = self._window(step, steps, 1)
            own = self._window(step, steps, few, in_step=False)
            in_step = self._window(step, steps, few)
            by_turns = self._window(step, steps, 2 * few)
            besides.append(own[0] / alone[0])
            turns.append(statistics.mean(by_turns) / statistics.mean(in_step) / 2)
        return max(1.0, statistics.median(besides)), max(1.0, statistics.median(turns))

    def _window(self, step: Step, steps: int, among: int, *, in_step: bool = True) -> list[float]:
        """Seconds of each of the first processes for some steps; in step, all end each together."""
        if self.rank < among:
            if steps > 1:
                _run(step, 0)  # who slept until now is slow to get going
            self._meet(among)
            start = time.perf_counter()
            for number in range(steps):
                _run(step, number % PHASES)
                if in_step:
                    self._meet(among)
            self.seconds[self.rank] = time.perf_counter() - start
        self._meet(2 * _PLACES)
        seconds = list(self.seconds[:among])
        self._meet(2 * _PLACES)  # nobody writes before all have read
        return seconds

    def _meet(self, among: int) -> None:
        self.meetings[among].wait(_LONGEST)

    def _stay_on(self, cores: int) -> int:
        """Use some cores of those that there are, and say how many they are."""
        if not hasattr(os, "sched_setaffinity"):
            return os.cpu_count() or 1
        mine = sorted(_CORES)[:cores]
        os.sched_setaffinity(0, mine)
        return len(mine)


def _run(step: Step, phase: int) -> None:
    step.run(phase, Clock(step.setting.device, waits=False))


def _price(add_up: Callable[[], object], ranks: int) -> float:
    """This process's seconds of a processor per message of the ring that gloo makes."""
    for _ in range(_SKIPPED):
        add_up()
    before = time.process_time()
    for _ in range(_COUNTED):
        add_up()
    return (time.process_time() - before) / (_COUNTED * 2 * (ranks - 1))
