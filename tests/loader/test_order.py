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


SIZES = [(1, 12), (5, 12), (11, 12), (12, 12), (13, 12), (997, 60), (1000, 60), (2000, 120)]


@pytest.mark.parametrize("batch", [60, 120, 420])
@pytest.mark.parametrize(
    ("num", "homes", "world"),
    [(*size, world) for size in SIZES for world in (1, 2, 3, 4, 5, 6, 12) if size[1] % world == 0],
)
def test_promises_hold_for_any_size(num: int, homes: int, world: int, batch: int) -> None:
    single = Order(num, batch, 7, num_homes=homes)
    ranks = [Order(num, batch, 7, rank, world, homes) for rank in range(world)]
    for epoch in range(2):
        # Its shape says that no rank has more than its even share of a step.
        plans = np.stack([order.epoch(epoch) for order in ranks])
        assert plans.shape == (world, single.steps, batch // world)
        np.testing.assert_array_equal(np.sort(plans[plans >= 0]), np.arange(num))
        together = np.moveaxis(plans, 0, 1).reshape(single.steps, batch)
        np.testing.assert_array_equal(np.sort(together), np.sort(single.epoch(epoch)))
    for order in ranks:
        rows = order.positions(1)
        np.testing.assert_array_equal(order.owned[rows[rows >= 0]], order.epoch(1)[rows >= 0])


def test_batches_are_full_but_for_an_even_share() -> None:
    """2,448 places for 2,330 samples: each batch lacks about 118 / 21 of 118."""
    order = Order(2330, 118, seed=3, num_homes=144)
    filled = (order.epoch(0) >= 0).sum(axis=1)
    assert filled.sum() == 2330
    assert filled.min() >= 100


def test_homes_are_mixtures_where_files_lie_sorted_by_class() -> None:
    """Chi-square of the classes in each home and batch, 20 classes of 600, given in order."""
    num, classes, homes, batch = 12_000, 20, 120, 120
    labels = np.arange(num) * classes // num
    statistics = []
    for seed in range(5):
        order = Order(num, batch, seed, num_homes=homes)
        groups = [Order(num, batch, seed, r, homes, homes).owned for r in range(homes)]
        for epoch in (0, 1, 40):
            groups += list(order.epoch(epoch))
        counts = np.stack([np.bincount(labels[group], minlength=classes) for group in groups])
        expected = counts.sum(axis=1, keepdims=True) / classes
        statistics.append(((counts - expected) ** 2 / expected).sum(axis=1))
    # Chi-square with 19 degrees of freedom, less 1 % since samples are drawn without replacement.
    every = np.concatenate(statistics)
    assert every.mean() == pytest.approx(19 * 0.99, rel=0.03)
    assert every.var() == pytest.approx(2 * 19, rel=0.15)
    assert every.max() < 60  # a chance of 4e-6 for each of 2,400


def test_a_samples_step_is_independent_from_epoch_to_epoch() -> None:
    order = Order(6000, 60, seed=5, num_homes=60)
    steps = np.empty((40, 6000), dtype=np.int64)
    for epoch in range(40):
        plan = order.epoch(epoch)
        steps[epoch, plan.reshape(-1)] = np.repeat(np.arange(order.steps), 60)
    correlation = np.corrcoef(steps)[~np.eye(40, dtype=bool)]
    assert np.abs(correlation).max() < 5 / np.sqrt(6000)
    # Over the epochs every sample is served early and late alike.
    assert steps.mean(axis=0).std() == pytest.approx(100 / np.sqrt(12 * 40), rel=0.05)


def test_a_rank_makes_its_share_alone() -> None:
    """A rank of 322,560 holds 3,100 of 10**9 samples, whose homes nobody ever writes down."""
    order = Order(10**9, 3_225_600, 1, rank=5, world_size=322_560, num_homes=322_560)
    plan = order.epoch(3)
    assert len(order.owned) == 3101
    np.testing.assert_array_equal(np.sort(plan[plan >= 0]), order.owned)
    assert order.owned.std() == pytest.approx(10**9 / np.sqrt(12), rel=0.03)


def test_machines_as_they_are_built_divide_the_homes() -> None:
    fewest = {8: 1, 16: 3840, 64: 46_080, 128: 645_120, 1024: 5_160_960}
    for world, num in fewest.items():
        assert choose_num_homes(num) % world == 0
    counts = [choose_num_homes(num) for num in (1, 2000, 10**5, 10**6, 10**9)]
    assert counts == sorted(counts)
