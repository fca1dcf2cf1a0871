"""What lies in a run's directory, when the disk is full and when two runs want it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from thresher.errors import UserError
from thresher.train import run_dir as module
from thresher.train.run_dir import RunDir


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_whole_lines(small_disk: Path) -> None:
    run = RunDir(small_disk)
    run.append_metrics([{"epoch": 1}])
    with pytest.raises(UserError, match="No space left to write"):
        run.append_metrics([{"epoch": 2, "much": "x" * 2_000_000}])
    assert run.metrics.read_text() == '{"epoch": 1}\n'
    run.append_metrics([{"epoch": 2}, {"epoch": 3}])
    assert run.metrics.read_text().splitlines() == ['{"epoch": 1}', '{"epoch": 2}', '{"epoch": 3}']


def test_a_run_goes_on_with_its_figures_though_the_disk_is_full(small_disk: Path) -> None:
    run = RunDir(small_disk)
    run.append_metrics([{"epoch": 1}, {"epoch": 2}, {"epoch": 3}])
    with run.metrics.open("a") as file:
        file.write('{"epoch": 4, "lo')  # as a kill leaves it
    with (small_disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    run.keep_metrics_before(9)
    assert [json.loads(line)["epoch"] for line in run.metrics.read_text().splitlines()] == [1, 2, 3]
    run.keep_metrics_before(2)
    assert run.metrics.read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
    run.keep_metrics_before(0)
    assert run.metrics.read_text() == ""


def test_two_runs_do_not_share_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.3)
    run = RunDir(tmp_path / "run")
    with (
        run.lock(),
        pytest.raises(UserError, match="Another process is training into"),
        RunDir(run.path).lock(),
    ):
        pass
    assert not run.path.exists()  # nothing was written, so nothing stays
    with run.lock():
        run.metrics.write_text("")
    with run.lock():  # the first one has let go
        assert run.metrics.exists()
