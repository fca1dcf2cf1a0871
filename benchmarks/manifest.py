"""How fast and in how much memory a manifest of ten million images opens.

    python benchmarks/manifest.py [--rows N]

The manifest is synthetic: 1,000 tars, 1,000 classes, keys as img2dataset writes them, one image in
a hundred unreadable. It is opened in a fresh process, whose peak resident set is reported with
what the libraries alone take. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thresher.sources.manifest import make_manifest

CLASSES = 1_000
SHARDS = 1_000

MEASURE = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from thresher.sources.manifest import Manifest
from thresher.sources.read import Reader

def peak():
    # Not ru_maxrss where it can be had: that begins with the peak of the process that started us.
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 2**20

figures = {"libraries_rss_gb": peak()}
def timed(name, call):
    start = time.perf_counter()
    value = call()
    figures[name] = time.perf_counter() - start
    return value

manifest = timed("open_seconds", lambda: Manifest.load(Path(sys.argv[1])))
figures["open_rss_gb"] = peak()
timed("labels_seconds", lambda: manifest.labels.sum())
usable = timed("usable_seconds", lambda: int(manifest.usable.sum()))
timed("with_states_seconds", lambda: manifest.with_states({i: "damaged" for i in range(1000)}))
reader = timed("reader_seconds", lambda: Reader(manifest))
picks = np.random.default_rng(0).integers(0, len(manifest), 1000).tolist()
def locate():
    for i in picks:
        manifest.key(i), int(reader._shard[i]), int(reader._offset[i]), int(reader._length[i])
timed("locate_1000_seconds", locate)
timed("states_seconds", lambda: manifest.states)
figures["usable"] = usable
figures["rows"] = len(manifest)
figures["peak_rss_gb"] = peak()
print(json.dumps(figures))
"""


def make(rows: int, path: Path) -> None:
    numbers = pa.array(np.arange(rows))
    digits = pc.utf8_lpad(pc.cast(numbers, pa.string()), 9, "0")
    keys = pc.binary_join_element_wise(pc.utf8_slice_codeunits(digits, 0, 5), digits, ".tar/")
    rng = np.random.default_rng(0)
    lengths = rng.integers(5_000, 200_000, rows)
    states = pa.array(np.where(rng.random(rows) < 0.01, "damaged: cut short", "ok"))
    make_manifest(
        kind="tar",
        shards=[f"{number:05}.tar" for number in range(SHARDS)],
        classes=[f"class {number}" for number in range(CLASSES)],
        source="synthetic",
        keys=pc.binary_join_element_wise(keys, ".jpg", ""),
        labels=rng.integers(0, CLASSES, rows).astype(np.int32),
        shard=np.arange(rows) * SHARDS // rows,
        offsets=np.cumsum(lengths) // 512 * 512,
        lengths=lengths,
        states=states,
    ).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.parquet"
        start = time.perf_counter()
        make(rows, path)
        print(f"{rows:,} rows made in {time.perf_counter() - start:.1f} s", end=", ")
        print(f"{path.stat().st_size / 2**20:.0f} MiB on disk")
        command = [sys.executable, "-c", MEASURE, str(path)]
        output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    figures = json.loads(output.stdout)
    for name, value in figures.items():
        print(f"{name:24}{value:14,.4g}")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
