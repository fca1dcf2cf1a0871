"""What commands say of files that --allow-damaged leaves out: one line, on standard error."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thresher.pack.index import load_index
from thresher.sources.detect import open_source

QUICK = ["--model", "small_cnn", "--epochs", "1", "--batch-size", "8", "--threads", "1"]
QUICK += ["--method", "ce", "--allow-damaged"]


def write_shards(root: Path, num: int, damaged: int) -> Path:
    """Tars of dark and light images; the last ``damaged`` of them are web pages."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(num):
        with tarfile.open(root / f"{number:05}.tar", "w") as tar:
            for index in range(8):
                level = (60, 190)[index % 2]
                buffer = io.BytesIO()
                pixels = rng.integers(level - 40, level + 40, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(buffer, "PNG")
                label = str(index % 2).encode()
                for name, data in ((f"{index}.png", buffer.getvalue()), (f"{index}.cls", label)):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    for number in range(num - damaged, num):
        (root / f"{number:05}.tar").write_bytes(b"<html>" * 200)
    return root


def notes(*words: object) -> list[str]:
    """Run a command and give back what it notes on standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "thresher", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("note: ")]


def note(root: Path, first: int, num: int) -> str:
    names = ", ".join(f"'{number:05}.tar'" for number in range(first, first + num))
    what = "1 damaged file is" if num == 1 else f"{num} damaged files are"
    reason = f"{root}/{first:05}.tar is damaged: it is not a tar file. It has no good member."
    return f"note: {what} left out, wholly or in part: {names}. " + (
        reason if num == 1 else f"The first: {reason}"
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards") / "train", 5, 2)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("checked") / "val", 2, 1)


def test_train_and_evaluate(shards: Path, checked: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = notes("train", shards, "--val", checked, *QUICK, "--out", run)
    assert said == [note(shards, 3, 2), note(checked, 1, 1)]
    assert notes("evaluate", run, checked, "--allow-damaged") == [note(checked, 1, 1)]


def test_of_two_processes_one_says_so(shards: Path, tmp_path: Path) -> None:
    words = (*QUICK, "--devices", "2", "--accelerator", "cpu", "--out", tmp_path / "run")
    assert notes("train", shards, *words) == [note(shards, 3, 2)]


def test_pack_says_so_and_lists_them(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed"
    assert notes("pack", shards, out, "--allow-damaged") == [note(shards, 3, 2)]
    problems = {
        f"{shards}/{number:05}.tar": f"{shards}/{number:05}.tar is damaged: it is not a tar file. "
        "It has no good member."
        for number in (3, 4)
    }
    assert load_index(out).options["damaged_shards"] == problems
    with (out / "unreadable.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"id": "", "key": place, "label": "", "reason": reason}
        for place, reason in problems.items()
    ]
    # The packed folder itself is whole.
    manifest = open_source(str(out))
    assert len(manifest) == 24
    assert manifest.usable.all()
