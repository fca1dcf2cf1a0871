"""The loop's own share: some of its steps and some bare ones in turn, many times over.

Both sides of a pair lie within a fraction of a second. A machine whose speed moves by a quarter
from one second to the next says little of a few percent between longer blocks.
"""

from __future__ import annotations

import statistics
from typing import Any, Literal

from steps.own import skip_of
from steps.spent import Block, Spent, Watch
from thresher.bench.loop import time_loop
from thresher.bench.work import Work
from thresher.types import Progress

_MOST = 16
"""Pairs that a block is divided into, if it has as many steps."""
_WARM_UP = 5


class Pairs:
    """Thresher's loop beside a bare step.

    Args:
        work: what the loop trains.
        bare: makes bare steps on the same images.
    """

    def __init__(self, work: Work, bare: Block) -> None:
        self._work = work
        self._bare = bare
        self._found: list[tuple[Spent, Spent, Spent]] = []
        bare(_WARM_UP)

    def block(self, steps: int) -> Spent:
        """Time a run of the loop from fresh networks, with as many bare steps between its own.

        Returns:
            Of the bare steps, the middle one.
        """
        size, skip = max(1, steps // _MOST), skip_of(self._work.runtime.device)
        loops: list[Spent] = []
        bares: list[Spent] = []
        watch: Watch | None = None

        def heard(progress: Progress) -> None:
            nonlocal watch
            done = progress.step + 1 - skip
            if done < 0 or done % size:
                return
            if watch is not None:
                loops.append(watch.per_step(size))
            bares.append(self._bare(size))
            watch = Watch(self._work.runtime.device)

        time_loop(self._work, steps, skip, by_part=False, heard=heard)
        self._found += zip(loops, bares[:-1], bares[1:], strict=True)
        return sorted(bares, key=lambda one: one.wall)[len(bares) // 2]

    def summary(self, kind: Literal["wall", "cpu"]) -> dict[str, Any]:
        """What the loop takes over the bare steps on both sides of it: the median of all pairs.

        Args:
            kind: of time.
        """
        spent = ([getattr(one, kind) for one in pair] for pair in self._found)
        over = [loop / statistics.mean(around) - 1 for loop, *around in spent]
        low, middle, high = statistics.quantiles(over, n=4)
        return {
            "overhead_over_bare_step": round(middle, 4),
            "overhead_quartiles": [round(low, 4), round(high, 4)],
            "overhead_pairs": len(over),
        }
