"""How gradients come together into buckets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thresher.dist.buckets import bucket_megabytes
from thresher.dist.gradients import Exchange, running_statistics
from thresher.dist.group import Group
from thresher.models.factory import create_model

RIDERS = 7


def buckets(exchange: Exchange) -> list[int]:
    """Bytes of each, in the order in which they travel."""
    assert exchange._ddp is not None
    found = exchange._ddp._get_ddp_logging_data()
    return [int(size) for size in found["rebuilt_bucket_sizes"].split(",")]


def step(exchange: Exchange, networks: dict[int, nn.Module]) -> None:
    images = torch.randn(4, 3, 16, 16)
    losses = [exchange.forward(index, images).sum() for index in networks]
    exchange.backward(losses, torch.arange(RIDERS, dtype=torch.float32))


def test_the_gradients_of_large_networks_travel_in_several_buckets(pair: Group) -> None:
    networks = {index: create_model("small_resnet", 10) for index in range(2)}
    whole = sum(4 * p.numel() for network in networks.values() for p in network.parameters())
    riders = RIDERS + sum(buffer.numel() for buffer in running_statistics([*networks.values()]))
    exchange = Exchange(networks, pair, "none", RIDERS)
    step(exchange, networks)  # PyTorch writes its figures down when it begins another step
    first = buckets(exchange)
    step(exchange, networks)
    assert buckets(exchange) == first, "the first step's are those of all others"
    assert len(first) >= 6
    assert sum(first) == whole + 4 * riders
    assert max(first) < 0.3 * whole


def test_what_a_step_of_a_small_network_sums_up_is_one_message(pair: Group) -> None:
    networks = {0: create_model("small_cnn", 10)}
    exchange = Exchange(networks, pair, "none", RIDERS)
    for _ in range(2):
        step(exchange, networks)
    assert len(buckets(exchange)) == 1


def test_where_it_starts_early_little_of_a_small_network_is_left_at_the_end(pair: Group) -> None:
    networks = {0: create_model("small_cnn", 10)}
    exchange = Exchange(networks, pair, "none", RIDERS, starts_early=True)
    step(exchange, networks)
    step(exchange, networks)
    first, last = buckets(exchange)
    assert last < 0.1 * first


def test_riders_take_the_first_bucket(pair: Group) -> None:
    """The last would do, but the end of backward is when an exchange is waited for."""
    networks = {0: create_model("small_resnet", 10)}
    exchange = Exchange(networks, pair, "none", RIDERS)
    for _ in range(2):
        step(exchange, networks)
    assert exchange._ddp is not None
    found = exchange._ddp._get_ddp_logging_data()["rebuilt_per_bucket_param_indices"]
    first, *others = [bucket.split() for bucket in found.split(",")]
    assert others
    assert first[0] == str(len(list(networks[0].parameters())))


def test_forming_the_buckets_leaves_no_gradient(pair: Group) -> None:
    network = create_model("small_cnn", 10)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Exchange({0: network}, pair, "bf16", RIDERS)
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_parameters_of_no_part_stay_at_home(pair: Group) -> None:
    network = nn.ModuleDict({"body": nn.Flatten(), "head": nn.Linear(768, 2)})
    network["unused"] = nn.Linear(2, 2)
    network.forward = lambda images: network["head"](network["body"](images))  # type: ignore[method-assign]
    exchange = Exchange({0: network}, pair, "none", RIDERS, {"unused.weight", "unused.bias"})
    for _ in range(2):
        step(exchange, {0: network})
    assert network["unused"].weight.grad is None
    assert network["head"].weight.grad is not None


@pytest.mark.parametrize(
    ("values", "expected", "early"),
    [
        (100, 1.0, 0.25), (2**17, 1.0, 0.375), (2**19, 1.0, 1.0), (6 * 2**20, 2.0, 2.0),
        (10**9, 25.0, 25.0),
    ],
)  # fmt: skip
def test_a_twelfth_of_all_within_bounds(values: int, expected: float, early: float) -> None:
    with torch.device("meta"):
        weights = [nn.Parameter(torch.empty(values))]
        assert bucket_megabytes(weights, starts_early=False) == expected
        assert bucket_megabytes(weights, starts_early=True) == early
