"""Finding pairs of 64-bit hashes that differ in few bits, without comparing all with all.

Cut the bits into ``distance + r`` blocks. Two hashes that differ in at most ``distance`` bits
agree in at least ``r`` whole blocks, so sorting by every choice of r blocks brings each such
pair side by side once (Manku, Jain, Das Sarma, 'Detecting near-duplicates for web crawling',
WWW 2007). Many blocks make many, cheap tables; r is chosen by the number of hashes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

BITS = 64
MOST_DISTANCE = 16
MOST_RUN = 2048
"""Most neighbours in a table that a hash is compared with. Data in which more hashes than this
share a third of their bits are one picture with small changes, and stay connected anyway."""
_PAIR_COST, _SORT_COST = 12.0, 60.0  # nanoseconds per comparison, and per hash of a table
_PIECE = 1 << 20


def near_pairs(
    hashes: np.ndarray,
    distance: int,
    *,
    confirm: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    threads: int = 2,
    stop: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """All pairs of hashes that differ in at most ``distance`` bits.

    Args:
        hashes: uint64[N].
        distance: 0..16.
        confirm: gets two int64[k] of candidates' positions and says bool[k] which to keep.
        threads: NumPy's sorts and comparisons run beside each other.
        stop: called now and then; may raise.

    Returns:
        int64[P, 2], positions i < j, each pair once, in order.
    """
    if not 0 <= distance <= MOST_DISTANCE:
        raise ValueError(f"a distance is 0 to {MOST_DISTANCE} bits, not {distance}")
    if len(hashes) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    assert len(hashes) < 1 << 31

    def search(mask: int) -> np.ndarray:
        found = []
        for left, right in _candidates(hashes, mask, distance):
            stop()
            if confirm is not None and len(left):
                keep = confirm(left, right)
                left, right = left[keep], right[keep]
            found.append(np.minimum(left, right) << 32 | np.maximum(left, right))
        return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)

    codes = np.zeros(0, dtype=np.int64)
    with ThreadPoolExecutor(threads) as pool:
        # One batch at a time: most pairs are found by several tables and need not pile up.
        masks, step = _masks(len(hashes), distance), threads * 4
        for start in range(0, len(masks), step):
            found = pool.map(search, masks[start : start + step])
            codes = np.unique(np.concatenate([codes, *found]))
    return np.stack([codes >> 32, codes & 0xFFFFFFFF], axis=1)


def groups_of(num: int, pairs: np.ndarray) -> np.ndarray:
    """int64[num], the smallest member of each one's group; ``pairs`` (int64[P, 2]) connect."""
    root = np.arange(num, dtype=np.int64)
    left, right = pairs[:, 0], pairs[:, 1]
    while len(left):
        low = np.minimum(root[left], root[right])
        # Pull both ends' roots down to the lower, then let everyone follow to the end.
        np.minimum.at(root, root[left], low)
        np.minimum.at(root, root[right], low)
        while (root[root] != root).any():
            root = root[root]
        apart = root[left] != root[right]
        left, right = left[apart], right[apart]
    return root


def _masks(num: int, distance: int) -> list[int]:
    """The bits that each table sorts by."""
    intact = min(range(1, 5), key=lambda r: _cost(num, distance, r))
    edges = [round(BITS * i / (distance + intact)) for i in range(distance + intact + 1)]
    blocks = [((1 << (end - start)) - 1) << start for start, end in itertools.pairwise(edges)]
    return [sum(chosen) for chosen in itertools.combinations(blocks, intact)]


def _cost(num: int, distance: int, intact: int) -> float:
    tables = math.comb(distance + intact, intact)
    shared_bits = BITS * intact / (distance + intact)
    pairs = num * num / 2 ** (shared_bits + 1)
    return tables * (num * _SORT_COST + pairs * _PAIR_COST)


def _candidates(
    hashes: np.ndarray, mask: int, distance: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions of the near pairs that agree in the bits of ``mask``, some at a time."""
    keys = hashes & np.uint64(mask)
    order = np.argsort(keys)
    keys, ordered = keys[order], hashes[order]  # neighbours lie side by side in memory too
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    ends = np.append(starts[1:], len(keys))
    # How many come behind each within its run of equal keys.
    behind = np.repeat(ends, ends - starts) - np.arange(len(keys)) - 1
    left = np.flatnonzero(behind)
    for step in range(1, MOST_RUN + 1):
        if not len(left):
            return
        for start in range(0, len(left), _PIECE):
            piece = left[start : start + _PIECE]
            differing = np.bitwise_count(ordered[piece] ^ ordered[piece + step])
            near = piece[differing <= distance]
            yield order[near], order[near + step]
        left = left[behind[left] > step]
