"""The main job on real images: ordinary training, mutual calibration, and the ceiling.

    python examples/fashion-noisy/demo.py [--seed 0] [--out runs/demo] [--epochs 60]

trains three times on two CPU cores, each time two networks of the same kind for the same number of
epochs, and takes their averaged prediction after the last epoch. Then it scores what mutual
calibration says of the labels against the true ones, which no training but the ceiling has seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from thresher import presets
from thresher.audit.run import AuditResult, audit
from thresher.config import TrainConfig
from thresher.errors import UserError
from thresher.files import write_atomically
from thresher.methods import all_methods
from thresher.sources.manifest import Manifest
from thresher.sources.read import Reader
from thresher.train.run import RunResult, train

HERE = Path(__file__).parent


def run_one(name: str, config: TrainConfig, out: Path, console: Console) -> RunResult:
    """Train once, with two networks whatever the method."""
    console.rule(name)
    options_of = all_methods()[config.method].Options
    options = options_of(networks=2) if config.method == "ce" else options_of()
    return train(config, options, out, overwrite=out.exists(), console=console)


def write_true_labels(out: Path) -> Path:
    """The training images with their true labels, for the ceiling run alone."""
    table = pq.read_table(HERE / "train.parquet")
    truth = pq.read_table(HERE / "train-true.parquet")["label"]
    position = table.schema.get_field_index("label")
    path = out / "train-true-labels.parquet"
    with write_atomically(path) as temporary:
        pq.write_table(table.set_column(position, table.schema.field("label"), truth), temporary)
    return path


def judge_labels(run: Path) -> AuditResult:
    """Write the report, and score the suspects against the truth."""
    reader = Reader(Manifest.load(run / "manifest.parquet"))
    truth = pq.read_table(HERE / "train-true.parquet")["label"].to_numpy()
    found = audit(run, read=reader.read, truth=np.asarray(truth))
    reader.close()
    return found


def demo(out: Path, seed: int, epochs: int, console: Console) -> dict[str, float]:
    """Run all three and return the figures of ``summary.json``."""
    started = time.perf_counter()
    noisy, test = HERE / "train.parquet", HERE / "test.parquet"

    def configure(data: Path, method: str) -> TrainConfig:
        return dataclasses.replace(presets.demo(data, test, method, seed), epochs=epochs)

    ce = run_one(
        "ordinary training, noisy labels",
        configure(noisy, "ce"),
        out / "ce",
        console,
    )
    mct = run_one(
        "mutual calibration, noisy labels",
        configure(noisy, "mct"),
        out / "mct",
        console,
    )
    clean = run_one(
        "ordinary training, true labels: the ceiling",
        configure(write_true_labels(out), "ce"),
        out / "clean",
        console,
    )
    found = judge_labels(out / "mct")
    assert found.scores is not None
    shutil.copyfile(found.report, out / "report.html")
    assert ce.accuracy is not None
    assert mct.accuracy is not None
    assert clean.accuracy is not None
    return {
        "ce_accuracy": ce.accuracy,
        "mct_accuracy": mct.accuracy,
        "clean_accuracy": clean.accuracy,
        "recovered_gap": recovered_gap(ce.accuracy, mct.accuracy, clean.accuracy),
        "label_error_precision": found.scores.precision,
        "label_error_recall": found.scores.recall,
        "label_error_auroc": found.scores.auroc,
        "ce_seconds": round(ce.seconds, 1),
        "mct_seconds": round(mct.seconds, 1),
        "clean_seconds": round(clean.seconds, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "seed": seed,
    }


def recovered_gap(ce: float, mct: float, clean: float) -> float:
    """Share of what wrong labels cost that is won back; NaN where they cost nothing."""
    return (mct - ce) / (clean - ce) if clean != ce else math.nan


def show(figures: dict[str, float], out: Path, console: Console) -> None:
    """The one table."""
    table = Table("training", "labels", "test accuracy", "seconds", box=None)
    for label, key, labels in (
        ("ordinary (cross-entropy)", "ce", "40 % wrong"),
        ("mutual calibration", "mct", "40 % wrong"),
        ("ordinary (cross-entropy)", "clean", "true"),
    ):
        table.add_row(
            label, labels, f"{figures[f'{key}_accuracy']:.1%}", f"{figures[f'{key}_seconds']:.0f}"
        )
    console.rule("result")
    console.print(table)
    console.print(
        f"Mutual calibration wins back {figures['recovered_gap']:.0%} of what wrong labels cost."
        f"\nWrong labels found: precision {figures['label_error_precision']:.1%}, recall"
        f" {figures['label_error_recall']:.1%}, AUROC {figures['label_error_auroc']:.3f}."
        f"\nTook {figures['seconds']:.0f} s. Report: {out / 'report.html'}",
        highlight=False,
        soft_wrap=True,
    )


def main() -> int:
    """Parse, run, write ``summary.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--epochs", type=int, default=60, help="fewer, only to see that it runs")
    args = parser.parse_args()
    console = Console()
    try:
        figures = demo(args.out, args.seed, args.epochs, console)
        with write_atomically(args.out / "summary.json") as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n")
    except UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    show(figures, args.out, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
