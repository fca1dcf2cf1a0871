"""What a user sees when images cannot be decoded any more in the middle of a run."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import write_classes
from thresher.cli import main
from thresher.errors import UserError
from thresher.sources.read import Reader

QUICK = ["--model", "small_cnn", "--batch-size", "8", "--threads", "1", "--val-share", "0",
         "--cache", "none"]  # fmt: skip


def test_lost_access_names_the_image_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Reader.read

    def read_or_fail(self: Reader, index: int) -> bytes:
        if index == 5 and threading.current_thread().name.startswith("decode"):
            raise UserError("The credentials have expired.")
        return read(self, index)

    monkeypatch.setattr(Reader, "read", read_or_fail)
    data = write_classes(tmp_path / "data")
    words = ["train", str(data), *QUICK, "--epochs", "2", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert capsys.readouterr().err == (
        "thresher: The credentials have expired. This happened at the image with the id 5"
        f" ({data}/dark/0-005.png).\n"
    )


def test_a_killed_decoding_process_names_the_image_in_one_line(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data")
    words = ["train", str(data), *QUICK, "--epochs", "100000", "--decoder", "processes"]
    with subprocess.Popen(
        [sys.executable, "-m", "thresher", *words, "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        while not run.stdout.readline().startswith("epoch"):
            assert run.poll() is None
        (worker,) = (
            child
            for child in psutil.Process(run.pid).children()
            if "thresher.loader.worker" in child.cmdline()
        )
        worker.kill()
        killed = time.monotonic()
        _, err = run.communicate(timeout=60)
        assert time.monotonic() - killed < 10
    assert run.returncode == 2
    assert re.search(
        r"^thresher: A process that decodes images was killed by signal 9 at the image with the id"
        rf" \d+ \({data}/\S+\)\. Go on with [^\n]*\n$",
        err,
    ), err
