"""What one rank does for ``scaling.py``: Thresher's training steps beside plain PyTorch's.

Started by torchrun, once per process. Both sides train the same network by cross-entropy (or, with
--method mct, both networks of Thresher's own method) on the same made batches, in blocks taken in
turn, with and without the exchange between processes. Rank 0 writes what all measured as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from thresher.config import Compression, TrainConfig
from thresher.dist.runtime import Runtime
from thresher.ledger.ledger import Ledger
from thresher.loader.augment import NUM_DRAWS
from thresher.loader.draws import uniforms
from thresher.methods import all_methods
from thresher.methods.base import Task, with_mode
from thresher.models.factory import create_model
from thresher.train.build import build_augmentation
from thresher.train.flags import Flags
from thresher.train.interrupt import StopRequest
from thresher.train.learner import Learner
from thresher.train.meter import Meter
from thresher.train.resolve import Facts, resolve
from thresher.train.team import Team
from thresher.train.together import Together
from thresher.types import Batch, Progress, View

if __package__:
    from .blocks import Steps, blocks, counters
    from .last_gradient import Clock, exposed_seconds
else:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from cluster.blocks import Steps, blocks, counters
    from cluster.last_gradient import Clock, exposed_seconds

Exchange = Literal["all", "flags", "nothing"]
"""What the ranks tell one another in a step. With the flags alone each step still waits for the
slowest rank, but nothing travels that takes time."""
Side = Callable[[int, int, Exchange], None]
"""Makes one step: (its number, the epoch that it stands for, what the ranks tell one another)."""
CLASSES = 10
SIDE = 32
EPOCHS = 30
POOL = 16
"""Batches that are made beforehand; loading is measured elsewhere."""


@dataclass
class Made:
    """Canvases and labels in memory, the same for both sides."""

    canvases: list[Tensor]
    labels: list[Tensor]

    @classmethod
    def of(cls, batch: int, seed: int) -> Made:
        maker = torch.Generator().manual_seed(seed)
        shape = (batch, 3, SIDE, SIDE)
        return cls(
            [torch.randint(0, 256, shape, generator=maker, dtype=torch.uint8) for _ in range(POOL)],
            [torch.randint(0, CLASSES, (batch,), generator=maker) for _ in range(POOL)],
        )


def ours(
    runtime: Runtime,
    made: Made,
    model: str,
    method_name: str,
    batch: int,
    compression: Compression,
    clock: Clock,
) -> tuple[Side, Callable[[], None]]:
    """(step, close) of Thresher: method, ledger, meter, flags, averages."""
    method_class = all_methods()[method_name]
    total = batch * runtime.group.size
    config = resolve(
        TrainConfig(
            data="made", method=method_name, model=model, image_size=SIDE, batch_size=total,
            epochs=EPOCHS, placement="together" if runtime.twin is None else "apart",
            compress_gradients=compression,
        ),
        Facts(POOL * total, SIDE, "cpu", runtime.cores),
    )  # fmt: skip
    task = Task(CLASSES, POOL * total, EPOCHS, has_clean=False)
    method = method_class(method_class.Options(), task)
    rows = np.arange(POOL * batch)
    ledger = Ledger(rows, torch.cat(made.labels).numpy(), method.columns)
    augmentation = build_augmentation(model, "small", True, SIDE)
    together = Together(method.networks, runtime)
    learners = {
        index: Learner(create_model(model, CLASSES), config, runtime)
        for index in runtime.held(method.networks)
    }
    team = Team(learners, method.networks, config, runtime, together)
    for learner in learners.values():
        clock.watch(learner.module.parameters())
    meter = Meter(method.networks, runtime.device)
    flags = Flags(runtime, StopRequest())

    def step(number: int, epoch: int, exchange: Exchange) -> None:
        place = number % POOL
        positions = torch.arange(place * batch, (place + 1) * batch)
        ids = positions.numpy()
        views = tuple(
            augmentation(made.canvases[place], view, draws(number, ids, 16 + i))
            for i, view in enumerate(method.views)
        )
        valid = torch.ones(batch, dtype=torch.bool)
        moment = Progress(epoch, EPOCHS, number, 10**6, 0, 1, epoch, EPOCHS)
        progress = with_mode(method, moment)
        whole = Batch(positions, views, made.labels[place], valid)
        with contextlib.nullcontext() if exchange == "all" else alone(runtime, team):
            result = method.step(team.networks, whole, ledger.rows(positions), progress)
            meter.add(result, valid)
            broken = flags.looks_at_the_clock(number) and not meter.is_finite()
            raised = flags.raised(number, save=False, broken=broken)
            pending = None
            if exchange == "all":
                pending = team.backward(result, raised)
                clock.end()
            else:
                if exchange == "flags":
                    assert raised is not None
                    pending = runtime.start_flags(raised)
                team.add_part(result)
        ledger.update(positions, result.records)
        flags.read(pending)
        if exchange == "all":
            team.step(0.01)
            runtime.tick()
        else:
            team._weights = None  # of a batch whose last part never comes
            for learner in learners.values():
                learner.prepare(0.01)
                learner.step()

    together.__enter__()
    return step, lambda: together.__exit__(None, None, None)


def draws(number: int, ids: np.ndarray, stream: int) -> Tensor:
    return torch.from_numpy(uniforms(0, number, ids, stream, NUM_DRAWS))


@contextlib.contextmanager
def alone(runtime: Runtime, team: Team) -> Iterator[None]:
    """As if there were no other rank: no gradients, and one's own predictions for the twin's."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(team.part(last=False))
        if runtime.twin is not None:
            mine = runtime.twin.mine

            def mirrored(own: Tensor) -> list[Tensor]:
                return [own if index == mine else own.detach() for index in range(2)]

            stack.enter_context(mock.patch.object(runtime.twin, "both", mirrored))
        yield


