"""The demo's mutual calibration in one process, and in two with both placements of its networks.

    python benchmarks/placement.py [--seeds 0] [--epochs 60]

Trains on the images of ``examples/fashion-noisy`` and measures on its test images after the last
epoch. Batch statistics are shared between the processes, so that they see what one process sees.
The last line is JSON: test accuracies by placement.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FASHION = Path(__file__).resolve().parents[1] / "examples" / "fashion-noisy"
PLACEMENTS: dict[str, tuple[str, ...]] = {
    "one process": (),
    "together": ("--devices", "2", "--sync-batchnorm", "true"),
    "apart": ("--devices", "2", "--sync-batchnorm", "true", "--placement", "apart"),
}


def accuracy(words: tuple[str, ...], seed: int, epochs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "thresher", "train", FASHION / "train.parquet",
            "--val", FASHION / "test.parquet", "--out", Path(folder) / "run", "--seed", str(seed),
            "--epochs", str(epochs), "--flip", "true", "--accelerator", "cpu", *words,
        ]  # fmt: skip
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        found: float = json.loads((Path(folder) / "run" / "summary.json").read_text())["accuracy"]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=60)
    given = parser.parse_args()
    found = {
        name: [accuracy(words, seed, given.epochs) for seed in given.seeds]
        for name, words in PLACEMENTS.items()
    }
    for name, values in found.items():
        print(f"{name:12} {'  '.join(f'{value:.3f}' for value in values)}")
    print(json.dumps({name.replace(" ", "_"): values for name, values in found.items()}))


if __name__ == "__main__":
    main()
