"""From a profile and a link to step time, run time, efficiency, memory and what holds it up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from thresher.errors import UserError
from thresher.plan.collectives import message
from thresher.plan.exchange import Ranks, exchange
from thresher.plan.link import Link
from thresher.plan.profile import Profile

Placement = Literal["together", "apart"]
_ABOVE_ZERO = (
    "images", "epochs", "batch", "batch_per_process", "processes_per_node", "decode_cores",
    "cores_per_node", "bucket_bytes", "storage", "memory",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be trained, and how it is spread.

    Attributes:
        images: training samples.
        epochs: passes over them.
        batch: images per step over all processes; strong scaling. Exactly one of this and
            ``batch_per_process`` is given.
        batch_per_process: images per step and process; weak scaling. Placed apart, a process
            serves twice as many, with half of the networks.
        processes_per_node: at least 1.
        placement: together, every process trains all networks; apart, each half of them trains one.
        algorithm: of the all-reduce, see ``collectives``.
        overlap: whether the exchange runs beside the backward.
        bucket_bytes: size of a bucket of gradients; None for what training makes of them.
        decode_cores: cores per process that decode beside the step; where decoding takes the step's
            own cores, the profile's cores are meant.
        cached: images come decoded from memory after the first epoch.
        storage: bytes per second that all nodes together can read; None for no limit.
        cores_per_node: cores of a node; None for as many as the processes want.
        memory: bytes per process that there are; None for no limit.
        variation: standard deviation of a step's time over its mean; None for the profile's.
    """

    images: int
    epochs: int = 1
    batch: int | None = None
    batch_per_process: int | None = None
    processes_per_node: int = 1
    placement: Placement = "together"
    algorithm: str = "auto"
    overlap: bool = True
    bucket_bytes: float | None = None
    decode_cores: int = 1
    cached: bool = False
    storage: float | None = None
    cores_per_node: int | None = None
    memory: float | None = None
    variation: float | None = None

    def __post_init__(self) -> None:
        if (self.batch is None) == (self.batch_per_process is None):
            raise UserError("Give either the batch of a whole step or the batch per process.")
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name.replace('_', ' ')} is {value:g}; it must be above 0.")
        if self.variation is not None and not 0 <= self.variation < 1:
            raise UserError(f"The variation is {self.variation:g}; it must lie in 0 to below 1.")


@dataclass(frozen=True)
class Prediction:
    """What to expect on a number of nodes. Times in seconds, sizes in bytes.

    Attributes:
        nodes, processes: how many.
        batch, batch_per_process: images per step, over all and served by one process.
        step: whole step, from one batch to the next.
        decode, storage: of one process's share of a step: decoding (or serving from memory), and
            reading from storage that all nodes share.
        compute: forward, backward, update, augmentation, ledger, and what of an exchange is work of
            the same cores.
        exchange: gradients on the wire, whether hidden or not.
        exposed: what of the exchange the backward does not hide, with sums and messages that
            nothing can hide.
        latency: of the exchange, what it would take if no byte were sent.
        straggling: waiting for the slowest process.
        images_per_second: over all processes.
        epoch, run: duration.
        efficiency: images per second over those of as many processes that need nobody, 0 to 1.
        speedup: images per second over those of one process.
        memory: of one process.
        fits: whether that is there; None where nobody said how much there is.
        storage_rate: bytes per second read from storage by all nodes.
        bottleneck: step, decode, storage, exchange or stragglers: the largest piece of a step.
    """

    nodes: int
    processes: int
    batch: int
    batch_per_process: int
    step: float
    decode: float
    storage: float
    compute: float
    exchange: float
    exposed: float
    latency: float
    straggling: float
    images_per_second: float
    epoch: float
    run: float
    efficiency: float
    speedup: float
    memory: float
    fits: bool | None
    storage_rate: float
    bottleneck: str


def predict(profile: Profile, link: Link, job: Job, nodes: int) -> Prediction:
    """Predict one number of nodes.

    Raises:
        UserError: networks or a batch that so many processes cannot share.
    """
    processes = nodes * job.processes_per_node
    apart = job.placement == "apart"
    if apart and profile.networks != 2:
        raise UserError(
            "--placement apart needs a method of two networks; the profile's,"
            f" '{profile.method}', has one."
        )
    if apart and processes % 2:
        raise UserError(
            "--placement apart needs an even number of processes, half of them for each network;"
            f" {nodes:,} node{'s' * (nodes > 1)} x {job.processes_per_node} is {processes:,}."
            " Choose other --nodes (2..4096), or an even --processes-per-node."
        )
    batch = job.batch if job.batch is not None else (job.batch_per_process or 0) * processes
    if batch < processes:
        raise UserError(
            f"A batch of {batch:,} leaves nothing to do for some of {processes:,} processes. Choose"
            " a larger --batch-size, or fewer nodes."
        )
    # What one process serves: apart, every image goes to one process of each half.
    share = batch / processes
    served = 2 * share if apart else share
    pieces = _pieces(profile, link, job, nodes, served, apart=apart)
    alone = _pieces(profile, link, job, 1, _batch_alone(job, batch), apart=False, alone=True)
    rate = batch / pieces.step
    rate_alone = _batch_alone(job, batch) / alone.step
    steps = math.ceil(job.images / batch)
    reads = (2 if apart else 1) * (0.0 if job.cached else 1.0)
    memory = _memory(
        profile, job, served, job.images / processes * (2 if apart else 1), apart=apart
    )
    return Prediction(
        nodes=nodes,
        processes=processes,
        batch=batch,
        batch_per_process=math.ceil(served),
        step=pieces.step,
        decode=pieces.decode,
        storage=pieces.storage,
        compute=pieces.compute,
        exchange=pieces.exchange,
        exposed=pieces.exposed,
        latency=pieces.latency,
        straggling=pieces.straggling,
        images_per_second=rate,
        epoch=steps * pieces.step,
        run=steps * pieces.step * job.epochs,
        efficiency=rate / (processes * rate_alone),
        speedup=rate / rate_alone,
        memory=memory,
        fits=None if job.memory is None else memory <= job.memory,
        storage_rate=reads * rate * profile.image_bytes,
        bottleneck=pieces.bottleneck,
    )


