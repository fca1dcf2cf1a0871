"""The learning rate over a round: up in a line, down in a line."""

from __future__ import annotations


def triangle(step: int, steps: int, warmup_share: float) -> float:
    """Share of the highest learning rate at ``step`` of ``steps``, in (0, 1].

    It rises over the first ``warmup_share`` of the steps and falls to nearly 0 at the last, the
    shape of Smith's one-cycle policy (2018) with straight sides.
    """
    place = (step + 1) / (steps + 1)
    if place < warmup_share:
        return place / warmup_share
    return (1 - place) / (1 - warmup_share)
