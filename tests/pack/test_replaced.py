"""Shards replaced between two runs of pack, by ones of equal rows and labels."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.pack.helpers import encoded, photo
from tests.sources.conftest import write_parquet_images
from tests.sources.test_lmdb import raw, write_lmdb
from thresher.errors import UserError
from thresher.pack.run import PackResult, pack
from thresher.pack.settings import PackSettings
from thresher.sources.detect import open_source


def packed(data: Path, out: Path) -> PackResult:
    return pack(open_source(str(data)), out, PackSettings(short_side=32, shard_mb=0.02), workers=1)


def test_parquet(tmp_path: Path) -> None:
    file, out = tmp_path / "a.parquet", tmp_path / "out"
    write_parquet_images(file, [encoded(photo(i)) for i in range(4)], [0, 1, 0, 1])
    packed(file, out)
    assert packed(file, out).kept > 0
    write_parquet_images(file, [encoded(photo(i + 9)) for i in range(4)], [0, 1, 0, 1])
    with pytest.raises(UserError, match=r"a\.parquet changed since .*out was begun"):
        packed(file, out)


def test_lmdb_of_the_same_size(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_lmdb(tmp_path / "lmdb", {b"%d" % i: raw(i % 2) for i in range(6)})
    packed(tmp_path / "lmdb", out)
    os.utime(tmp_path / "lmdb/data.mdb", ns=(0, 0))
    with pytest.raises(UserError, match=r"data\.mdb changed since .*, though not in size"):
        packed(tmp_path / "lmdb", out)


def test_a_folder_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    file, out = tmp_path / "a.parquet", tmp_path / "out"
    write_parquet_images(file, [encoded(photo(i)) for i in range(4)], [0, 1, 0, 1])
    packed(file, out)
    note = out / ".pack" / "shards.json"
    sizes = json.loads(note.read_text())["sizes"]
    note.unlink()
    assert packed(file, out).kept > 0
    assert json.loads(note.read_text())["sizes"] == sizes
