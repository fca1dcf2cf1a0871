"""Which samples make up each batch: elastic, deterministic, balanced.

Samples live in H = ``num_homes`` homes: home h has the samples ``pi(h + k * H)``, k = 0, 1, ..., of
a fixed random permutation pi. A rank owns the homes congruent to it modulo the world size W.

The epoch is a sequence of places; place p belongs to home ``(a * p + s) mod H`` with a and s drawn
per epoch and a coprime to H. Where W divides H, any W consecutive places hold exactly one of each
rank. A global batch is a stretch of places, and therefore the same set of samples at every such W,
of which no rank has more than its even share.

A rank works out its own places alone: time and memory are those of N / W samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thresher.loader.draws import keys
from thresher.loader.permutation import permuted

HOME_COUNTS = (24, 120, 240, 720, 2880, 20160, 40320, 80640, 161280, 322560)
"""Highly composite, so that many world sizes divide them, and all by 8, since that is how machines
are built; the larger ones also by 16 (240), 64 (2880) and so on up to 1024 (322560)."""
_HOME_STREAM, _PLACE_STREAM, _SHUFFLE_STREAM = 1001, 1002, 1003  # views count up from 16


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

    @cached_property
    def steps(self) -> int:
        """Steps of one epoch."""
        return math.ceil(self.rounds * self.num_homes / self.batch_size)

    @property
    def owned(self) -> np.ndarray:
        """The samples of this rank, int64[n] ascending."""
        return self._layout[0]

    @cached_property
    def _layout(self) -> tuple[np.ndarray, np.ndarray]:
        """``owned``, and where in it the sample of each k and own home is, int32[rounds * H / W].

        The second is in order of k, then home, and -1 behind the last sample: homes differ by one
        where H does not divide N.
        """
        # W divides H, so that the numbers h + k * H of a rank's homes are every W-th.
        numbers = np.arange(self.rank, self.num_samples, self.world_size)
        samples = permuted(numbers, self.num_samples, self.seed, _HOME_STREAM)
        ascending = np.argsort(samples)
        rows = np.full(self.rounds * self.num_homes // self.world_size, -1, dtype=np.int32)
        rows[ascending] = np.arange(len(samples), dtype=np.int32)
        return samples[ascending], rows

    def epoch(self, epoch: int) -> np.ndarray:
        """int64[steps, batch_size / world_size] of sample numbers, -1 where a place is empty.

        Steps are stretches of nearly equal length and empty places are spread over the epoch, so
        that no batch is much emptier than the rest.
        """
        plan = self.positions(epoch)
        return np.where(plan < 0, -1, self.owned[plan]) if len(self.owned) else plan

    def positions(self, epoch: int) -> np.ndarray:
        """As ``epoch``, with positions in ``owned`` in place of sample numbers."""
        factor, shift = self._draw_places(epoch)
        # This rank's places are first, first + W, first + 2 W, ...; homes repeat after H / W.
        world, homes = self.world_size, self.num_homes
        first = pow(factor, -1, world) * (self.rank - shift) % world
        own_homes = (factor * np.arange(first, homes, world) + shift) % homes // world
        line = self._shuffled_rows(epoch)[own_homes].T.reshape(-1)
        bounds = np.arange(self.steps + 1) * (self.rounds * homes) // self.steps
        cuts = (bounds - first + world - 1) // world
        places = cuts[:-1, None] + np.arange(self.batch_size // world)
        inside = places < cuts[1:, None]
        return np.where(inside, line[np.where(inside, places, 0)], -1).astype(np.int64)

    def _draw_places(self, epoch: int) -> tuple[int, int]:
        """The a, coprime to H, and the s of this epoch."""
        homes = self.num_homes
        rng = np.random.default_rng([self.seed, _PLACE_STREAM, epoch])
        shift, factor = int(rng.integers(homes)), 0
        while math.gcd(factor, homes) != 1:
            factor = int(rng.integers(homes))
        return factor, shift

    def _shuffled_rows(self, epoch: int) -> np.ndarray:
        """int32[H / W, rounds]: each own home's positions in ``owned`` in this epoch's order.

        An empty place is shuffled like a sample; otherwise all would come at the epoch's end.
        """
        own = self.num_homes // self.world_size
        rows = self._layout[1].reshape(self.rounds, own).T
        numbers = np.arange(self.rank, self.rounds * self.num_homes, self.world_size)
        random = keys(self.seed, epoch, numbers, _SHUFFLE_STREAM).reshape(self.rounds, own).T
        return np.take_along_axis(rows, np.argsort(random, axis=1), axis=1)


@dataclass(frozen=True)
class Dealt(Order):
    """An order of one process whose batches are dealt out to several, as cards are.

    For samples that nobody owns: every process must be able to read all of them. Any number of
    processes takes part in the same batches, of any size; the shares differ by one at most, and
    places that stay empty make up for it.

    Args:
        place: whose share ``epoch`` returns, 0 to ``players`` - 1.
        players: among whom each batch is dealt out.
    """

    place: int = 0
    players: int = 1

    def positions(self, epoch: int) -> np.ndarray:
        """int64[steps, ceil(batch_size / players)], -1 where a place is empty."""
        whole = super().positions(epoch)
        missing = -whole.shape[1] % self.players
        padded = np.pad(whole, ((0, 0), (0, missing)), constant_values=-1)
        return np.ascontiguousarray(padded[:, self.place :: self.players])
