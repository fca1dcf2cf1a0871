"""Seconds of an all-reduce by Hockney's model: a message of m bytes takes alpha + m / bandwidth.

Formulas: ring from Patarasuk and Yuan, *Bandwidth optimal all-reduce algorithms for clusters of
workstations*, JPDC 2009; recursive doubling and halving-doubling (Rabenseifner) from Thakur,
Rabenseifner and Gropp, *Optimization of collective communication operations in MPICH*, IJHPCA 2005.
The hierarchical one reduces and scatters level by level from the inside, exchanges the remaining
pieces on top and gathers back; the topology-aware all-reduce of swCaffe (arXiv 1903.06934) is this
with halving in every level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from thresher.errors import unknown_name
from thresher.plan.link import Link, Stage


def all_reduce(
    size: float, link: Link, nodes: int, processes_per_node: int = 1, algorithm: str = "auto"
) -> float:
    """Seconds until every process has the sum of everyone's ``size`` bytes.

    Args:
        size: bytes per process, at least 0.
        link: between the processes.
        nodes: at least 1.
        processes_per_node: at least 1.
        algorithm: a name of ``ALGORITHMS``, or auto: the fastest, as MPI and NCCL try to choose.

    Raises:
        UserError: no such algorithm.
    """
    if algorithm != "auto" and algorithm not in ALGORITHMS:
        raise unknown_name("all-reduce algorithm", algorithm, ["auto", *ALGORITHMS])
    stages = link.layout(nodes, processes_per_node)
    if not stages:
        return 0.0
    choices = ALGORITHMS.values() if algorithm == "auto" else [ALGORITHMS[algorithm]]
    per_byte = 1 / link.reduction if link.reduction else 0.0
    return min(choice(size, stages, per_byte) for choice in choices)


def messages(link: Link, nodes: int, processes_per_node: int = 1, algorithm: str = "auto") -> float:
    """How many messages of an all-reduce follow one another: its seconds at 1 s per message."""
    levels = tuple(replace(level, latency=1.0) for level in link.levels)
    return all_reduce(0.0, replace(link, levels=levels), nodes, processes_per_node, algorithm)


def ring(size: float, stages: Sequence[Stage], per_byte: float = 0.0) -> float:
    """2 (P - 1) messages of size / P around a ring, each as slow as the ring's slowest edge.

    The ring runs through each unit once, so that one process of a node uses the wires to the next
    at a time: neither sharing nor oversubscription counts.

    Args:
        size: bytes.
        stages: levels in use.
        per_byte: seconds to add up one byte.
    """
    processes = _product(stages)
    piece = size / processes
    edge = max(stage.level.latency + piece / stage.alone for stage in stages)
    return (processes - 1) * (2 * edge + piece * per_byte)


def halving_doubling(size: float, stages: Sequence[Stage], per_byte: float = 0.0) -> float:
    """Recursive halving, then doubling, blind to levels: the farthest partner gets most.

    Halving: log2 P messages of size / 2, size / 4, … size / P; doubling: the same back. Where P is
    no power of two, the processes beyond the nearest hand their data over first and get the result
    in the end: two whole messages more.

    Args:
        size: bytes.
        stages: levels in use.
        per_byte: seconds to add up one byte.
    """
    seconds, part = 0.0, size
    for stage in reversed(stages):
        rounds = math.floor(math.log2(stage.members))
        for _ in range(rounds):
            part /= 2
            seconds += 2 * (stage.level.latency + part / stage.crowded) + part * per_byte
        if 2**rounds < stage.members:
            whole = part * 2**rounds
            seconds += 2 * (stage.level.latency + whole / stage.crowded) + whole * per_byte
    return seconds


def doubling(size: float, stages: Sequence[Stage], per_byte: float = 0.0) -> float:
    """Recursive doubling: ceil(log2 P) whole messages; best for a few bytes.

    Args:
        size: bytes.
        stages: levels in use.
        per_byte: seconds to add up one byte.
    """
    seconds = 0.0
    for stage in stages:
        rounds = math.ceil(math.log2(stage.members))
        seconds += rounds * (stage.level.latency + size / stage.crowded + size * per_byte)
    return seconds


def hierarchical(size: float, stages: Sequence[Stage], per_byte: float = 0.0) -> float:
    """Level by level: each level exchanges only what one unit below has to give.

    In every level the faster of a ring and, for a power of two of members, of halving is taken;
    they move the same bytes, (m - 1) / m of the piece there and back.

    Args:
        size: bytes.
        stages: levels in use.
        per_byte: seconds to add up one byte.
    """
    seconds, part = 0.0, size
    for stage in stages:
        m = stage.members
        messages = math.log2(m) if m & (m - 1) == 0 else m - 1
        moved = part * (m - 1) / m
        seconds += 2 * (messages * stage.level.latency + moved / stage.crowded) + moved * per_byte
        part /= m
    return seconds


def message(size: float, link: Link, nodes: int, processes_per_node: int = 1) -> float:
    """Seconds of one message of ``size`` bytes over the outermost level, all processes at once."""
    stages = link.layout(nodes, processes_per_node)
    if not stages:
        return 0.0
    return stages[-1].level.latency + size / stages[-1].crowded


def _product(stages: Sequence[Stage]) -> int:
    return math.prod(stage.members for stage in stages)


ALGORITHMS: dict[str, Callable[[float, Sequence[Stage], float], float]] = {
    "ring": ring,
    "halving-doubling": halving_doubling,
    "doubling": doubling,
    "hierarchical": hierarchical,
}
"""gloo rings (or halves and doubles), NCCL rings or uses trees, MPI chooses by size."""
