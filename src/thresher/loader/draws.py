"""Random numbers that are a function of (seed, epoch, sample id, stream) and of nothing else.

So an augmentation is the same for any number of workers and processes, with and without a cache,
before and after a resume. The mixing function is SplitMix64 (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def keys(seed: int, epoch: int, ids: np.ndarray, stream: int) -> np.ndarray:
    """64 random bits for each id, uint64 in the shape of ``ids``; ``stream`` as in ``uniforms``."""
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed], dtype=np.uint64) + _GOLDEN)
        key = _mix(key + np.uint64(epoch) * _GOLDEN)
        key = _mix(key + np.uint64(stream) * _GOLDEN)
        return _mix(key + np.asarray(ids).astype(np.uint64) * _GOLDEN)


def uniforms(seed: int, epoch: int, ids: np.ndarray, stream: int, count: int) -> np.ndarray:
    """``count`` numbers in [0, 1) for each id, float32[B, count].

    ``stream`` keeps purposes apart (crop, first view, second view, ...).
    """
    per_id = keys(seed, epoch, np.asarray(ids, dtype=np.int64), stream)
    with np.errstate(over="ignore"):
        counter = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(per_id[:, None] + counter[None, :])
    return ((bits >> np.uint64(40)).astype(np.float32)) * np.float32(2.0**-24)
