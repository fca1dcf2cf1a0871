"""What an exchange takes from a step before a byte travels: hooks, copies, what rides along.

Networks step in turn with equal ones that are in an exchange with nobody.
"""

from __future__ import annotations

import statistics
import time

from thresher.bench.clock import Clock
from thresher.bench.step import PHASES, Setting, Step
from thresher.dist.group import Group, pretended_pair
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
        with pretended_pair() as pair:
            return _measure(setting, batch, pair)
    except UserError:  # it uses some parameters in some steps only, or there is no network at all
        return None


def _measure(setting: Setting, batch: int, pair: Group) -> float:
    alone, joined = Step(setting), Step(setting)
    joined.join(pair)
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
