from __future__ import annotations

import errno
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from thresher.sources.detect import open_source
from thresher.sources.manifest import Manifest
from thresher.sources.parquet_rows import ParquetRows
from thresher.sources.read_error import ReadError
from thresher.sources.remote.disk_cache import DiskCache

from .conftest import write_parquet_images

ROWS = 60
IMAGES: list[bytes | None] = [
    None if i == 7 else np.random.default_rng(i).bytes(3000 + i) for i in range(ROWS)
]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Ten row groups in two files, some twenty kilobytes each."""
    for part in range(2):
        half = IMAGES[30 * part : 30 * part + 30]
        write_parquet_images(tmp_path / f"{part}.parquet", half, None, row_group_size=6)
    return open_source(str(tmp_path), labelled=False)


class Counting(ParquetRows):
    """Counts how often each row group is decoded."""

    def _stream_group(self, shard, group, footer, *, whole=False):  # type: ignore[no-untyped-def]
        self.decoded[shard, group] += 1
        return super()._stream_group(shard, group, footer, whole=whole)

    decoded: Counter[tuple[int, int]]


def open_rows(manifest: Manifest, cache_bytes: int, spool: DiskCache | None = None) -> Counting:
    rows = Counting(manifest, cache_bytes, spool)
    rows.decoded = Counter()
    return rows


def read(rows: ParquetRows, row: int) -> bytes | None:
    if IMAGES[row] is not None:
        return rows.read(row, row // 30, row % 30, -1)
    with pytest.raises(ReadError, match="no image bytes in this row"):
        rows.read(row, row // 30, row % 30, -1)
    return None


def test_random_order_decodes_each_group_once_or_twice(
    manifest: Manifest, cache_folder: Path
) -> None:
    rows = open_rows(manifest, cache_bytes=25_000)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(ROWS), 5)).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda row: read(rows, row), order)) == [IMAGES[i] for i in order]
    assert len(rows.decoded) == 10
    assert max(rows.decoded.values()) <= 2
    assert rows._groups.num_bytes <= 25_000
    again = open_rows(manifest, cache_bytes=25_000)
    assert [read(again, row) for row in order] == [IMAGES[i] for i in order]
    # The first wrote all but those it happened to hold in memory.
    assert again.decoded.total() <= 1
    assert len(list(cache_folder.glob("??/*"))) <= 10


def test_reading_in_order_spools_nothing(manifest: Manifest, cache_folder: Path) -> None:
    rows = open_rows(manifest, cache_bytes=25_000)
    assert [read(rows, row) for row in range(ROWS)] == IMAGES
    assert set(rows.decoded.values()) == {1}
    assert list(cache_folder.glob("??/*")) == []


def test_small_data_stay_in_memory(manifest: Manifest, cache_folder: Path) -> None:
    rows = open_rows(manifest, cache_bytes=1 << 20)
    order = np.random.default_rng(0).permutation(ROWS).tolist()
    assert [read(rows, row) for row in order] == [IMAGES[i] for i in order]
    assert set(rows.decoded.values()) == {1}
    assert list(cache_folder.glob("??/*")) == []


def test_another_file_of_the_same_name_has_its_own_spool(
    manifest: Manifest, tmp_path: Path
) -> None:
    order = np.random.default_rng(0).permutation(ROWS).tolist()
    rows = open_rows(manifest, cache_bytes=25_000)
    for row in order:
        read(rows, row)
    turned = IMAGES[:30][::-1]
    write_parquet_images(tmp_path / "0.parquet", turned, None, row_group_size=6)
    rows = open_rows(open_source(str(tmp_path), labelled=False), cache_bytes=25_000)
    for row in order:
        image = turned[row] if row < 30 else IMAGES[row]
        if image is not None:
            assert rows.read(row, row // 30, row % 30, -1) == image


def test_a_cache_smaller_than_the_data_is_announced_and_bounded(
    manifest: Manifest, tmp_path: Path
) -> None:
    spool = DiskCache(tmp_path / "spool", 100_000)
    with pytest.warns(UserWarning, match="is slow. Set THRESHER_CACHE_GB to more, or make tars"):
        rows = open_rows(manifest, 25_000, spool)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(ROWS), 3)).tolist()
    assert [read(rows, row) for row in order] == [IMAGES[i] for i in order]
    assert sum(file.stat().st_size for file in (tmp_path / "spool").glob("??/*")) <= 100_000


def test_a_full_disk_leaves_reading_slow_but_right(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DiskCache, "_write", full)
    rows = open_rows(manifest, cache_bytes=25_000)
    order = np.random.default_rng(0).permutation(ROWS).tolist()
    with pytest.warns(UserWarning, match="No space left .* random order is slow"):
        assert [read(rows, row) for row in order] == [IMAGES[i] for i in order]
