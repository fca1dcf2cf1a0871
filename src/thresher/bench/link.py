"""The link between this machine's or a launcher's processes, by all-reduces of growing size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from thresher.bench.clock import finish
from thresher.bench.pace import Work
from thresher.bench.profile import fit
from thresher.dist.runtime import Runtime
from thresher.errors import UserError
from thresher.plan.link import Level, Link

SIZES = (2**12, 2**16, 2**20, 2**22, 2**24)
"""Bytes; the fit weighs relative errors, so that the small ones count too."""
_PIECE = (512, 2**20)
"""A few milliseconds of work."""
_PIECES = 20


@dataclass(frozen=True)
class Measured:
    """What one rank saw.

    Attributes:
        sizes: bytes of each all-reduce.
        seconds: median of each.
        host_seconds: that other work takes longer while the largest one travels; 0 where an
            accelerator computes.
    """

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    host_seconds: float


def measure(runtime: Runtime, repeats: int) -> Measured:
    """Time sums over all ranks; every rank must call this.

    Raises:
        UserError: there is one process only.
    """
    if runtime.world_size < 2:
        raise UserError(
            "A link needs two processes at least: thresher bench link --processes 2, or start it"
            " under torchrun, mpirun or srun."
        )
    seconds = []
    for size in SIZES:
        values = torch.zeros(size // 4, device=runtime.device)
        times: list[float] = []
        for turn in range(repeats + 2):
            runtime.barrier()
            finish(runtime.device)
            start = time.perf_counter()
            runtime.group.start_sum(values).wait()
            finish(runtime.device)
            # The first ones open connections.
            if turn >= 2:
                times.append(time.perf_counter() - start)
        seconds.append(statistics.median(times))
    on_processors = runtime.device.type == "cpu"
    return Measured(SIZES, tuple(seconds), _lengthening(runtime, repeats) if on_processors else 0.0)


def _lengthening(runtime: Runtime, repeats: int) -> float:
    """By how many seconds work on all of a process's cores takes longer while a sum travels.

    Copying and adding up is the least of it: a processor is also called away for every packet that
    comes, and finds the caches full of others' data when it goes on.
    """
    values = torch.zeros(SIZES[-1] // 4)
    piece = Work(*_PIECE)
    longer = []
    for _ in range(repeats):
        runtime.barrier()
        start = time.perf_counter()
        for _ in range(_PIECES):
            piece()
        each = (time.perf_counter() - start) / _PIECES
        runtime.barrier()
        start = time.perf_counter()
        pending, pieces = runtime.group.start_sum(values), 0
        while not pending.is_done:
            piece()
            pieces += 1
        longer.append(time.perf_counter() - start - pieces * each)
        pending.wait()
    return max(0.0, statistics.median(longer))


def describe(name: str, processes: int, found: Sequence[Measured], words: str) -> Link:
    """A link of one level whose ring takes what was measured.

    A ring of P takes 2 (P - 1) latency + 2 (P - 1) / P * bytes / bandwidth, see
    ``plan/collectives.py``.

    Args:
        name: of the link.
        processes: P, at least 2.
        found: of every rank; the slowest counts.
        words: what was measured, for the file.
    """
    sizes = found[0].sizes
    slowest = [max(one.seconds[i] for one in found) for i in range(len(sizes))]
    # Weighted by 1 / seconds: time over itself against size over it, and 1 over it.
    line = relative_fit([float(size) for size in sizes], slowest)
    rounds = 2 * (processes - 1)
    per_byte = rounds / processes
    host = statistics.mean(one.host_seconds for one in found)
    return Link(
        name=name,
        levels=(
            Level(
                name="measured",
                latency=line[0] / rounds,
                bandwidth=per_byte / line[1] if line[1] > 0 else float("inf"),
            ),
        ),
        host_seconds_per_byte=host / (per_byte * sizes[-1]),
        source=words,
    )


def relative_fit(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """(intercept, slope), neither negative, with the least squares of relative errors."""
    a11 = sum(1 / t**2 for t in seconds)
    a12 = sum(s / t**2 for s, t in zip(sizes, seconds, strict=True))
    a22 = sum(s**2 / t**2 for s, t in zip(sizes, seconds, strict=True))
    b1 = sum(1 / t for t in seconds)
    b2 = sum(s / t for s, t in zip(sizes, seconds, strict=True))
    determinant = a11 * a22 - a12**2
    intercept = (b1 * a22 - b2 * a12) / determinant
    slope = (a11 * b2 - a12 * b1) / determinant
    if intercept < 0 or slope < 0:
        line = fit(sizes, seconds)
        return line.intercept, line.slope
    return intercept, slope
