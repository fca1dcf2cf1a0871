"""Blocks of steps of several sides in turn, on all ranks at once, with what they sent and took."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

Steps = Callable[[int, bool], None]
"""Makes so many steps of a side; told whether they are timed."""


@dataclass
class Block:
    """What one block of a side came to.

    Attributes:
        seconds: of the clock, until the last rank was done. Ranks that share no gradients may be
            most of a step apart then.
        own: until this rank was done.
        sent: bytes by the interface.
        carrying: seconds that a processor worked on the emulated link.
    """

    seconds: float
    own: float
    sent: float
    carrying: float


def blocks(
    sides: dict[str, Steps],
    rounds: int,
    steps: int,
    counters: Callable[[], tuple[float, float]],
) -> dict[str, list[Block]]:
    """Each side's blocks of some steps, taken in turn, in changing order.

    Half as many steps before each are not timed: they find the caches full of another side's data,
    and the core of a rank that slept while another one worked may serve somebody else first.
    """
    found: dict[str, list[Block]] = {name: [] for name in sides}
    for turn in range(rounds):
        names = list(sides)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            sides[name]((steps + 1) // 2, False)
            dist.barrier() if dist.is_initialized() else None
            before, started = counters(), time.perf_counter()
            sides[name](steps, True)
            own = time.perf_counter() - started
            sent, carrying = (b - a for a, b in zip(before, counters(), strict=True))
            dist.barrier() if dist.is_initialized() else None
            found[name].append(Block(time.perf_counter() - started, own, sent, carrying))
    return found


def counters(interface: str, relay: int | None) -> Callable[[], tuple[float, float]]:
    """(bytes sent, seconds that the relay's process has worked) so far."""
    path = Path(f"/sys/class/net/{interface}/statistics/tx_bytes")

    def read() -> tuple[float, float]:
        worked = 0.0
        if relay is not None:
            # Behind the name in parentheses, from the third field on: proc(5).
            fields = Path(f"/proc/{relay}/stat").read_text().rpartition(")")[2].split()
            worked = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return int(path.read_text()), worked

    return read
