"""Small sums that ride with gradients, between real processes."""

from __future__ import annotations

import copy
import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import start_processes

from tests import forks
from thresher.config import Compression, Placement, ResolvedConfig, TrainConfig
from thresher.dist.gradients import Exchange
from thresher.dist.group import Group
from thresher.dist.runtime import Runtime
from thresher.train.learner import Learner
from thresher.train.optimizer import make_optimizer
from thresher.train.resolve import Facts, resolve
from thresher.train.team import Team
from thresher.train.together import Together
from thresher.types import StepResult

LR = 0.1
FLAGS = ([1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0])
WEIGHTS = (3.0, 0.5, 2.0, 1.25)
BATCH = 4


def between(ranks: int, work: Callable[..., dict[str, Any]], *words: Any) -> list[dict[str, Any]]:
    """What each of several processes found."""
    port = forks.free_port()
    with tempfile.TemporaryDirectory() as name:
        start_processes(
            _rank, (ranks, port, Path(name), work, words), nprocs=ranks,
            start_method=forks.context().get_start_method(),
        )  # fmt: skip
        return [torch.load(Path(name, f"{rank}.pt")) for rank in range(ranks)]


def _rank(rank: int, ranks: int, port: int, folder: Path, work: Any, words: Any) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(ranks),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1",
    )  # fmt: skip
    torch.save(work(rank, *words), folder / f"{rank}.pt")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


def images(rank: int, part: int = 0) -> Tensor:
    maker = torch.Generator().manual_seed(17 * rank + part)
    return torch.randn(BATCH, 3, 8, 8, generator=maker)


def exchanged(rank: int, compression: Compression) -> dict[str, Any]:
    """Two steps of an exchange by itself."""
    dist.init_process_group("gloo")
    nets = {0: network()}
    exchange = Exchange(nets, Group(rank, 3, dist.group.WORLD), compression, num_riders=3)
    sums = []
    for step in range(2):
        with exchange.keep_to_myself():
            exchange.forward(0, images(rank, part=1)).sum().backward()
        loss = exchange.forward(0, images(rank)).sum()
        mine = torch.tensor([1 / 3 + rank, 1e4 * rank, float(step)])
        sums.append(exchange.backward([loss], mine))
    grads = [p.grad.clone() for p in nets[0].parameters() if p.grad is not None]
    dist.barrier()
    del exchange
    dist.destroy_process_group()
    return {"sums": torch.stack(sums), "grads": grads}


@pytest.mark.parametrize("compression", ["none", "bf16"])
def test_riders_arrive_whole_and_alike(compression: Compression) -> None:
    found = between(3, exchanged, compression)
    for one in found:
        expected = torch.tensor([[4.0, 3e4, 0.0], [4.0, 3e4, 3.0]])
        torch.testing.assert_close(one["sums"], expected, rtol=1e-6, atol=0)
    for one, other in itertools.pairwise(found):
        assert torch.equal(one["sums"], other["sums"]), "to the bit"
        assert all(map(torch.equal, one["grads"], other["grads"]))


def config(ranks: int, **change: Any) -> ResolvedConfig:
    given = TrainConfig(
        data="made", method="ce", model="small_cnn", image_size=8, batch_size=BATCH * ranks,
        epochs=1, precision="fp32", optimizer="sgd", weight_decay=0.0, **change,
    )  # fmt: skip
    return resolve(given, Facts(BATCH * ranks, 8, "cpu", 1))


def result_of(logits: list[Tensor], rank: int) -> StepResult:
    """Losses and weights that differ between the ranks and the networks."""
    weight = torch.tensor(WEIGHTS[rank])
    sums = tuple(weight * one.square().sum() / BATCH for one in logits)
    return StepResult(sums, tuple(weight + index for index in range(len(logits))), {})


def stepped(
    rank: int, ranks: int, networks: int, change: dict[str, Any], placement: Placement
) -> dict[str, Any]:
    """One step of a team."""
    runtime = Runtime("cpu", "fp32", placement=placement)
    settings = config(ranks, **change)
    with Together(networks, runtime) as together:
        learners = {i: Learner(network(), settings, runtime) for i in runtime.held(networks)}
        team = Team(learners, networks, settings, runtime, together)
        place = runtime.group.rank
        for part in range(settings.accumulate):
            last = part == settings.accumulate - 1
            with team.part(last):
                result = result_of(team.networks.students(images(place, part)), place)
                if not last:
                    team.add_part(result)
                else:
                    told = team.backward(result, FLAGS[rank])
        team.step(LR)
        assert told is not None
        found = {
            "flags": told.wait().clone(),
            "states": {i: copy.deepcopy(one.module.state_dict()) for i, one in learners.items()},
        }
        del team, learners
    runtime.close()
    return found


def by_hand(group: int, index: int, parts: int) -> dict[str, Tensor]:
    """A network after a step down the mean loss of all ranks; its statistics are their mean."""
    net = network()
    states, total, weights = [], torch.zeros(()), 0.0
    for rank in range(group):
        own = copy.deepcopy(net)
        for part in range(parts):
            logits = torch.func.functional_call(
                own, dict(net.named_parameters()), images(rank, part)
            )
            result = result_of([logits], rank)
            total = total + result.loss_sums[0]
            weights += float(result.weight_sums[0]) + index
        states.append(own.state_dict())
    grads = torch.autograd.grad(total / weights, list(net.parameters()))
    optimizer = make(net)
    for parameter, grad in zip(net.parameters(), grads, strict=True):
        parameter.grad = grad
    optimizer.step()
    state = {**states[0], **dict(net.named_parameters())}
    for name in ("1.running_mean", "1.running_var"):
        state[name] = torch.stack([one[name] for one in states]).mean(dim=0)
    return state


def make(net: nn.Module) -> torch.optim.Optimizer:
    optimizer = make_optimizer(net, config(1), torch.device("cpu"))
    for group in optimizer.param_groups:
        group["lr"] = LR
    return optimizer


@pytest.mark.parametrize(
    ("ranks", "networks", "change", "placement"),
    [
        (2, 1, {}, "together"),
        (3, 2, {"accumulate": 2}, "together"),
        (2, 1, {"compress_gradients": "bf16"}, "together"),
        (4, 2, {}, "apart"),
    ],
    ids=["two", "parts", "compressed", "apart"],
)
def test_no_flag_weight_or_statistic_is_lost(
    ranks: int, networks: int, change: dict[str, Any], placement: Placement
) -> None:
    found = between(ranks, stepped, ranks, networks, change, placement)
    group = ranks // 2 if placement == "apart" else ranks
    tolerance = 2e-2 if change.get("compress_gradients") else 1e-4
    for one in found:
        flags = torch.tensor(FLAGS[:ranks]).sum(dim=0)
        assert torch.equal(one["flags"] > 0, flags > 0)
        for index, state in one["states"].items():
            expected = by_hand(group, index, change.get("accumulate", 1))
            for name, value in expected.items():
                exact = 1e-5 if "running" in name else tolerance
                torch.testing.assert_close(state[name], value, rtol=exact, atol=exact, msg=name)
    by_index = [(index, state) for one in found for index, state in one["states"].items()]
    for (index, one), (other_index, other) in itertools.combinations(by_index, 2):
        if index == other_index:
            assert all(torch.equal(one[name], other[name]) for name in one), "to the bit"
