from __future__ import annotations

import numpy as np

from thresher.loader.draws import keys, uniforms

IDS = np.array([0, 1, 2, 999_999_999_999])


GOLDEN, BITS = 0x9E3779B97F4A7C15, 2**64 - 1


def mixed(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & BITS
    return x ^ (x >> 31)


def test_keys_are_mixed_as_splitmix64_does() -> None:
    # The generator's first outputs from the state 0, as its authors' programs print them.
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [mixed(GOLDEN * times & BITS) for times in (1, 2, 3)] == outputs
    for seed, epoch, sample, stream in ((0, 0, 0, 0), (7, 59, 2**40 + 1, 1003), (2**40, 3, 5, 16)):
        key = mixed(seed + GOLDEN & BITS)
        for number in (epoch, stream, sample):
            key = mixed(key + number * GOLDEN & BITS)
        assert int(keys(seed, epoch, np.array([sample]), stream)[0]) == key
        first = uniforms(seed, epoch, np.array([sample]), stream, 2)[0, 1]
        assert first == mixed(key + 2 * GOLDEN & BITS) / 2**64 // 2**-24 * 2**-24


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
