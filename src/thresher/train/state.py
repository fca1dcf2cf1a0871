"""What a checkpoint holds, and how a run goes on from one, also with another number of ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from thresher.dist.agree import join_errors
from thresher.dist.runtime import Runtime
from thresher.ledger.ledger import Ledger
from thresher.ledger.repartition import gather_rows
from thresher.loader.pipeline import Loader
from thresher.train.checkpoint import (
    CheckpointDamagedError,
    load_part,
    set_aside,
    why_unreadable,
)
from thresher.train.learner import Learner
from thresher.train.meter import EpochMetrics, Meter


def parts_of(
    runtime: Runtime,
    learners: Mapping[int, Learner],
    ledger: Ledger,
    meter: Meter,
    loader: Loader,
) -> dict[str, Any]:
    """What this rank writes: networks it owns, and its ledger unless its twin does."""
    parts: dict[str, Any] = {
        f"rank-{runtime.rank}": {
            "meter": meter.state_dict(),
            "unreadable": dict(loader.unreadable),
            "random": _random_state(runtime.device),
        }
    }
    for index, learner in learners.items():
        if runtime.owner(index) == runtime.rank:
            parts[f"network-{index}"] = learner.state_dict()
    if runtime.twin is None or runtime.twin.mine == 0:
        parts[f"ledger-{runtime.group.rank}"] = ledger.state_dict()
    return parts


def meta_of(runtime: Runtime, last: EpochMetrics | None, *, epoch_ended: bool) -> dict[str, Any]:
    """What of the state fits into JSON; the accuracy only where it is that of these weights."""
    return {
        "group_size": runtime.group.size,
        "last": None if last is None else dataclasses.asdict(last),
        "accuracy": last.accuracy if last is not None and epoch_ended else None,
    }


def restore(
    path: Path,
    meta: Mapping[str, Any],
    runtime: Runtime,
    learners: Mapping[int, Learner],
    ledger: Ledger,
    meter: Meter,
    loader: Loader,
) -> None:
    """Fill what was built for this run's ranks with what other ranks may have saved.

    Raises:
        CheckpointDamagedError: on every rank, if one cannot read its parts; nothing was filled.
        UserError: the ledger's parts are not those of these samples.
    """
    size, world_size = int(meta["group_size"]), int(meta["world_size"])
    as_saved = (size, world_size) == (runtime.group.size, runtime.world_size)
    stems = [f"network-{index}" for index in learners]
    if as_saved:
        stems += [f"rank-{runtime.rank}", f"ledger-{runtime.group.rank}"]
    else:
        stems += [f"rank-{rank}" for rank in range(world_size)]
        stems += [f"ledger-{rank}" for rank in range(size)]
    _agree_that_readable(path, meta, stems, runtime)
    for index, learner in learners.items():
        learner.load_state_dict(load_part(path, f"network-{index}"))
    if as_saved:
        own = load_part(path, f"rank-{runtime.rank}")
        ledger.load_state_dict(load_part(path, f"ledger-{runtime.group.rank}"))
        meter.load_state_dict(own["meter"])
        loader.unreadable.update(own["unreadable"])
        _set_random_state(own["random"], runtime.device)
        return
    gather_rows(ledger, (load_part(path, f"ledger-{rank}") for rank in range(size)))
    mine = set(loader.ids.tolist())
    for rank in range(world_size):  # of twins, too, each has met what it could not read
        other = load_part(path, f"rank-{rank}")
        loader.unreadable.update({i: why for i, why in other["unreadable"].items() if i in mine})
        # An epoch's sums are added up over the ranks in the end.
        if rank < size and runtime.group.rank == 0:
            meter.add_state(other["meter"])


def _agree_that_readable(
    path: Path, meta: Mapping[str, Any], stems: Sequence[str], runtime: Runtime
) -> None:
    """Go on only if all ranks can; the first rank has seen the checkpoint whole, on its machine."""
    if runtime.world_size == 1:
        return
    mine = None if runtime.is_first else why_unreadable(path, meta, stems)
    why = join_errors(runtime.gather(mine))
    if why is not None:
        runtime.on_first(lambda: set_aside(path, f"cannot be read ({why})"))
        raise CheckpointDamagedError(why)


def _random_state(device: torch.device) -> dict[str, Any]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].clone())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].clone(), device)
