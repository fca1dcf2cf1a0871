"""Buckets in a queue, worked out by hand."""

from __future__ import annotations

import math

import pytest

from thresher.plan.overlap import buckets, exchange_queue, exposed

READY = ((0.25, 0.5), (0.5, 0.6), (1.0, 1.0))


def test_buckets_fill_as_gradients_come() -> None:
    # 100 bytes: 50 at a quarter of the time; 10 more are too few; with the last 40 they are 50.
    assert buckets(READY, 100, 40) == [(0.25, 50.0), (1.0, pytest.approx(50.0))]
    assert buckets(READY, 100, 10) == [
        (0.25, 50.0), (0.5, pytest.approx(10.0)), (1.0, pytest.approx(40.0)),
    ]  # fmt: skip
    assert buckets(READY, 100, math.inf) == [(1.0, 100.0)]


def test_second_bucket_waits_for_the_first() -> None:
    # The first goes from 1 to 4, the second is ready at 2 and goes from 4 to 6.
    assert exposed([(1.0, 3.0), (2.0, 2.0)], 5.0) == pytest.approx(1.0)


def test_link_waits_for_the_second_bucket() -> None:
    # The first is through at 2; the second comes at 4 and takes 1.5.
    assert exposed([(1.0, 1.0), (4.0, 1.5)], 4.0) == pytest.approx(1.5)


def test_hidden_exchange_costs_nothing() -> None:
    assert exposed([(1.0, 1.0), (2.0, 1.0)], 5.0) == 0.0
    assert exposed([], 5.0) == 0.0


def test_two_networks_follow_one_another() -> None:
    queue = exchange_queue(
        ((0.5, 0.5), (1.0, 1.0)), 100, 50, [(0.0, 2.0), (2.0, 2.0)], lambda size: size / 100
    )
    assert queue == [(1.0, 0.5), (2.0, 0.5), (3.0, 0.5), (4.0, 0.5)]
    assert exposed(queue, 4.0) == pytest.approx(0.5)
