"""Seconds of all-reduces, worked out by hand."""

from __future__ import annotations

import pytest

from thresher.errors import UserError
from thresher.plan.collectives import ALGORITHMS, all_reduce, message
from thresher.plan.link import Level, Link

# 1 s per message, 10 bytes per second: numbers that a hand can follow.
FLAT = Link("flat", (Level("across", 1.0, 10.0),))
NODES = Link("nodes", (Level("node", 0.5, 100.0), Level("across", 1.0, 10.0)))
RACKS = Link(
    "racks",
    (Level("rack", 1.0, 10.0, size=4), Level("across", 2.0, 10.0, oversubscription=5.0)),
)


def test_ring_of_four() -> None:
    # 6 messages of 40 / 4 = 10 bytes: 6 * (1 + 1).
    assert all_reduce(40, FLAT, 4, algorithm="ring") == pytest.approx(12.0)


def test_ring_is_as_slow_as_its_slowest_edge() -> None:
    # 2 nodes of 2: 6 messages of 10 bytes, over the outer wire 1 + 1 s each.
    assert all_reduce(40, NODES, 2, 2, "ring") == pytest.approx(12.0)


def test_halving_doubling_of_four() -> None:
    # Halving sends 20 and 10 bytes, doubling 10 and 20: 4 * 1 + 60 / 10.
    assert all_reduce(40, FLAT, 4, algorithm="halving-doubling") == pytest.approx(10.0)


def test_halving_doubling_of_five_folds_one_in() -> None:
    # As of four, and the whole 40 bytes there and back: 2 * (1 + 4).
    assert all_reduce(40, FLAT, 5, algorithm="halving-doubling") == pytest.approx(20.0)


def test_halving_doubling_sends_most_over_the_crowded_wires() -> None:
    # 8 = 4 in a rack * 2 racks. First 20 bytes across at 10 / 5: 2 * (2 + 10); then inside 10 and
    # 5 bytes: 2 * (1 + 1) + 2 * (1 + 0.5).
    assert all_reduce(40, RACKS, 8, algorithm="halving-doubling") == pytest.approx(31.0)


def test_hierarchical_sends_little_over_the_crowded_wires() -> None:
    # Inside: 2 messages each way, 30 bytes: 2 * (2 + 3). Across: 10 bytes remain, half of them
    # each way at 2 bytes/s: 2 * (2 + 2.5).
    assert all_reduce(40, RACKS, 8, algorithm="hierarchical") == pytest.approx(19.0)


def test_hierarchical_shares_the_node_s_wire() -> None:
    # Inside 2 processes: 2 * (0.5 + 20 / 100). Across, both send at once: 20 bytes remain, half
    # each way at 10 / 2: 2 * (1 + 2).
    assert all_reduce(40, NODES, 2, 2, "hierarchical") == pytest.approx(7.4)


def test_doubling_of_four() -> None:
    assert all_reduce(40, FLAT, 4, algorithm="doubling") == pytest.approx(10.0)


def test_adding_up_costs() -> None:
    slow_adder = Link("flat", FLAT.levels, reduction=5.0)
    # A ring of four adds 3 pieces of 10 bytes: 6 s more.
    assert all_reduce(40, slow_adder, 4, algorithm="ring") == pytest.approx(18.0)


def test_shared_medium_is_divided() -> None:
    bus = Link("bus", (Level("bus", 0.0, 40.0, shared=True),))
    assert all_reduce(40, bus, 4, algorithm="ring") == pytest.approx(6 * 10 / (40 / 4))


def test_one_message_goes_over_the_outermost_wire() -> None:
    assert message(10, NODES, 2, 2) == pytest.approx(1 + 10 / 5)
    assert message(10, FLAT, 1) == 0.0


@pytest.mark.parametrize("name", ["auto", *ALGORITHMS])
@pytest.mark.parametrize("link", [FLAT, NODES, RACKS], ids=lambda link: link.name)
def test_limits_and_order(name: str, link: Link) -> None:
    assert all_reduce(40, link, 1, algorithm=name) == 0.0
    times = [all_reduce(1000, link, 2**p, algorithm=name) for p in range(1, 8)]
    assert times == sorted(times), "more nodes never make one exchange faster"
    sizes = [all_reduce(size, link, 16, 2, name) for size in (0, 1, 10, 1e3, 1e6)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("nodes", [2, 3, 8, 100])
def test_auto_is_the_fastest(nodes: int) -> None:
    for size in (1, 1e3, 1e7):
        auto = all_reduce(size, RACKS, nodes)
        assert auto == min(all_reduce(size, RACKS, nodes, algorithm=n) for n in ALGORITHMS)


def test_no_wire_is_free_without_latency_and_with_endless_bandwidth() -> None:
    free = Link("free", (Level("across", 0.0, float("inf")),))
    assert all_reduce(1e9, free, 1024) == 0.0


def test_bytes_bound_all_bandwidth_optimal_ones() -> None:
    wide = Link("wide", (Level("across", 0.0, 10.0),))
    for name in ("ring", "halving-doubling", "hierarchical"):
        # 2 (P - 1) / P * n / bandwidth (Patarasuk and Yuan 2009, the lower bound).
        assert all_reduce(80, wide, 8, algorithm=name) == pytest.approx(2 * 7 / 8 * 8)


def test_unknown_algorithm() -> None:
    with pytest.raises(UserError, match="Did you mean ring"):
        all_reduce(1, FLAT, 2, algorithm="rings")
