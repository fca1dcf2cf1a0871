"""What commands say of files that --allow-damaged leaves out: one line, on standard error."""

from __future__ import annotations

import csv
import errno
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import write_classes
from tests.forks import thresher
from thresher.cli import main
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
    done = thresher(*words)
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


@pytest.fixture(scope="module")
def run(shards: Path, checked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    said = notes("train", shards, "--val", checked, *QUICK, "--out", out)
    assert said == [note(shards, 3, 2), note(checked, 1, 1)]
    return out


def test_train_and_evaluate(run: Path, checked: Path) -> None:
    assert notes("evaluate", run, checked, "--allow-damaged") == [note(checked, 1, 1)]


@pytest.mark.parametrize("command", ["evaluate", "pack", "label"])
def test_folders_that_there_is_no_right_to_read_are_named(
    command: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = write_classes(tmp_path / "data")
    for name in ("0", "1"):
        (root / ("dark", "light")[int(name)]).rename(root / name)
    closed = root / "1" / "closed"
    closed.mkdir()
    close(monkeypatch, closed)
    words: dict[str, list[object]] = {
        "evaluate": ["evaluate", run, root],
        "pack": ["pack", root, tmp_path / "packed"],
        "label": ["label", root, "--classes", tmp_path / "c.yaml", "--out", tmp_path / "l.csv"],
    }
    (tmp_path / "c.yaml").write_text("dark: ['0']\nlight: ['1']\n")
    given = [str(word) for word in words[command]]
    assert main(given) == 2
    assert f"No right to read {closed}" in capsys.readouterr().err
    assert main([*given, "--allow-damaged"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert said == [
        "note: Left out, for there is no right to read them: the folders '1/closed'. Change their "
        "rights, or run as their owner."
    ]


def test_members_of_tars_that_hold_nothing_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_shards(tmp_path / "tars", 1, 0)
    with tarfile.open(root / "00000.tar", "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere.png"
        tar.addfile(link)
    for words in (["evaluate", run, root], ["pack", root, tmp_path / "packed"]):
        assert main([str(word) for word in words]) == 0
        assert "note: 1 image in tars left out, as links" in capsys.readouterr().err


def close(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Take the right to read a folder, which even root then lacks."""
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if Path(os.fspath(path)) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


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