@dataclass(frozen=True)
class _Pieces:
    step: float
    decode: float
    storage: float
    compute: float
    exchange: float
    exposed: float
    latency: float
    straggling: float

    @property
    def bottleneck(self) -> str:
        sizes = {
            "step": self.compute,
            "decode": self.decode,
            "storage": self.storage,
            "exchange": self.exposed,
            "stragglers": self.straggling,
        }
        return max(sizes, key=lambda name: sizes[name])


def _pieces(
    profile: Profile,
    link: Link,
    job: Job,
    nodes: int,
    served: float,
    *,
    apart: bool,
    alone: bool = False,
) -> _Pieces:
    """One process's step on ``served`` images; ``alone`` means a single process on free cores."""
    per_node = 1 if alone else job.processes_per_node
    processes = nodes * per_node
    wanted = per_node * profile.cores
    cores = job.cores_per_node or wanted
    crowding = wanted / cores * profile.taking_turns(served) if wanted > cores else 1.0
    slower = crowding * (profile.beside_others(served) if per_node > 1 else 1.0)
    # Apart, a process does one network's half of what was measured for both.
    half = 0.5 if apart else 1.0
    forward = half * profile.forward(served) * slower
    backward = half * profile.backward(served) * slower
    update = half * profile.update(served) * slower
    around = (profile.augment(served) + profile.ledger(served)) * slower

    everyone = holders = Ranks(nodes, per_node, crowding)
    if apart:
        # Each half of the networks lies on half of the nodes, or on half of the only one.
        half_node = per_node // 2 if nodes == 1 else per_node
        holders = Ranks(math.ceil(nodes / 2), half_node, crowding)
    sent = exchange(
        profile, link, holders,
        networks=1 if apart else profile.networks,
        backward=backward,
        algorithm=job.algorithm,
        bucket_bytes=job.bucket_bytes,
        overlap=job.overlap,
        everyone=everyone,
    )  # fmt: skip
    handling = half * profile.exchange_seconds * slower if holders.all > 1 else 0.0
    compute = forward + backward + update + around + handling + sent.work
    late = sent.exposed
    meetings = 0.0
    if apart:
        # Each half must know what the other thinks of the batch before it can weigh its labels.
        meetings = profile.peer_messages
        late += message(profile.peer_bytes * served, link, nodes, per_node)
        late += (meetings - 1) * message(0.0, link, nodes, per_node)
        late += meetings * profile.waking_seconds(crowded=crowding > 1) * crowding

    if profile.decodes_beside:
        decode = served / _decode_rate(profile, job, job.decode_cores)
    else:
        decode = served / _decode_rate(profile, job, profile.cores) * crowding
    read = 0.0
    if job.storage is not None and not job.cached:
        read = served * processes * profile.image_bytes / job.storage
    variation = profile.variation if job.variation is None else job.variation
    # Who meets more than once in a step waits for the slower one of each piece of it. Of n pieces
    # that vary independently, each varies 1 / sqrt(n) times as much as the step.
    straggling = slowest(processes) * variation * compute * math.sqrt(1 + meetings)
    busy = compute + late + straggling
    # Batches are made ahead: beside an accelerator the slower side sets the pace; on shared cores
    # decoding adds to the step. Reading always runs beside.
    step = max(busy, decode, read) if profile.decodes_beside else max(busy + decode, read)
    return _Pieces(step, decode, read, compute, sent.whole, late, sent.latency, straggling)


def slowest(processes: int) -> float:
    """By how many standard deviations the slowest of N normal step times exceeds the mean.

    Blom's approximation of the expected largest order statistic, the normal quantile of
    (N - 0.375) / (N + 0.25) (Blom 1958). 0 for one process, 0.59 for two (exact: 0.56), and within
    1 % of the exact value from ten on.
    """
    if processes <= 1:
        return 0.0
    return NormalDist().inv_cdf((processes - 0.375) / (processes + 0.25))


def _decode_rate(profile: Profile, job: Job, cores: int) -> float:
    return (profile.cached_rate if job.cached else profile.decode_rate) * cores


def _batch_alone(job: Job, batch: int) -> int:
    """The batch of the one process that efficiency compares with."""
    return batch if job.batch_per_process is None else job.batch_per_process


def _memory(profile: Profile, job: Job, served: float, owned: float, *, apart: bool) -> float:
    half = 0.5 if apart else 1.0
    return (
        half * (profile.weight_bytes + profile.optimizer_bytes)
        + half * profile.activation_bytes * served
        + profile.ledger_bytes * owned
        + (profile.cache_bytes * owned if job.cached else 0.0)
    )