def plain(runtime: Runtime, made: Made, model: str, clock: Clock) -> Side:
    """DistributedDataParallel as its tutorial has it, on the same views, in the same precision."""
    network = create_model(model, CLASSES).to(memory_format=torch.channels_last)
    wrapped = DistributedDataParallel(network) if runtime.world_size > 1 else network
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    augmentation = build_augmentation(model, "small", True, SIDE)
    clock.watch(network.parameters())

    def step(number: int, _: int, exchange: Exchange) -> None:
        place = number % POOL
        ids = np.arange(len(made.labels[place]))
        images = augmentation(made.canvases[place], View.WEAK, draws(number, ids, 16))
        quiet = isinstance(wrapped, DistributedDataParallel) and exchange != "all"
        with wrapped.no_sync() if quiet else contextlib.nullcontext():
            with runtime.autocast():
                logits = wrapped(images)
            loss = F.cross_entropy(logits.float(), made.labels[place])
            optimizer.zero_grad()
            loss.backward()
            clock.end()
        optimizer.step()
        loss.item()  # every tutorial logs it

    return step


def _do_nothing(_: int, __: bool) -> None:
    pass


def numbers() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, required=True, help="per process")
    parser.add_argument("--model", default="small_cnn")
    parser.add_argument("--method", default="ce")
    parser.add_argument("--placement", default="together")
    parser.add_argument("--compress-gradients", default="none")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12, help="of one block")
    parser.add_argument("--interface", default="lo")
    parser.add_argument("--relay", type=int, help="process that carries packets between hosts")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    runtime = Runtime("cpu", "bf16", placement=given.placement)
    torch.set_num_threads(1)
    made = Made.of(given.batch, seed=runtime.group.rank)
    clocks = {"ours": Clock(), "plain": Clock()}
    our_step, close = ours(
        runtime, made, given.model, given.method, given.batch, given.compress_gradients,
        clocks["ours"],
    )  # fmt: skip
    count = numbers()

    def block(step: Side, exchange: Exchange) -> Steps:
        def run(steps: int, timed: bool) -> None:
            for clock in clocks.values():
                clock.counts = timed
            for turn in range(steps):
                # Over a whole run, in whose last part a method may have more to do.
                step(next(count), int((turn + 0.5) * EPOCHS / steps), exchange)

        return run

    sides = {"ours": block(our_step, "all")}
    if given.method == "ce":
        sides["plain"] = block(plain(runtime, made, given.model, clocks["plain"]), "all")
    if runtime.world_size > 1:
        sides["ours, in step"] = block(our_step, "flags")
        sides["ours, alone"] = block(our_step, "nothing")
        by_itself = block(our_step, "nothing")
        sides["ours, the others idle"] = by_itself if runtime.is_first else _do_nothing
    for side in sides.values():
        side(given.steps, False)
    found = blocks(sides, given.rounds, given.steps, counters(given.interface, given.relay))
    own = {name: statistics.median(b.own for b in side) for name, side in found.items()}
    everyone = runtime.gather(own)
    everyones_clocks = runtime.gather(clocks)
    if runtime.is_first:
        sides_found = {
            name: {
                "seconds_per_step": statistics.median(b.seconds for b in side) / given.steps,
                "own_seconds_per_step": [one[name] / given.steps for one in everyone],
                "all": [b.seconds / given.steps for b in side],
                "bytes_per_step": statistics.median(b.sent for b in side) / given.steps,
                "carrying_per_step": statistics.mean(b.carrying for b in side) / given.steps,
            }
            | (
                {"exposed_per_step": exposed_seconds([one[name] for one in everyones_clocks])}
                if name in clocks
                else {}
            )
            for name, side in found.items()
        }
        given.out.write_text(json.dumps({"sides": sides_found}))
    close()
    runtime.close()


if __name__ == "__main__":
    main()
