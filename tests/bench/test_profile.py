"""Measuring a profile: the arithmetic by hand, and one real, small measurement."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conftest import write_classes
from thresher.bench.images import measure
from thresher.bench.profile import fit, ready_schedule
from thresher.bench.step import Setting, Step
from thresher.cli import main
from thresher.plan.profile import Profile


def test_fit_finds_a_line() -> None:
    line = fit([1, 2, 4], [3, 5, 9])
    assert (line.intercept, line.slope) == (pytest.approx(1), pytest.approx(2))


def test_fit_has_no_negative_part() -> None:
    # Through (1, 0) and (2, 4) a line would start at -4; through zero: (0 + 8) / 5.
    assert fit([1, 2], [0, 4]).intercept == 0
    assert fit([1, 2], [0, 4]).slope == pytest.approx(1.6)
    assert (fit([1, 2], [4, 2]).intercept, fit([1, 2], [4, 2]).slope) == (3, 0)
    assert fit([4], [2]).slope == pytest.approx(0.5)


def test_ready_schedule_takes_medians_and_ascends() -> None:
    runs = [[(0.2, 60), (0.5, 20), (0.9, 20)], [(0.4, 60), (0.3, 20), (0.9, 20)],
            [(0.3, 60), (0.2, 20), (0.8, 20)]]  # fmt: skip
    assert ready_schedule(runs) == ((0.3, 0.6), (0.3, 0.8), (0.9, 1.0), (1.0, 1.0))


def test_ready_schedule_of_many_gradients_is_thinned() -> None:
    found = ready_schedule([[(i / 1000, 1) for i in range(1, 1001)]])
    assert 60 <= len(found) <= 66
    assert found[-1] == (1.0, 1.0)


@pytest.fixture(scope="module")
def step() -> Step:
    setting = Setting(
        model="small_cnn", method="mct", optimizer="sgd", num_classes=5, image_size=16, small=True,
        device=torch.device("cpu"), precision=None,
    )  # fmt: skip
    made = Step(setting)
    made.resize(4)
    return made


def test_every_gradient_is_noted_once_and_in_time(step: Step) -> None:
    found = step.gradients_over_time(0)
    assert sum(size for _, size in found) == step.nets[0].gradient_bytes
    times = [time for time, _ in found]
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] <= 1


def test_saved_bytes_grow_with_the_batch(step: Step) -> None:
    small = step.saved_bytes(0)
    step.resize(8)
    assert 1.8 * small < step.saved_bytes(0) < 2.2 * small


def test_memory_of_a_network(step: Step) -> None:
    net = step.nets[0]
    weights = sum(p.numel() for p in net.module.parameters() if isinstance(p, nn.Parameter))
    assert net.gradient_bytes == 4 * weights
    assert net.weight_bytes >= 3 * net.gradient_bytes
    # id, label, and at least a loss and a probability for each of two networks.
    assert step.ledger_bytes > 16 + 8


def test_decoding_real_files(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data")
    found = measure(str(data), 16, small=False, seconds=0.02)
    assert found.decoded > 0
    assert found.cached > 0
    assert found.cache_bytes == 20 * 20 * 3
    sizes = [path.stat().st_size for path in data.rglob("*.*")]
    assert min(sizes) <= found.image_bytes <= max(sizes)


def test_command_measures_and_plan_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "profile.json"
    words = "--model small_cnn --image-size 16 --classes 5 --batch-size 4 --repeats 1"
    assert main(["bench", "profile", *words.split(), "--method", "ce", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "images/s" in told
    assert "several processes: " in told
    assert "by turns on the same cores" in told
    found = Profile.load(out)
    assert (found.networks, found.batch, found.decodes_beside) == (1, 4, False)
    assert found.forward(4) > 0
    assert found.backward(4) > 0
    assert [images for images, _ in found.forward.points] == [1, 2, 4]
    # Some ten microseconds on an idle machine, a few hundred on a full one.
    assert found.pace_seconds > 0
    assert 0 < found.message_seconds <= found.crowded_message_seconds < 0.1
    assert bool(found.beside) == (len(os.sched_getaffinity(0)) > 1)
    for factors in filter(None, (found.beside, found.turns)):
        assert [images for images, _ in factors] == [1, 4]
        assert all(1 <= factor < 10 for _, factor in factors)
    # A millisecond or so, of a step of some.
    assert 0 < found.exchange_seconds < 0.1
    assert main(["plan", "--profile", str(out), "--nodes", "1..8"]) == 0
    assert "bottleneck" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["speed"], "Unknown measurement 'speed'"),
        (["profile", "--model", "resnet5"], "Unknown model 'resnet5'"),
        (["profile", "--method", "mcd"], "Unknown method 'mcd'"),
        (["profile", "--batch-size", "0"], "--batch-size is 0"),
        (["profile", "--optimizer", "sgdd"], "Unknown optimizer"),
        (["profile", "--accelerator", "tpu"], "choose cpu, cuda, mps or auto"),
        (["profile", "--model", "small_cnn", "--image-size", "16", "--data", "/no/such"],
         "/no/such"),
    ],
)  # fmt: skip
def test_bad_input(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert reason in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    assert "thresher bench MEASUREMENT" in capsys.readouterr().out
