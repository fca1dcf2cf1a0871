"""``thresher bench step|loader|train``: the real parts, run for some steps."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import write_classes
from thresher.bench.loop import time_loop
from thresher.bench.parts import PARTS, Parts
from thresher.bench.peak import flops_per_step
from thresher.bench.work import Work, on_made_images
from thresher.cli import main
from thresher.config import TrainConfig
from thresher.dist.runtime import Runtime
from thresher.methods import all_methods
from thresher.train.bound import bound_by

SMALL = ["--model", "small_cnn", "--batch-size", "8", "--precision", "fp32"]


def made(method: str) -> Work:
    config = TrainConfig(
        method=method, model="small_cnn", image_size=16, batch_size=8, epochs=5, precision="fp32"
    )
    options = all_methods()[method].Options()
    return on_made_images(config, options, Runtime("cpu", "fp32", alone=True), 3, steps=2)


def test_parts_add_up_and_move() -> None:
    parts = Parts(torch.device("cpu"))
    parts.timed("backward", time.sleep)(0.02)
    parts.timed("backward", time.sleep)(0.02)
    parts.add("exchange", 0.01)
    parts.add("backward", -0.01)
    found = parts.seconds()
    assert set(found) == set(PARTS)
    assert 0.03 <= found["backward"] < 0.3
    assert found["exchange"] == 0.01
    parts.clear()
    assert set(parts.seconds().values()) == {0.0}


@pytest.mark.parametrize("method", sorted(all_methods()))
def test_the_parts_make_up_the_steps(method: str) -> None:
    work = made(method)
    steps = []
    timed = time_loop(work, 7, 2, by_part=True, heard=lambda progress: steps.append(progress.step))
    assert steps == list(range(9)), "no step is made beyond what is wanted"
    assert timed.steps == 7
    assert 0 < sum(timed.parts.values()) <= timed.seconds
    assert min(timed.parts[part] for part in ("forward + loss", "backward")) > 0
    assert time_loop(work, 7, 2, by_part=False).parts == {}, "the method is not timed any more"


def test_flops_follow_from_the_network_by_hand() -> None:
    # small_cnn, 3 classes, 16 pixels: 3x3 convolutions at sides 16, 8, 4 and 4, and a last layer.
    layers = [(3, 32, 16), (32, 64, 8), (64, 128, 4), (128, 128, 4)]
    first, *others = [2 * 9 * a * b * side**2 for a, b, side in layers]
    # The images themselves need no gradient: two passes for the first layer, three for the rest.
    per_image = 2 * first + 3 * (sum(others) + 2 * 128 * 3)
    assert flops_per_step(made("ce")) == 8 * per_image


def test_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "step.json"
    words = ["--image-size", "16", "--steps", "3", "--skip", "1", "--json", str(out)]
    assert main(["bench", "step", *SMALL, *words]) == 0
    shown = capsys.readouterr().out
    assert "images/s over 3 steps" in shown
    assert "bound by the step" in shown
    found: dict[str, Any] = json.loads(out.read_text())
    assert list(found["ms_by_part"]) == [*PARTS, "the rest"]
    assert sum(found["ms_by_part"].values()) == pytest.approx(found["ms_per_step"], rel=0.05)
    assert found["images_per_second"] == pytest.approx(8e3 / found["ms_per_step"])
    assert 0 < found["share_of_peak"] < 1.5
    assert found["memory_bytes"] > 10**8


def test_train_and_loader(two_classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = ["bench", "train", str(two_classes), *SMALL, "--json", str(out)]
    # More steps than the data's own number of epochs would have.
    assert main([*words, "--method", "ce", "--steps", "200", "--skip", "2"]) == 0
    assert json.loads(out.read_text())["steps"] == 200
    assert main(["bench", "loader", str(two_classes), "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["images"] == 24
    assert found["cache"] == "host"
    assert min(found["first"], found["second"]) > 0


def test_wrong_values_get_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--steps", "0"]) == 2
    assert "--steps is 0; it must be at least 1" in capsys.readouterr().err
    assert main(["bench", "step", "--batch-size", "0"]) == 2
    assert main(["bench", "train", "/no/such/images"]) == 2
    assert main(["bench", "stap"]) == 2


def test_a_stopped_measurement_leaves_nothing(tmp_path: Path) -> None:
    write_classes(tmp_path / "images")
    code = (
        "import os, signal, sys, thresher.bench.loop as loop; from thresher.cli import main\n"
        "real = loop.time_loop\n"
        "def stopped(*a, **k):\n"
        "    return real(*a, **k, heard=lambda p: os.kill(os.getpid(), signal.SIGTERM))\n"
        "loop.time_loop = stopped; sys.exit(main(sys.argv[1:]))"
    )
    words = ["bench", "train", "images", *SMALL]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_what_a_run_is_bound_by() -> None:
    assert bound_by(0.1, 0.14) is None
    assert "data 40%" in str(bound_by(0.4, 0.2))
    assert "communication 40%" in str(bound_by(0.2, 0.4))


def test_a_batch_that_does_not_come_out_even() -> None:
    work = made("ce")
    config = dataclasses.replace(work.config, batch_size=9)
    runtime = Runtime("cpu", "fp32", alone=True)
    runtime.group.size = 2
    with pytest.raises(Exception, match="multiple of 2"):
        on_made_images(config, all_methods()["ce"].Options(), runtime, 3, steps=2)


def test_the_exchange_of_two_processes_is_a_part(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["--image-size", "16", "--steps", "12", "--skip", "2", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, *torchrun, "-m", "thresher", "bench", "step", *SMALL, *words],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["processes"] == 2
    assert found["ms_by_part"]["exchange"] > 0
