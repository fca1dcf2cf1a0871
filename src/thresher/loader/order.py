"""Which samples make up each batch: elastic, deterministic, balanced.

Samples live in ``num_homes`` homes; a rank owns the homes congruent to it modulo the world size.
The epoch is a sequence of places; place p belongs to home ``(a * p + s) mod H`` with a and s drawn
per epoch and a coprime to H. A rank's share of any W consecutive places is then exactly one for
every world size W that divides H, so a global batch, which is a stretch of places, is the same set
of samples at every such world size.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Highly composite, so that many world sizes divide them.
HOME_COUNTS = (12, 60, 120, 720, 5040, 55440)


def choose_num_homes(num_samples: int) -> int:
    """The largest count of ``HOME_COUNTS`` that leaves a home at least 16 samples."""
    fitting = [count for count in HOME_COUNTS if count * 16 <= num_samples]
    return fitting[-1] if fitting else HOME_COUNTS[0]


@dataclass(frozen=True)
class Order:
    """The order of ``num_samples`` samples, numbered 0 to N-1, over epochs.

    Args:
        num_samples: N over all ranks.
        batch_size: samples per global step; a multiple of ``world_size``.
        seed: of the run.
        rank, world_size: whose share ``epoch`` returns.
        num_homes: H, a multiple of ``world_size``.
    """

    num_samples: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    num_homes: int = 12

    def __post_init__(self) -> None:
        assert self.num_homes % self.world_size == 0
        assert self.batch_size % self.world_size == 0

    @property
    def rounds(self) -> int:
        """Samples of the fullest home."""
        return math.ceil(self.num_samples / self.num_homes)

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return math.ceil(self.rounds * self.num_homes / self.batch_size)

    @cached_property
    def home_of(self) -> np.ndarray:
        """int64[N], the home of each sample: a fixed shuffle, dealt out evenly."""
        shuffled = np.random.default_rng([self.seed, 1]).permutation(self.num_samples)
        homes = np.empty(self.num_samples, dtype=np.int64)
        homes[shuffled] = np.arange(self.num_samples) % self.num_homes
        return homes

    @cached_property
    def owned(self) -> np.ndarray:
        """The samples of this rank, ascending."""
        return np.flatnonzero(self.home_of % self.world_size == self.rank)

    def epoch(self, epoch: int) -> np.ndarray:
        """int64[steps, batch_size / world_size] of sample numbers, -1 where a place is empty.

        Steps are stretches of nearly equal length, so that no batch of the epoch is much emptier
        than the rest.
        """
        homes, rounds = self.num_homes, self.rounds
        members = self._shuffled_members(epoch)
        rng = np.random.default_rng([self.seed, 2, epoch])
        factor = int(rng.choice([a for a in range(1, homes) if math.gcd(a, homes) == 1]))
        shift = int(rng.integers(homes))
        places = np.arange(rounds * homes)
        home = (factor * places + shift) % homes
        mine = home % self.world_size == self.rank
        samples = members[places // homes, home]
        bounds = np.linspace(0, rounds * homes, self.steps + 1).round().astype(np.int64)
        out = np.full((self.steps, self.batch_size // self.world_size), -1, dtype=np.int64)
        for step, (start, stop) in enumerate(itertools.pairwise(bounds)):
            part = samples[start:stop][mine[start:stop]]
            part = part[part >= 0]
            out[step, : len(part)] = part
        return out

    def _shuffled_members(self, epoch: int) -> np.ndarray:
        """int64[rounds, H]: the samples of each home in this epoch's order, -1 after the last."""
        home = self.home_of
        keys = np.random.default_rng([self.seed, 3, epoch]).random(self.num_samples)
        by_home = np.lexsort((keys, home))
        members = np.full((self.rounds, self.num_homes), -1, dtype=np.int64)
        counts = np.bincount(home, minlength=self.num_homes)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        position = np.arange(self.num_samples) - np.repeat(starts, counts)
        members[position, home[by_home]] = by_home
        return members
