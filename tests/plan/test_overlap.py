"""Buckets in a queue, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from thresher.dist.buckets import bucket_megabytes
from thresher.plan.overlap import buckets, exchange_queue, exposed, ready_stream, usual_bucket

READY = ((0.25, 0.5), (0.5, 0.6), (1.0, 1.0))


def test_stream_of_one_network() -> None:
    # Shares of 50, 10 and 40 of 100 bytes at 0.25, 0.5 and 1 of 4 s.
    stream = ready_stream(READY, 100, [(0.0, 4.0)])
    assert stream == [(1.0, 50.0), (2.0, pytest.approx(10.0)), (4.0, pytest.approx(40.0))]


def test_buckets_fill_as_gradients_come() -> None:
    stream = [(1.0, 50.0), (2.0, 10.0), (4.0, 40.0)]
    # 50 are enough; 10 more are too few; with the last 40 they are 50.
    assert buckets(stream, 40) == [(1.0, 50.0), (4.0, 50.0)]
    assert buckets(stream, 10) == stream
    assert buckets(stream, math.inf) == [(4.0, 100.0)]
    assert buckets(stream, 60) == [(2.0, 60.0), (4.0, 40.0)]


def test_buckets_are_those_of_training() -> None:
    for parameters in (1_000, 100_000, 240_000, 4_000_000, 60_000_000):
        weight = nn.Parameter(torch.empty(parameters, device="meta"))
        for early in (False, True):
            megabytes = bucket_megabytes([weight], starts_early=early)
            found = usual_bucket(4 * parameters, starts_early=early)
            assert found == pytest.approx(megabytes * 2**20)


def test_second_bucket_waits_for_the_first() -> None:
    # The first goes from 1 to 4, the second is ready at 2 and goes from 4 to 6.
    assert exposed([(1.0, 3.0), (2.0, 2.0)], 5.0) == pytest.approx(1.0)


def test_link_waits_for_the_second_bucket() -> None:
    # The first is through at 2; the second comes at 4 and takes 1.5.
    assert exposed([(1.0, 1.0), (4.0, 1.5)], 4.0) == pytest.approx(1.5)


def test_hidden_exchange_costs_nothing() -> None:
    assert exposed([(1.0, 1.0), (2.0, 1.0)], 5.0) == 0.0
    assert exposed([], 5.0) == 0.0


def test_two_networks_follow_one_another_in_one_stream() -> None:
    stream = ready_stream(((0.5, 0.5), (1.0, 1.0)), 100, [(0.0, 2.0), (2.0, 2.0)])
    assert stream == [(1.0, 50.0), (2.0, 50.0), (3.0, 50.0), (4.0, 50.0)]
    queue = exchange_queue(stream, 50, lambda size: size / 100)
    assert queue == [(1.0, 0.5), (2.0, 0.5), (3.0, 0.5), (4.0, 0.5)]
    assert exposed(queue, 4.0) == pytest.approx(0.5)
    # A bucket may hold the end of one network and the beginning of the next.
    assert buckets(stream, 75) == [(2.0, 100.0), (4.0, 100.0)]
