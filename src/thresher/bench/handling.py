"""What an exchange takes from a step before a byte travels: hooks, copies, what rides along.

Two equal networks step in turn, one of them in an exchange with nobody: a group of one rank that
says it were two. So all is done that a rank does by itself, and nothing is sent or waited for.
"""

from __future__ import annotations

import gc
import statistics
import time

import torch.distributed as dist

from thresher.bench.clock import Clock
from thresher.bench.step import PHASES, Setting, Step
from thresher.dist.group import Group
from thresher.dist.store import HashStore

_SECONDS = 4.0
_FEWEST, _MOST = 9, 150
"""Steps of each."""


def measure_handling(setting: Setting, batch: int) -> float:
    """Seconds of a step, on the CPU.

    Args:
        setting: of the step.
        batch: images in it; few, since these seconds are the same for all and are to be seen.
    """
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        return _measure(setting, batch)
    finally:
        gc.collect()  # gloo's threads must not hold a tensor of what is gone
        dist.destroy_process_group()


def _measure(setting: Setting, batch: int) -> float:
    alone, joined = Step(setting), Step(setting)
    joined.join(Group(0, 2, dist.group.WORLD))
    for step in (alone, joined):
        step.resize(batch)
        for phase in (0, PHASES - 1):
            _seconds(step, phase)
    longer: list[float] = []
    until = time.perf_counter() + _SECONDS
    while len(longer) < _FEWEST or (len(longer) < _MOST and time.perf_counter() < until):
        first = len(longer) % 2  # whoever comes first may find the caches in another state
        pair = [_seconds(step, 0) for step in ((alone, joined), (joined, alone))[first]]
        longer.append(pair[1 - first] - pair[first])
    return max(0.0, statistics.median(longer))


def _seconds(step: Step, phase: int) -> float:
    start = time.perf_counter()
    step.run(phase, Clock(step.setting.device, waits=False))
    return time.perf_counter() - start
