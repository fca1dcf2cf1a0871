"""The demo over several seeds: the figures that the README quotes.

    python benchmarks/demo.py --seeds 0 1 2 [--out docs/figures/demo.json]

runs ``examples/fashion-noisy/demo.py`` once per seed, one after the other, and prints a table and a
last line of JSON with each run, means and spreads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

DEMO = Path(__file__).resolve().parents[1] / "examples" / "fashion-noisy" / "demo.py"
NAMES = (
    "ce_accuracy",
    "mct_accuracy",
    "clean_accuracy",
    "recovered_gap",
    "label_error_precision",
    "label_error_recall",
    "label_error_auroc",
    "seconds",
)


def run_demo(seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(DEMO), "--seed", str(seed), "--out", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        figures: dict[str, float] = json.loads((Path(folder) / "summary.json").read_text())
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    runs = [run_demo(seed) for seed in args.seeds]
    summary = {
        name: {
            "mean": round(statistics.mean(run[name] for run in runs), 4),
            "min": min(run[name] for run in runs),
            "max": max(run[name] for run in runs),
        }
        for name in NAMES
    }
    for name, values in summary.items():
        print(f"{name:24}{values['mean']:10.3f}  ({values['min']:.3f} to {values['max']:.3f})")
    result = {
        "command": "python benchmarks/demo.py --seeds " + " ".join(map(str, args.seeds)),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "summary": summary,
        "runs": runs,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "runs"}))


if __name__ == "__main__":
    main()
