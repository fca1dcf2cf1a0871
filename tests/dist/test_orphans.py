"""Ranks outlive the shell that started them by hand, and not a launcher that was killed."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import write_classes
from tests.dist.runs import ENVIRONMENT, free_port
from tests.dist.test_elastic import newest, start

COMMON = (
    "--method", "ce", "--batch-size", "12", "--image-size", "16", "--val-share", "0",
    "--accelerator", "cpu", "--threads", "1", "--checkpoint-minutes", "0", "--peer-timeout", "8",
)  # fmt: skip
BEAT = 2.0
"""Seconds between two looks at the parent: a quarter of --peer-timeout."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "data", per_class=60)


def wait_for(ready: Path, out: Path, seconds: float = 120) -> None:
    give_up = time.monotonic() + seconds
    while not ready.exists():
        assert time.monotonic() < give_up, list(out.rglob("*"))
        time.sleep(0.05)


def launched(data: Path, out: Path) -> subprocess.Popen[str]:
    """A launcher of two ranks that will train for long and have saved once."""
    launcher = start(data, out, "--epochs", "5000", "--devices", "2", *COMMON)
    give_up = time.monotonic() + 120
    while newest(out) is None:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return launcher


def test_ranks_outlive_the_shell_that_started_them(data: Path, tmp_path: Path) -> None:
    """As ``ssh node0 'RANK=0 … nohup thresher train … &'`` on each of several machines."""
    out, log, go_on = tmp_path / "run", tmp_path / "log", tmp_path / "go on"
    epochs = 30
    # The last step before the end of training waits until the shell has been gone for long enough.
    main = (
        "import pathlib, sys, time, thresher.train.chronicle as told\n"
        "told_of = told.Chronicle._on_epoch\n"
        "def slowly(self, metrics):\n"
        "    told_of(self, metrics)\n"
        f"    while metrics.epoch == 2 and not pathlib.Path({str(go_on)!r}).exists():\n"
        "        time.sleep(0.05)\n"
        "told.Chronicle._on_epoch = slowly\n"
        "from thresher.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["train", data, "--out", out, "--epochs", epochs, *COMMON]
    command = shlex.join([sys.executable, "-c", main, *map(str, words)])
    place = f"WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT={free_port()} LOCAL_WORLD_SIZE=2"
    lines = [
        f"RANK={rank} LOCAL_RANK={rank} {place} nohup {command} >>{shlex.quote(str(log))} 2>&1 &"
        for rank in range(2)
    ]
    typed = "\n".join([*lines, "echo $! >&2", "read -r _"])
    shell = subprocess.Popen(
        ["sh", "-c", typed], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    ranks = []
    try:
        wait_for(out / "metrics.jsonl", out)
        ranks = psutil.Process(shell.pid).children(recursive=True)
        assert len(ranks) == 2
        shell.communicate("\n", timeout=20)
        assert shell.returncode == 0
        time.sleep(2 * BEAT)
        go_on.touch()
        wait_for(out / "summary.json", out)
        _, alive = psutil.wait_procs(ranks, timeout=60)
        assert not alive
    finally:
        for process in ranks:
            if process.is_running():
                process.kill()
    assert "stopped by" not in log.read_text()
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["epoch"] == epochs


def test_a_killed_launcher_ends_its_ranks(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    launcher = launched(data, out)
    ranks = psutil.Process(launcher.pid).children()
    assert len(ranks) == 2
    launcher.kill()
    _, errors = launcher.communicate(timeout=60)
    _, alive = psutil.wait_procs(ranks, timeout=30)
    assert not alive
    assert "stopped by SIGTERM. Everything is saved" in errors
    assert not (out / "summary.json").exists()


def test_a_launcher_that_is_asked_to_stop_lets_its_ranks_save(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    launcher = launched(data, out)
    launcher.send_signal(signal.SIGTERM)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 143, errors
    assert errors.count("stopped by SIGTERM. Everything is saved") == 1, errors


def test_a_launcher_started_with_nohup_outlives_its_terminal(data: Path, tmp_path: Path) -> None:
    """torchrun's agent listens for SIGHUP, although nohup has it ignored."""
    out = tmp_path / "run"
    words = ["train", data, "--out", out, "--epochs", "60", "--devices", "2", *COMMON]
    command = shlex.join([sys.executable, "-m", "thresher", *map(str, words)])
    launcher = subprocess.Popen(
        ["sh", "-c", f"trap '' HUP; exec {command}"], env=ENVIRONMENT, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(out / "metrics.jsonl", out)
    assert not (out / "summary.json").exists()
    launcher.send_signal(signal.SIGHUP)
    _, errors = launcher.communicate(timeout=200)
    assert launcher.returncode == 0, errors
    assert (out / "summary.json").exists()
