"""A real small file system that fills up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pack.helpers import hashes, write_photos
from thresher.cli import main
from thresher.pack.index import verify
from thresher.sources.detect import open_source
from thresher.sources.read import Reader


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    options = "size=256k,nr_inodes=200"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_what_is_finished(
    tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_photos(tmp_path / "photos", per_class=150)
    options = ["--short-side", "48", "--shard-mb", "0.05"]
    out = small_disk / "out"
    assert main(["pack", str(photos), str(out), *options]) == 2
    said = capsys.readouterr().err
    assert "No space left" in said
    assert "run the same command again" in said
    assert not list(out.glob(".*.tmp"))

    index = verify(out)  # what it says is there is there
    assert len(index) > 50
    assert not index.options["complete"]
    assert f"{len(index):,} images" in said
    reader, walked = Reader(index), open_source(f"{out}/*.tar", labelled=False)
    assert all(reader.read(i).startswith(b"\xff\xd8") for i in range(len(index)))
    assert len(walked) == len(index)
    reader.close()  # an open file would keep the disk from being unmounted

    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert main(["pack", str(photos), str(out), *options]) == 0
    assert main(["pack", str(photos), str(tmp_path / "whole"), *options]) == 0
    assert hashes(out) == hashes(tmp_path / "whole")


def test_a_disk_that_is_full_from_the_start(
    tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_photos(tmp_path / "photos", per_class=20)
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize))
    assert main(["pack", str(photos), str(small_disk / "out")]) == 2
    assert "No space left" in capsys.readouterr().err
