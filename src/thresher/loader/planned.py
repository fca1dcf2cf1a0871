"""What is settled of each step before any image of it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

_STRETCH = 2**14
"""Samples worked out at once: for one batch NumPy's calls cost more than their numbers."""


@dataclass(frozen=True)
class Planned:
    """The samples of one step; its arrays are its own to change.

    Attributes:
        positions: int64[B], rows among the loader's samples; empty places repeat others, in turn.
        ids: int64[B], manifest ids.
        labels: int64[B].
        valid: bool[B], false where a place is empty.
        has_any: whether any is not.
        draws: float32[B, n] random numbers of each sample, if any are drawn.
    """

    positions: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    valid: np.ndarray
    has_any: bool
    draws: np.ndarray | None


def stretches(plan: np.ndarray) -> Iterator[np.ndarray]:
    """Some steps of a plan int64[steps, B] after the other."""
    size = max(1, _STRETCH // max(1, plan.shape[1]))
    for at in range(0, len(plan), size):
        yield plan[at : at + size]


def planned(
    plan: np.ndarray,
    ids: np.ndarray,
    labels: np.ndarray,
    draw: Callable[[np.ndarray], np.ndarray] | None,
) -> Iterator[Planned]:
    """Every step of a plan.

    Args:
        plan: int64[steps, B] of positions, -1 for places that stay empty.
        ids: int64[n], manifest ids by position.
        labels: int64[n], by position.
        draw: manifest ids to random numbers float32[len(ids), n]; None if none are wanted.
    """
    for places in stretches(plan):
        valid = places >= 0
        have_any: np.ndarray = valid.sum(axis=1) > 0
        positions = filled(places)
        own_ids, own_labels = ids[positions], labels[positions]
        draws = None
        if draw is not None:
            draws = draw(own_ids.reshape(-1)).reshape(*own_ids.shape, -1)
        for step in range(len(places)):
            yield Planned(
                positions[step],
                own_ids[step],
                own_labels[step],
                valid[step],
                bool(have_any[step]),
                None if draws is None else draws[step],
            )


def filled(places: np.ndarray) -> np.ndarray:
    """A plan in whose empty places each row's samples stand once more; 0 in rows without any."""
    valid = places >= 0
    samples_first = np.argsort(~valid, axis=1, kind="stable")
    turn = np.cumsum(~valid, axis=1) - 1
    others = turn % np.maximum(1, valid.sum(axis=1, keepdims=True))
    itself = np.arange(places.shape[1])
    source = np.where(valid, itself, np.take_along_axis(samples_first, others, axis=1))
    positions: np.ndarray = np.maximum(0, np.take_along_axis(places, source, axis=1))
    return positions
