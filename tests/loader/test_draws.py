from __future__ import annotations

import numpy as np

from thresher.loader.draws import uniforms

IDS = np.array([0, 1, 2, 999_999_999_999])


def test_same_key_same_numbers_in_any_company() -> None:
    together = uniforms(3, 5, IDS, 1, 7)
    alone = np.concatenate([uniforms(3, 5, IDS[i : i + 1], 1, 7) for i in range(4)])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[:, :3], uniforms(3, 5, IDS, 1, 3))


def test_every_part_of_the_key_matters() -> None:
    base = uniforms(3, 5, IDS, 1, 7)
    for other in (uniforms(4, 5, IDS, 1, 7), uniforms(3, 6, IDS, 1, 7), uniforms(3, 5, IDS, 2, 7)):
        assert (base != other).all()


def test_numbers_are_uniform_and_uncorrelated() -> None:
    draws = uniforms(0, 0, np.arange(50_000), 0, 4)
    assert draws.dtype == np.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    # Standard errors: mean 0.0013, variance 0.0003, correlation 0.0045; five of them allowed.
    np.testing.assert_allclose(draws.mean(axis=0), 0.5, atol=0.0065)
    np.testing.assert_allclose(draws.var(axis=0), 1 / 12, atol=0.0018)
    correlation = np.corrcoef(draws.T) - np.eye(4)
    assert np.abs(correlation).max() < 0.023
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.023
