"""Mutual calibration against cross-entropy where it might do harm.

    python benchmarks/robustness.py --cases more-images true-labels --seeds 0

Cases, all on Fashion-MNIST with the network of the demo and two networks each:

- ``more-images``  6,000 images, 20 epochs, 40 % wrong: cross-entropy hardly memorises here
- ``true-labels``  the demo's images with their true labels
- ``uniform``      the demo's images, 40 % of the labels replaced by any other class
- ``clean-set``    the demo, with 10 correctly labelled images of each class from its test set,
                   which are then left out of the measurement

``more-images`` needs the original files (Debian: ``apt install dataset-fashion-mnist``). The last
line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from thresher import presets
from thresher.config import TrainConfig
from thresher.methods import all_methods
from thresher.train.run import train

FASHION = Path(__file__).resolve().parents[1] / "examples" / "fashion-noisy"


def with_labels(labels: np.ndarray, path: Path) -> Path:
    """The demo's training images with these labels."""
    table = pq.read_table(FASHION / "train.parquet")
    position = table.schema.get_field_index("label")
    column = pa.array(labels, type=pa.int64())
    pq.write_table(table.set_column(position, table.schema.field("label"), column), path)
    return path


def true_labels() -> np.ndarray:
    return np.array(pq.read_table(FASHION / "train-true.parquet")["label"].to_numpy())


def more_images(folder: Path) -> TrainConfig:
    command = [sys.executable, FASHION / "make.py", "--out", folder, "--train-per-class", "600"]
    subprocess.run(command, check=True)
    config = presets.demo(folder / "train.parquet", folder / "test.parquet", "ce")
    return dataclasses.replace(config, epochs=20)


def of_true_labels(folder: Path) -> TrainConfig:
    data = with_labels(true_labels(), folder / "train.parquet")
    return presets.demo(data, FASHION / "test.parquet", "ce")


def uniform(folder: Path) -> TrainConfig:
    rng = np.random.default_rng(7)
    labels = true_labels()
    wrong = rng.random(len(labels)) < 0.4
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, wrong.sum())) % 10
    return presets.demo(
        with_labels(labels, folder / "train.parquet"), FASHION / "test.parquet", "ce"
    )


def clean_set(folder: Path) -> TrainConfig:
    test = pq.read_table(FASHION / "test.parquet")
    labels = test["label"].to_numpy()
    rows = np.concatenate([np.flatnonzero(labels == c)[:10] for c in range(10)])
    pq.write_table(test.take(rows), folder / "clean.parquet")
    pq.write_table(test.take(np.setdiff1d(np.arange(len(labels)), rows)), folder / "rest.parquet")
    config = presets.demo(FASHION / "train.parquet", folder / "rest.parquet", "ce")
    return dataclasses.replace(config, clean=str(folder / "clean.parquet"))


CASES: dict[str, Callable[[Path], TrainConfig]] = {
    "more-images": more_images,
    "true-labels": of_true_labels,
    "uniform": uniform,
    "clean-set": clean_set,
}


def accuracy(config: TrainConfig, method: str, seed: int, out: Path) -> float:
    options_of = all_methods()[method].Options
    options = options_of(networks=2) if method == "ce" else options_of()
    config = dataclasses.replace(config, method=method, seed=seed, eval_every=config.epochs)
    result = train(config, options, out, console=Console(quiet=True))
    assert result.accuracy is not None
    return result.accuracy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    results: dict[str, dict[str, list[float]]] = {}
    for case in args.cases:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            config = CASES[case](folder)
            results[case] = {
                method: [
                    accuracy(config, method, seed, folder / f"{method}-{seed}")
                    for seed in args.seeds
                ]
                for method in ("ce", "mct")
            }
        means = {method: statistics.mean(values) for method, values in results[case].items()}
        print(f"{case:14} ce {means['ce']:.1%}  mct {means['mct']:.1%}", flush=True)
    print(json.dumps({"seeds": args.seeds, "accuracy": results}))


if __name__ == "__main__":
    main()
