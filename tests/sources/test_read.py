from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from thresher.sources.cache import SharedCache
from thresher.sources.detect import open_source
from thresher.sources.parquet_rows import ParquetRows
from thresher.sources.read import Reader, ReadError
from thresher.sources.shards import LocalShard, ShardPool

from .conftest import make_image, write_parquet_images, write_tar, write_tree

IMAGES = [make_image(i, size=(8 + i, 8)) for i in range(60)]


def as_folder(root: Path) -> str:
    return str(write_tree(root, {f"{i % 2}/{i:03}.jpg": data for i, data in enumerate(IMAGES)}))


def as_tars(root: Path) -> str:
    for shard in range(12):
        numbers = range(5 * shard, 5 * shard + 5)
        write_tar(root / f"{shard:02}.tar", {f"{i:03}.jpg": IMAGES[i] for i in numbers})
    return str(root)


def as_parquet(root: Path) -> str:
    for part in range(3):
        write_parquet_images(
            root / f"{part}.parquet",
            list(IMAGES[20 * part : 20 * part + 20]),
            None,
            paths=[f"{i:03}.jpg" for i in range(20 * part, 20 * part + 20)],
        )
    return str(root)


@pytest.mark.parametrize("write", [as_folder, as_tars, as_parquet])
def test_random_reads_from_many_threads_give_the_original_bytes(
    tmp_path: Path, write: Callable[[Path], str]
) -> None:
    reader = Reader(manifest := open_source(write(tmp_path / "d"), labelled=False))
    assert len(manifest) == 60
    order = np.random.default_rng(0).integers(0, 60, size=2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        for index, data in zip(order, pool.map(reader.read, order), strict=True):
            assert data == IMAGES[int(Path(manifest.key(index)).stem)]
    reader.close()
    again = pickle.loads(pickle.dumps(reader))
    assert again.read(7) == reader.read(7)


def test_a_file_that_vanished_or_may_not_be_read(unprivileged) -> None:  # type: ignore[no-untyped-def]
    folder, drop = unprivileged
    write_tree(folder, {"a/1.jpg": b"x", "b/1.jpg": b"y"})
    reader = Reader(open_source(str(folder)))
    (folder / "a" / "1.jpg").unlink()
    (folder / "b" / "1.jpg").chmod(0)
    with pytest.raises(ReadError, match=r"^file vanished$"):
        reader.read(0)
    with drop(), pytest.raises(ReadError, match=r"^no right to read the file$"):
        reader.read(1)


def test_the_pool_keeps_few_shards_open_and_none_that_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    close = LocalShard.close

    def count(shard: LocalShard) -> None:
        closed.append(shard.size)
        close(shard)

    monkeypatch.setattr(LocalShard, "close", count)
    paths = []
    for size in (1, 2, 3):
        (tmp_path / str(size)).write_bytes(b"x" * size)
        paths.append(str(tmp_path / str(size)))
    pool = ShardPool(most=1)
    with pool.lend(paths[0]) as first:
        with pool.lend(paths[1]) as second:
            assert second.read_at(0, 9) == b"xx"
            assert closed == []
        assert closed == [2]
        assert first.read_at(0, 9) == b"x"
    with pool.lend(paths[2]):
        assert closed == [2, 1]
    pool.close()
    assert closed == [2, 1, 3]


def test_the_cache_drops_the_oldest_and_keeps_the_newest() -> None:
    cache: SharedCache[str, bytes] = SharedCache(10, size_of=len)
    made: list[str] = []

    def get(key: str, size: int) -> None:
        def make() -> bytes:
            made.append(key)
            return b"x" * size

        assert len(cache.get(key, make)) == size

    get("a", 4)
    get("b", 4)
    get("a", 4)
    get("c", 4)  # b was used least recently
    assert (made, cache.num_bytes) == (["a", "b", "c"], 8)
    get("a", 4)
    get("big", 99)
    assert (made, cache.num_bytes) == (["a", "b", "c", "big"], 99)
    get("a", 4)
    assert (made, cache.num_bytes) == (["a", "b", "c", "big", "a"], 4)
    cache.clear()
    assert cache.num_bytes == 0


def test_one_thread_makes_a_value_and_the_others_wait() -> None:
    cache: SharedCache[int, bytes] = SharedCache(100, size_of=len)
    calls: list[int] = []
    gate = threading.Barrier(8)

    def make() -> bytes:
        calls.append(1)
        time.sleep(0.05)
        return b"value"

    def get(_: int) -> bytes:
        gate.wait()
        return cache.get(0, make)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(get, range(8))) == {b"value"}
    assert len(calls) == 1


def test_a_failure_is_raised_and_not_remembered() -> None:
    cache: SharedCache[int, bytes] = SharedCache(100, size_of=len)

    def fail() -> bytes:
        raise ReadError("no")

    with pytest.raises(ReadError):
        cache.get(0, fail)
    assert cache.get(0, lambda: b"yes") == b"yes"


def test_row_groups_stay_within_the_bound(tmp_path: Path) -> None:
    images: list[bytes | None] = [bytes([i]) * 1000 for i in range(12)]
    path = write_parquet_images(tmp_path / "a.parquet", images, None, row_group_size=2)
    rows = ParquetRows(open_source(str(path), labelled=False), cache_bytes=5000)
    for row in range(12):
        assert rows.read(row, 0, row, -1) == images[row]
        assert rows._groups.num_bytes <= 5000
    assert rows._groups.num_bytes > 3000
