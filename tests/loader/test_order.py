from __future__ import annotations

import numpy as np
import pytest

from thresher.loader.order import Order, choose_num_homes


@pytest.mark.parametrize(("num", "batch"), [(2000, 128), (13, 4), (997, 60), (5, 12), (120, 12)])
def test_every_sample_is_served_exactly_once(num: int, batch: int) -> None:
    order = Order(num, batch, seed=1, num_homes=choose_num_homes(num))
    for epoch in range(3):
        plan = order.epoch(epoch)
        assert plan.shape == (order.steps, batch)
        np.testing.assert_array_equal(np.sort(plan[plan >= 0]), np.arange(num))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    order = Order(500, 50, seed=1, num_homes=12)
    assert (order.epoch(0) != order.epoch(1)).any()
    assert (order.epoch(0) != Order(500, 50, seed=2, num_homes=12).epoch(0)).any()
    np.testing.assert_array_equal(order.epoch(4), Order(500, 50, seed=1, num_homes=12).epoch(4))


@pytest.mark.parametrize("num", [1000, 1007, 24])
@pytest.mark.parametrize("world", [2, 3, 4, 6, 12])
def test_global_batches_are_the_same_sets_at_every_world_size(num: int, world: int) -> None:
    single = Order(num, 48, seed=9, num_homes=12)
    ranks = [Order(num, 48, 9, rank, world, 12) for rank in range(world)]
    for epoch in range(2):
        plans = [order.epoch(epoch) for order in ranks]
        for step, expected in enumerate(single.epoch(epoch)):
            together = np.concatenate([plan[step] for plan in plans])
            assert set(together[together >= 0]) == set(expected[expected >= 0])


def test_samples_stay_with_their_rank() -> None:
    ranks = [Order(1000, 48, 9, rank, 4, 12) for rank in range(4)]
    for order in ranks:
        for epoch in range(3):
            plan = order.epoch(epoch)
            np.testing.assert_array_equal(np.sort(plan[plan >= 0]), order.owned)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([order.owned for order in ranks])), np.arange(1000)
    )


def test_no_batch_is_much_emptier_than_the_rest() -> None:
    plan = Order(2000, 128, seed=0, num_homes=120).epoch(0)
    filled = (plan >= 0).sum(axis=1)
    assert filled[:-1].min() >= 120
    assert filled[-1] >= 80


def test_neighbours_change_from_epoch_to_epoch() -> None:
    """Pairs that share a batch in one epoch share one in the next no more than by chance."""
    order = Order(1200, 60, seed=0, num_homes=60)
    first, second = ({frozenset(row) for row in order.epoch(e)} for e in (0, 1))
    pairs = [len(a & b) for a in first for b in second]  # 20 x 20 overlaps of 60: 3 on average
    assert np.mean(pairs) == pytest.approx(3.0, abs=0.01)
    assert max(pairs) < 15
