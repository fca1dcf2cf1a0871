"""Memory that runs out: ``--batch-size auto`` and the sentence at the first step.

The allocator is made to refuse; the rest is real.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from thresher.cli import main
from thresher.models.small import SmallNet
from thresher.train.fit import is_out_of_memory, largest_that_fits
from thresher.train.run_dir import RunDir

REFUSED = "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 9 bytes"


def refuse_above(limit: int) -> Callable[[int], None]:
    def attempt(batch: int) -> None:
        if batch > limit:
            raise RuntimeError(REFUSED)

    return attempt


@pytest.mark.parametrize(
    ("start", "least", "limit", "expected"),
    [
        (64, 1, 100, 64), (64, 1, 20, 16), (64, 1, 1, 1), (64, 1, 0, None),
        # Multiples of 6: 60, 30, 12 (not 15), 6.
        (60, 6, 29, 12), (60, 6, 6, 6), (60, 6, 5, None),
    ],
)  # fmt: skip
def test_halves(start: int, least: int, limit: int, expected: int | None) -> None:
    assert largest_that_fits(refuse_above(limit), start, least, agree=bool) == expected


def test_a_rank_goes_along_with_one_that_has_less() -> None:
    said = iter([False, True])
    assert largest_that_fits(refuse_above(100), 64, 1, agree=lambda own: own and next(said)) == 32


def test_only_memory_is_taken_for_memory() -> None:
    assert is_out_of_memory(RuntimeError(REFUSED))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        largest_that_fits(_broken, 8, 1, agree=bool)


def _broken(_: int) -> None:
    raise RuntimeError("shapes cannot be multiplied")


@pytest.fixture
def memory_for_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that finds no memory for more than 8 images: two views of 4."""
    forward = SmallNet.forward

    def refusing(self: SmallNet, x: Tensor) -> Tensor:
        if self.training and len(x) > 8:
            raise RuntimeError(REFUSED)
        return forward(self, x)

    monkeypatch.setattr(SmallNet, "forward", refusing)


@pytest.mark.usefixtures("memory_for_four")
def test_auto_finds_a_batch_and_a_resumed_run_keeps_it(two_classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["train", str(two_classes), "--model", "small_cnn", "--epochs", "1", "--out", str(out)]
    assert main([*words, "--batch-size", "auto"]) == 0
    assert RunDir(out).read_config()["batch_size"] == 4
    assert main([*words, "--batch-size", "auto", "--resume"]) == 0


@pytest.mark.usefixtures("memory_for_four")
def test_the_sentence_names_a_batch_that_fits(
    two_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(two_classes), "--model", "small_cnn", "--epochs", "1"]
    assert main([*words, "--batch-size", "16", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "Memory ran out with batches of 16 images of 16 pixels" in said
    assert "--batch-size 4;" in said


def test_a_batch_size_that_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "x", "--batch-size", "many"]) == 2
    assert "--batch-size takes a whole number or auto, not 'many'" in capsys.readouterr().err
