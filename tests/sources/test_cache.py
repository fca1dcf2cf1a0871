from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thresher.errors import UserError
from thresher.sources.remote.disk_cache import DiskCache, NoRoom, cache_name, default_cache


def held(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("??/*"))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100 << 10)
    names = [cache_name(i) for i in range(10)]
    now = time.time()
    for age, name in enumerate(names):
        assert cache.write(name, b"x" * 8192)
        os.utime(cache._path(name), (now - 1000 + age, now - 1000 + age))
    assert cache.read(names[0], 10, 5, 8192) == b"xxxxx"  # used again
    for i in range(10, 14):
        cache.write(cache_name(i), b"y" * 8192)
    assert held(tmp_path) <= 100 << 10
    there = [cache.read(name, 0, 1, 8192) is not None for name in names]
    assert there[0]
    assert there == [True, *sorted(there[1:])]
    assert not all(there)


def test_an_open_file_outlives_its_removal(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 20 << 10)
    cache.write("aa1", b"first")
    handle = cache.open("aa1")
    assert handle is not None
    for i in range(20):
        cache.write(cache_name(i), b"y" * 8192)
    assert cache.open("aa1") is None
    assert os.pread(handle, 9, 0) == b"first"
    os.close(handle)


def test_a_file_that_is_not_whole_is_not_there(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    cache.write("aa1", b"12345")
    os.truncate(tmp_path / "aa" / "aa1", 2)
    assert cache.read("aa1", 0, 5, 5) is None
    path = cache.make("aa1", 5, lambda file: file.write(b"again"))
    assert path.read_bytes() == b"again"


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1 << 20)

    def fail(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NoRoom, match=r"No space left on device. Choose another folder by the"):
        cache.make("aa1", 5, fail)
    assert list((tmp_path / "aa").iterdir()) == []
    with pytest.raises(NoRoom, match=r"does not fit into the cache of 0.00105 GB. Set"):
        cache.make("aa1", 1 << 30, fail)


def test_what_a_killed_writer_left_is_removed_in_time(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    for name, age in (("old", 2 * 24 * 3600), ("new", 60)):
        (tmp_path / "aa").mkdir(exist_ok=True)
        file = tmp_path / "aa" / f".{name}.tmp"
        file.write_bytes(b"x")
        os.utime(file, (time.time() - age,) * 2)
    cache.write("aa1", b"12345")
    assert sorted(file.name for file in (tmp_path / "aa").iterdir()) == [".new.tmp", "aa1"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = DiskCache(tmp_path / "file", 1 << 20)
    assert not cache.write("aa1", b"x")
    assert cache.read("aa1", 0, 1, 1) is None


WORKER = """
import sys, random
from pathlib import Path
from thresher.sources.remote.disk_cache import DiskCache, cache_name
cache = DiskCache(Path(sys.argv[1]), 400_000)
rng = random.Random(int(sys.argv[2]))
for _ in range(1500):
    number = rng.randrange(200)
    name, want = cache_name(number), bytes([number]) * 5000
    got = cache.read(name, 100, 700, 5000)
    assert got is None or got == want[:700], name
    if got is None and number % 2:
        cache.write(name, want)
    elif got is None:
        made = cache.make(name, 5000, lambda file: file.write(want))
"""


def test_several_processes_share_one_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [subprocess.Popen([*command, str(seed)]) for seed in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert 100_000 < held(tmp_path) <= 400_000 * (1 + 3 / 32)
    assert not list(tmp_path.glob("??/.*"))


def test_folder_and_bound_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRESHER_CACHE_DIR", str(tmp_path / "c"))
    monkeypatch.setenv("THRESHER_CACHE_GB", "1.5")
    cache = default_cache()
    assert (cache.folder, cache.most_bytes) == (tmp_path / "c", 1_500_000_000)
    assert default_cache() is cache
    monkeypatch.delenv("THRESHER_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache().folder == tmp_path / "thresher"
    for wrong in ("x", "-1", "inf", "nan"):
        monkeypatch.setenv("THRESHER_CACHE_GB", wrong)
        with pytest.raises(UserError, match="it is a number of gigabytes"):
            default_cache()
