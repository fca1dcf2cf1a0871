"""Several ranks do what one does: the same losses, weights and ledger up to float rounding."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import write_classes
from tests.dist.runs import furthest, losses, trained, weights

# Full batches only: places that merely fill a batch are seen by batch normalisation.
COMMON = (
    "--epochs", 3, "--batch-size", 24, "--image-size", 16, "--val-share", 0, "--precision", "fp32",
    "--accelerator", "cpu", "--lr", 0.01,
)  # fmt: skip
TOLERANCE = 1e-3
"""Of values about 1: where two pixels of a pool are nearly equal, rounding decides between them."""
METHODS = ("ce", "mct")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("parity") / "data", per_class=24)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What one rank makes of each method."""
    folder = tmp_path_factory.mktemp("alone")
    return {
        method: trained(data, folder / method, "--method", method, *COMMON) for method in METHODS
    }


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("ce", ("--devices", 2)),
        ("mct", ("--devices", 2)),
        ("mct", ("--devices", 3)),
        ("mct", ("--devices", 2, "--placement", "apart")),
        ("ce", ("--devices", 2, "--accumulate", 1, "--compress-gradients", "bf16")),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else value,
)
def test_ranks_do_what_one_does(
    method: str, words: tuple[object, ...], data: Path, alone: dict[str, Path], tmp_path: Path
) -> None:
    out = trained(
        data, tmp_path / "run", "--method", method, *COMMON, "--sync-batchnorm", "true", *words
    )
    one = alone[method]
    tolerance = 2e-2 if "bf16" in words else TOLERANCE
    for ours, theirs in zip(losses(out), losses(one), strict=True):
        assert ours == pytest.approx(theirs, abs=tolerance)
    assert furthest(weights(out), weights(one)) < tolerance
    ledgers = [pq.read_table(path / "ledger.parquet") for path in (out, one)]
    assert ledgers[0]["id"].equals(ledgers[1]["id"])
    assert ledgers[0]["suggested_label"].to_pylist() == ledgers[1]["suggested_label"].to_pylist()


def test_parts_of_a_batch_add_up_to_it(data: Path, tmp_path: Path) -> None:
    """Without batch normalisation, which sees each part by itself."""
    words = ("--method", "ce", *COMMON, "--model", "convnext_atto", "--image-size", 32)
    whole = trained(data, tmp_path / "whole", *words)
    parts = trained(data, tmp_path / "parts", *words, "--accumulate", 3)
    shared = trained(data, tmp_path / "shared", *words, "--accumulate", 2, "--devices", 2)
    for other in (parts, shared):
        assert furthest(weights(other), weights(whole)) < TOLERANCE
