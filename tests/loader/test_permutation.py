from __future__ import annotations

import numpy as np
import pytest

from thresher.loader.permutation import permuted


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 1000, 4096, 4097, 200_000])
def test_every_number_comes_out_once(size: int) -> None:
    out = permuted(np.arange(size), size, seed=3, stream=0)
    np.testing.assert_array_equal(np.sort(out), np.arange(size))
    np.testing.assert_array_equal(permuted(np.arange(size)[::7], size, 3, 0), out[::7])


@pytest.mark.parametrize("size", [3, 6, 13, 50])
def test_a_number_goes_anywhere_alike(size: int) -> None:
    """Chi-square over 4,000 seeds of where each of three numbers goes."""
    numbers = np.array([0, size // 2, size - 1])
    images = np.stack([permuted(numbers, size, seed, 0) for seed in range(4000)])
    for column in images.T:
        counts = np.bincount(column, minlength=size)
        statistic = ((counts - 4000 / size) ** 2 / (4000 / size)).sum()
        assert statistic < (size - 1) + 5 * np.sqrt(2 * (size - 1))


def test_neighbours_part() -> None:
    out = permuted(np.arange(50_000), 50_000, seed=1, stream=0)
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(np.arange(50_000), out)[0, 1]) < 0.02
    assert (permuted(np.arange(50_000), 50_000, seed=2, stream=0) == out).sum() < 10
