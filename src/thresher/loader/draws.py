"""Random numbers that are a function of (seed, epoch, sample id, stream) and of nothing else.

So an augmentation is the same for any number of workers and processes, with and without a cache,
before and after a resume. The mixing function is SplitMix64 (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

import functools

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_BITS = 2**64 - 1


def _mix_number(x: int) -> int:
    x = ((x ^ (x >> 30)) * _FIRST) & _BITS
    x = ((x ^ (x >> 27)) * _SECOND) & _BITS
    return x ^ (x >> 31)


def _mix(x: np.ndarray) -> np.ndarray:
    """The same for each of uint64[...], in its place; arrays overflow as it should be."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(_FIRST)
    x ^= x >> np.uint64(27)
    x *= np.uint64(_SECOND)
    x ^= x >> np.uint64(31)
    return x


@functools.cache
def _multiples(count: int) -> np.ndarray:
    return np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)


def keys(seed: int, epoch: int, ids: np.ndarray, stream: int) -> np.ndarray:
    """64 random bits for each id, uint64 in the shape of ``ids``; ``stream`` as in ``uniforms``."""
    key = _mix_number((seed + _GOLDEN) & _BITS)
    for number in (epoch, stream):
        key = _mix_number((key + number * _GOLDEN) & _BITS)
    each = np.asarray(ids).astype(np.uint64)
    each *= np.uint64(_GOLDEN)
    each += np.uint64(key)
    return _mix(each)


def uniforms(seed: int, epoch: int, ids: np.ndarray, stream: int, count: int) -> np.ndarray:
    """``count`` numbers in [0, 1) for each id, float32[B, count].

    ``stream`` keeps purposes apart (crop, first view, second view, ...).
    """
    per_id = keys(seed, epoch, np.asarray(ids, dtype=np.int64), stream)
    bits = _mix(per_id[:, None] + _multiples(count))
    bits >>= np.uint64(40)
    draws = bits.astype(np.float32)
    draws *= np.float32(2.0**-24)
    return draws
