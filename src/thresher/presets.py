"""Whole configurations by name, for examples, tests and benchmarks."""

from __future__ import annotations

from pathlib import Path

from thresher.config import TrainConfig


def demo(train: Path, test: Path, method: str, seed: int = 0) -> TrainConfig:
    """The demo on ``examples/fashion-noisy``: long enough for ordinary training to memorise.

    Size, network and epochs were fixed on cross-entropy runs before any other method was tried.
    """
    return TrainConfig(
        data=str(train),
        val=str(test),
        method=method,
        model="small_cnn",
        epochs=60,
        batch_size=128,
        lr=0.1,
        eval_every=20,
        seed=seed,
    )


def quick(train: Path, test: Path, method: str = "mct", seed: int = 0) -> TrainConfig:
    """A run of seconds, to see that everything works."""
    return TrainConfig(
        data=str(train),
        val=str(test),
        method=method,
        model="small_cnn",
        epochs=6,
        batch_size=64,
        seed=seed,
    )
