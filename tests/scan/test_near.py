"""The index of near hashes against comparing all with all."""

from __future__ import annotations

import time

import numpy as np
import pytest

from thresher.scan.near import groups_of, near_pairs


def all_pairs(hashes: np.ndarray, distance: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if int(np.bitwise_count(hashes[i] ^ hashes[j])) <= distance
    }


def plant(hashes: np.ndarray, distance: int, num: int, rng: np.random.Generator) -> list[list[int]]:
    """Make ``num`` pairs that differ in 0 to ``distance`` bits."""
    chosen = rng.choice(len(hashes), (num, 2), replace=False)
    for i, j in chosen.tolist():
        flips = rng.choice(64, rng.integers(0, distance + 1), replace=False).astype(np.uint64)
        hashes[j] = hashes[i] ^ np.bitwise_or.reduce(np.uint64(1) << flips, initial=np.uint64(0))
    return np.sort(chosen, axis=1).tolist()


@pytest.mark.parametrize("distance", [0, 1, 4, 8, 12, 16])
def test_finds_what_comparing_all_with_all_finds(distance: int) -> None:
    rng = np.random.default_rng(distance)
    # Few free bits, so that there are many pairs at every distance.
    hashes = rng.integers(0, 1 << 20, 300, dtype=np.uint64) * np.uint64(0x0000100001000401)
    found = near_pairs(hashes, distance)
    assert {tuple(pair) for pair in found.tolist()} == all_pairs(hashes, distance)
    assert len(np.unique(found, axis=0)) == len(found)


@pytest.mark.parametrize("num", [2, 30, 3000, 60_000])
def test_finds_every_planted_pair_at_any_size(num: int) -> None:
    rng = np.random.default_rng(num)
    hashes = rng.integers(0, 1 << 64, num, dtype=np.uint64, endpoint=False)
    planted = plant(hashes, 8, min(num // 2, 500), rng)
    found = {tuple(pair) for pair in near_pairs(hashes, 8).tolist()}
    assert {tuple(pair) for pair in planted} <= found


def test_nothing_to_compare() -> None:
    assert near_pairs(np.zeros(0, dtype=np.uint64), 8).shape == (0, 2)
    assert near_pairs(np.zeros(1, dtype=np.uint64), 8).shape == (0, 2)
    with pytest.raises(ValueError, match="0 to 16"):
        near_pairs(np.zeros(2, dtype=np.uint64), 17)


def test_a_second_opinion_drops_pairs() -> None:
    hashes = np.array([1, 1, 3, 7], dtype=np.uint64)
    found = near_pairs(hashes, 2, confirm=lambda i, j: (i == 0) & (j == 1))
    assert found.tolist() == [[0, 1]]


def test_a_hundred_thousand_like_pictures_neither_hang_nor_fall_apart() -> None:
    rng = np.random.default_rng(0)
    base = np.uint64(0x0123456789ABCDEF)
    flips = np.uint64(1) << rng.integers(0, 64, (20_000, 3), dtype=np.uint64)
    hashes = base ^ np.bitwise_xor.reduce(flips, axis=1)
    started = time.monotonic()
    pairs = near_pairs(np.unique(hashes), 2)
    assert time.monotonic() - started < 60
    assert len(np.unique(groups_of(len(np.unique(hashes)), pairs))) < 10


def test_groups_are_connected_parts() -> None:
    pairs = np.array([[5, 3], [3, 9], [0, 1], [8, 7], [7, 6]])
    root = groups_of(10, pairs)
    assert root.tolist() == [0, 0, 2, 3, 4, 3, 6, 6, 6, 3]
    chain = np.stack([np.arange(999), np.arange(1, 1000)], axis=1)
    rng = np.random.default_rng(0)
    assert (groups_of(1000, rng.permutation(chain)) == 0).all()
    assert groups_of(3, np.zeros((0, 2), dtype=np.int64)).tolist() == [0, 1, 2]
