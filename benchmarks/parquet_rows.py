"""Reading images of a large Parquet set in random order: row groups in memory alone, and spooled.

    python benchmarks/parquet_rows.py [--images N] [--row-group N]

The images are random bytes of 100 kB, by default 10,000 of them (1 GB) in row groups of 1,000, as
the Hugging Face hub stores them; the memory bound is the reader's own. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from thresher.sources.detect import open_source
from thresher.sources.parquet_rows import ParquetRows
from thresher.sources.remote.disk_cache import DiskCache

SIZE = 100_000


def make(path: Path, images: int, row_group: int) -> None:
    rng = np.random.default_rng(0)
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for start in range(0, images, row_group):
            num = min(row_group, images - start)
            columns = [[rng.bytes(SIZE) for _ in range(num)], [i % 10 for i in range(num)]]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=row_group)


def rate(rows: ParquetRows, order: list[int]) -> float:
    start = time.perf_counter()
    for row in order:
        assert len(rows.read(row, 0, row, -1)) == SIZE
    return len(order) / (time.perf_counter() - start)


class MemoryOnly(ParquetRows):
    def _is_spooled(self, *_: object) -> bool:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--row-group", type=int, default=1_000)
    given = parser.parse_args()
    figures: dict[str, float] = {"images": given.images, "row_group": given.row_group}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["THRESHER_CACHE_DIR"] = f"{folder}/cache"
        path = Path(folder) / "train.parquet"
        make(path, given.images, given.row_group)
        manifest = open_source(str(path))
        order = np.random.default_rng(1).permutation(given.images).tolist()
        spool = DiskCache(Path(folder) / "spool", 1 << 40)
        figures["memory_only_per_s"] = rate(MemoryOnly(manifest), order[:100])
        rows = ParquetRows(manifest, spool=spool)
        figures["first_epoch_per_s"] = rate(rows, order)
        figures["second_epoch_per_s"] = rate(rows, order)
        figures["in_order_per_s"] = rate(MemoryOnly(manifest), list(range(given.images)))
    for name, value in figures.items():
        print(f"{name:24}{value:12,.1f}")
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
