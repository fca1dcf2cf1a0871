"""Measuring a link: the arithmetic by hand, and two real processes."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from torch import Tensor

from thresher.bench import link
from thresher.bench.link import SIZES, Measured, describe, relative_fit
from thresher.cli import main
from thresher.dist.runtime import Runtime
from thresher.plan.collectives import all_reduce
from thresher.plan.link_file import load_link, save_link


def test_description_gives_back_what_was_measured(tmp_path: Path) -> None:
    # A ring of 3: 4 latencies of 10 us, and 4/3 of the bytes at 1 GB/s.
    seconds = tuple(4 * 1e-5 + 4 / 3 * size / 1e9 for size in SIZES)
    quicker = tuple(s / 2 for s in seconds)
    made = describe("ours", 3, [Measured(SIZES, seconds, 0.01), Measured(SIZES, quicker, 0.03)], "")
    level = made.levels[0]
    assert level.latency == pytest.approx(1e-5)
    assert level.bandwidth == pytest.approx(1e9)
    # The mean of both ranks over the bytes that each sent.
    assert made.host_seconds_per_byte == pytest.approx(0.02 / (4 / 3 * SIZES[-1]))
    for size, took in zip(SIZES, seconds, strict=True):
        assert all_reduce(size, made, 3, algorithm="ring") == pytest.approx(took)
    save_link(made, tmp_path / "ours.yaml")
    assert load_link(str(tmp_path / "ours.yaml")) == made


def test_work_that_takes_longer_beside_a_sum_is_charged_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    left = 0

    class Sum:
        @property
        def is_done(self) -> bool:
            return left == 0

        def wait(self) -> None:
            assert left == 0

    class Group:
        def start_sum(self, values: Tensor) -> Sum:
            nonlocal left
            assert values.numel() * 4 == SIZES[-1]
            left = 10
            return Sum()

    class OneOfTwo:
        group = Group()

        def barrier(self) -> None:
            pass

    class Piece:
        def __init__(self, *_: int) -> None:
            pass

        def __call__(self) -> None:
            """5 ms alone, 8 while a sum travels, which takes ten of them."""
            nonlocal now, left
            now += 0.008 if left else 0.005
            left = max(0, left - 1)

    monkeypatch.setattr(link, "Work", Piece)
    monkeypatch.setattr(link.time, "perf_counter", lambda: now)
    assert link._lengthening(cast("Runtime", OneOfTwo()), 3) == pytest.approx(0.030)


def test_fit_counts_small_sizes_and_has_no_negative_part() -> None:
    assert relative_fit([1, 10, 100], [3, 21, 201]) == (pytest.approx(1), pytest.approx(2))
    intercept, slope = relative_fit([1, 10, 100], [1, 30, 400])
    assert intercept == 0
    assert slope > 0


def test_two_processes_measure_their_link(tmp_path: Path) -> None:
    out = tmp_path / "local.yaml"
    words = ["--processes", "2", "--repeats", "5", "--accelerator", "cpu", "--out", str(out)]
    assert main(["bench", "link", *words]) == 0
    found = load_link(str(out))
    assert found.name == "local"
    assert 1e6 < found.levels[0].bandwidth < 1e12
    assert 0 < found.host_seconds_per_byte < 1e-6
    assert "2 processes on cpu" in found.source


@pytest.mark.parametrize(
    ("words", "reason"),
    [([], "needs two processes"), (["--repeats", "0"], "--repeats is 0")],
)
def test_bad_input(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "link", "--accelerator", "cpu", *words]) == 2
    assert reason in capsys.readouterr().err
