"""What a step's exchange takes: of the wire, of the step's end, and of the step's own cores."""

from __future__ import annotations

import math
from dataclasses import dataclass

from thresher.plan.collectives import all_reduce, messages
from thresher.plan.link import Link
from thresher.plan.overlap import exchange_queue, exposed, ready_stream, usual_bucket
from thresher.plan.profile import Profile

FLAG_BYTES = 16.0
"""Of the question whether to stop or save."""
_LONGEST = 16
"""Steps between two questions at most, see ``train/flags.py``."""


@dataclass(frozen=True)
class Ranks:
    """Processes that exchange with each other.

    Attributes:
        nodes, per_node: where they are.
        slower: by how much sharing cores slows each down, at least 1.
    """

    nodes: int
    per_node: int
    slower: float = 1.0

    @property
    def all(self) -> int:
        """How many."""
        return max(1, self.nodes * self.per_node)


@dataclass(frozen=True)
class Exchange:
    """Seconds of one step.

    Attributes:
        whole: on the wire, hidden or not.
        exposed: what goes on after the backward's end.
        latency: what of the whole an exchange of no bytes would take.
        work: that the hidden part takes from the step, where that computes on the same cores.
    """

    whole: float
    exposed: float
    latency: float
    work: float


def exchange(
    profile: Profile,
    link: Link,
    ranks: Ranks,
    *,
    networks: int,
    backward: float,
    algorithm: str,
    bucket_bytes: float | None,
    overlap: bool,
    everyone: Ranks | None = None,
) -> Exchange:
    """The exchange of one step's gradients, in whose first bucket the small sums ride.

    Args:
        profile: measured.
        link: between the ranks.
        ranks: that hold the same networks.
        networks: that each of them holds.
        backward: seconds of all of them, one after the other.
        algorithm: see ``collectives``; on processors, auto is gloo's ring.
        bucket_bytes: of gradients that are sent at once; None for as many as training sends.
        overlap: whether buckets are sent while the backward runs.
        everyone: all ranks of the job, who ask each other whether to stop; None if they are those
            that hold the same networks.
    """
    everyone = everyone or ranks
    if everyone.all <= 1:
        return Exchange(0.0, 0.0, 0.0, 0.0)
    on_processors = not profile.decodes_beside
    if algorithm == "auto" and on_processors:
        algorithm = "ring"
    each = profile.waking_seconds(crowded=ranks.slower > 1)

    def work(size: float, among: Ranks = ranks) -> float:
        waking = each * messages(link, among.nodes, among.per_node, algorithm)
        sent = 2 * (among.all - 1) / among.all
        return (waking + sent * size * link.host_seconds_per_byte) * among.slower

    def seconds(size: float, among: Ranks = ranks) -> float:
        # The wire may wait for the processors, but is never quicker than they are.
        wire = all_reduce(size, link, among.nodes, among.per_node, algorithm)
        return max(wire, work(size, among))

    # Flags ride with the gradients where these travel between all ranks. Else they go first: on
    # processors within the step; an accelerator's host sends them beside it.
    asking = 1 / flags_every(everyone.all) if on_processors and everyone != ranks else 0.0
    flags = asking * seconds(FLAG_BYTES, everyone) if asking else 0.0
    length = backward / networks
    starts = [(index * length, length) for index in range(networks)]
    stream = ready_stream(profile.ready, profile.gradient_bytes, starts)
    gradients = networks * profile.gradient_bytes
    early = on_processors and ranks.slower <= 1
    usual = usual_bucket(gradients, starts_early=early)
    size = (bucket_bytes or usual) if overlap else math.inf
    queue = [(0.0, flags), *exchange_queue(stream, size, seconds)]
    whole = sum(took for _, took in queue)
    late = exposed(queue, backward) if overlap else whole
    hidden = 1 - min(1.0, late / whole) if whole > 0 else 0.0
    # Work adds up however it is cut into buckets, but each of them wakes the ranks up.
    buckets = len(queue) - 1
    total = work(gradients) + (buckets - 1) * work(0.0)
    if asking:
        total += asking * work(FLAG_BYTES, everyone)
    latency = flags + buckets * seconds(0.0)
    return Exchange(whole, late, latency, hidden * total if on_processors else 0.0)


def flags_every(processes: int) -> int:
    """Steps from one question of the ranks to the next, whether to stop or to save."""
    return min(_LONGEST, 1 + processes // 8)
