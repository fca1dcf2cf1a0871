"""Neighbours where there are none; ``test_profile.py`` measures some for real."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from multiprocessing.context import SpawnProcess
from typing import Any

import pytest
import torch

from thresher.bench.neighbours import _Rank, has_room, measure_neighbours
from thresher.bench.step import Setting, Step

SETTING = Setting(
    model="small_cnn", method="ce", optimizer="sgd", num_classes=5, image_size=16, small=True,
    device=torch.device("cpu"), precision=None,
)  # fmt: skip


def test_a_machine_that_starts_no_process_has_no_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: SpawnProcess) -> None:
        raise OSError("no processes left")

    monkeypatch.setattr(SpawnProcess, "start", refuse)
    assert measure_neighbours(SETTING, [4], threads=1, repeats=1) is None


def test_a_process_that_is_killed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    start = SpawnProcess.start

    def start_and_kill_the_last(process: SpawnProcess) -> None:
        start(process)
        if process.name.endswith("4"):
            process.kill()

    monkeypatch.setattr(SpawnProcess, "start", start_and_kill_the_last)
    monkeypatch.setattr("multiprocessing.process._process_counter", itertools.count(1))
    began = time.monotonic()
    assert measure_neighbours(SETTING, [4], threads=1, repeats=1) is None
    assert time.monotonic() - began < 30


def test_factors_are_of_the_windows_that_they_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def window(_: Any, __: Step, ___: int, among: int, *, in_step: bool = True) -> list[float]:
        # Rank 1 is slower by itself, which is no neighbour's doing.
        if among == 2:
            return [1.25, 1.75] if in_step else [1.2, 1.7]
        return [1.0] if among == 1 else [3.6] * 4

    monkeypatch.setattr(_Rank, "_window", window)
    meetings = {4: multiprocessing.Barrier(1)}
    steps, seconds = multiprocessing.Value("i", 0), multiprocessing.Array("d", 4)
    rank = _Rank(0, {}, SETTING, (4,), 1, 3, meetings, steps, seconds)
    beside, turns = rank._factors_of(Step(SETTING), 4, few=2)
    assert beside == pytest.approx(1.2)
    assert turns == pytest.approx(3.6 / 1.5 / 2)


def test_networks_that_fill_the_memory_are_not_multiplied() -> None:
    assert has_room(1e6)
    assert not has_room(1e15)
