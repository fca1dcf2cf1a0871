"""Profiles and runs of the same minutes, by which ``plan_check.py`` judges ``thresher plan``.

    python benchmarks/plan_sets.py --out sets [--sets 1] [--rounds 5]

A machine that others use, too, is faster in one hour than in the next. So each set measures the
link between two processes and between two hosts (``thresher bench link``), then for each network
and method a profile of one process (``thresher bench profile``) and right after it the runs of
``scaling.py`` that it is to predict. A set is a folder of ``measured.json``, two links
(``here.link.yaml``, ``hosts.link.yaml``) and a ``NETWORK-METHOD.profile.json`` each. Takes some
twenty minutes a set on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import scaling
from cluster import hosts, launch


def thresher(*words: object) -> None:
    command = [sys.executable, "-m", "thresher", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=scaling.ENVIRONMENT)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")


def measure_set(folder: Path, rounds: int) -> None:
    link = ["bench", "link", "--accelerator", "cpu", "--out"]
    thresher(*link, folder / "here.link.yaml", "--processes", 2)
    with hosts.network(2) as net:
        words = ["-m", "thresher", *link, str(folder / "hosts.link.yaml")]
        ends = launch.torchrun(net, words, env=scaling.ENVIRONMENT)
    if any(end.code for end in ends):
        raise SystemExit("".join(end.stderr for end in ends))
    cases = [*scaling.cases_here(), *scaling.cases_between_hosts()]
    records = []
    for (model, method), group in groupby(cases, key=lambda case: (case.model, case.method)):
        mine = list(group)
        thresher(
            "bench", "profile", "--model", model, "--method", method, "--image-size", 32,
            "--classes", 10, "--threads", 1, "--precision", "bf16",
            "--batch-size", max(case.batch for case in mine),
            "--out", folder / f"{model}-{method}.profile.json",
        )  # fmt: skip
        for case in mine:
            records.append(scaling.run(case, rounds))
            print(f"{folder.name}: {case}: {records[-1]['images_per_second']:,.0f} images/s")
    (folder / "measured.json").write_text(json.dumps(records, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a folder for the sets")
    parser.add_argument("--sets", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each side in each run")
    given = parser.parse_args()
    reason = hosts.why_not()
    if reason is not None:
        raise SystemExit(f"Some runs are between hosts, and this {reason}.")
    for number in range(1, given.sets + 1):
        folder = given.out.resolve() / f"set-{number}"
        folder.mkdir(parents=True)
        measure_set(folder, given.rounds)


if __name__ == "__main__":
    main()
