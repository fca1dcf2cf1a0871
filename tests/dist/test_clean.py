"""A clean set is the same help to any number of ranks, also where it is smaller than they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import forks
from tests.conftest import write_classes
from tests.dist.runs import furthest, losses, trained, weights
from thresher.loader.order import Dealt

COMMON = (
    "--epochs", 2, "--batch-size", 24, "--image-size", 16, "--val-share", 0, "--precision", "fp32",
    "--accelerator", "cpu", "--lr", 0.01, "--threads", 1, "--sync-batchnorm", "true",
)  # fmt: skip
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("clean") / "data", per_class=24)


@pytest.mark.parametrize(("method", "ranks"), [("ce", 3), ("mct", 2)])
def test_ranks_do_with_a_clean_set_what_one_does(
    method: str, ranks: int, data: Path, tmp_path: Path
) -> None:
    """Batches of 24 bring 6 clean images; of 18, so that none of them fills a place twice."""
    clean = write_classes(tmp_path / "clean", per_class=9, seed=1)
    words = (*COMMON, "--method", method, "--clean", clean)
    one = trained(data, tmp_path / "one", *words)
    without = trained(data, tmp_path / "without", *COMMON, "--method", method)
    several = trained(data, tmp_path / "several", *words, "--devices", ranks)
    for ours, theirs in zip(losses(several), losses(one), strict=True):
        assert ours == pytest.approx(theirs, abs=TOLERANCE)
    assert furthest(weights(several), weights(one)) < TOLERANCE
    assert furthest(weights(without), weights(one)) > TOLERANCE, "the clean set is heard"


def test_fewer_clean_images_than_ranks_train(data: Path, tmp_path: Path) -> None:
    clean = write_classes(tmp_path / "clean", per_class=1)
    words = (*COMMON, "--method", "ce", "--clean", clean)
    ended = forks.run(3, "train", data, "--out", tmp_path / "run", *words)
    assert ended.codes == [0, 0, 0], ended.said
    assert "2 clean images" in ended.printed


@pytest.mark.parametrize(("num", "batch"), [(40, 32), (18, 6), (3, 3), (2, 1), (1, 1), (500, 7)])
def test_batches_are_the_same_for_any_number_of_players(num: int, batch: int) -> None:
    whole = Dealt(num, batch, seed=4, num_homes=1).epoch(3)
    assert sorted(whole[whole >= 0].tolist()) == list(range(num))
    assert (whole >= 0).any(axis=1).all(), "no step goes without"
    for players in (1, 2, 3, 4, 5, 7, 16):
        dealt = [
            Dealt(num, batch, seed=4, num_homes=1, place=place, players=players).epoch(3)
            for place in range(players)
        ]
        assert {plan.shape for plan in dealt} == {(len(whole), -(-batch // players))}
        together = np.concatenate(dealt, axis=1)
        for ours, theirs in zip(together, whole, strict=True):
            assert sorted(ours[ours >= 0].tolist()) == sorted(theirs[theirs >= 0].tolist())
        counts = np.stack([(plan >= 0).sum(axis=1) for plan in dealt])
        assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 1
