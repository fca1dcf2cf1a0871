"""What an exchange takes from a step before a byte travels: hooks, copies, what rides along.

Networks step in turn with equal ones that are in an exchange with nobody: a group of one rank that
claims to be two. So all is done that a rank does by itself, and nothing is sent or waited for.
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
from thresher.errors import UserError

_SECONDS = 4.0
_FEWEST, _MOST = 9, 150
"""Steps of each."""


def measure_handling(setting: Setting, batch: int) -> float | None:
    """Seconds of a step, on the CPU; None where several processes could not train the network.

    Args:
        setting: of the step.
        batch: images in it; few, since these seconds are the same for all and are to be seen.
    """
    try:
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    except RuntimeError:  # such as no network interface that gloo could use
        return None
    try:
        return _measure(setting, batch)
    except UserError:  # it uses some of its parameters in some steps and not in others
        return None
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
        # Whoever comes first may find the caches in another state.
        order = (alone, joined) if len(longer) % 2 else (joined, alone)
        took = {step: _seconds(step, 0) for step in order}
        longer.append(took[joined] - took[alone])
    return max(0.0, statistics.median(longer))


def _seconds(step: Step, phase: int) -> float:
    start = time.perf_counter()
    step.run(phase, Clock(step.setting.device, waits=False))
    return time.perf_counter() - start
