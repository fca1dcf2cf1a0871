"""Neighbours where there are none; ``test_profile.py`` measures some for real."""

from __future__ import annotations

import itertools
import time
from multiprocessing.context import SpawnProcess

import pytest
import torch

from thresher.bench.neighbours import has_room, measure_neighbours
from thresher.bench.step import Setting

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


def test_networks_that_fill_the_memory_are_not_multiplied() -> None:
    assert has_room(1e6)
    assert not has_room(1e15)
