"""The comparison of steps runs, and a slower loop or method is noticed.

Ratios, not times, and of the processor's time with one thread: other work on the machine takes
that from both sides of a ratio alike. Medians over rounds that lie beside each other do the rest.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "step.py"


def run(*words: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(600)
def test_the_loop_costs_little_beside_a_bare_step() -> None:
    """A second look if the first is bad: other work sways a look by 2 %, a regression stays."""

    # 2 % to 3 % where it was last looked at.
    def overhead() -> float:
        found = run("--guard", "--rounds", 15)
        return float(found["small"]["cpu"]["overhead_over_bare_step"])

    assert overhead() < 0.055 or overhead() < 0.055


def test_every_side_runs_and_leaves_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "step.jsonl"
    found = run("--quick", "--out", out)
    small = found["small"]
    assert small["vs_timm"] > 0
    assert small["vs_timm_is"] in ("timm's train.py", "a step from timm's parts")
    if found["precision"] == "bf16":
        assert small["cpu"]["vs_plain"] > 1.5
    # Two networks with two views each and their teachers.
    assert 2 < small["cpu"]["mct_over_ce"] < 6.5
    assert 1.5 < small["cpu"]["mct_views_1_over_ce"] < small["cpu"]["mct_over_ce"]
    around, *lines = map(json.loads, out.read_text().splitlines())
    assert around["threads"] == 1
    sides = {line["side"] for line in lines}
    assert {"Thresher", "Thresher, mct", "bare step", "PyTorch, fp32"} < sides
    assert len(lines) == 2 * len(sides)
