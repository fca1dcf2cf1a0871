"""``benchmarks/scaling.py`` as it is called, on the quickest of its cases."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCALING = Path(__file__).resolve().parents[2] / "benchmarks" / "scaling.py"


def test_a_run_of_two_processes_leaves_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "records.json"
    words = ["--only", "2 x 64 small_cnn", "--rounds", "1", "--out", str(out)]
    done = subprocess.run([sys.executable, str(SCALING), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(out.read_text())
    step = found["seconds_per_step"]
    assert 0 < found["exposed_seconds"] < step
    assert 0 <= found["added_seconds"] < step
    assert found["alone_seconds"] > 0
    # In a ring of two each sends 242,474 gradients once, in float32, and some headers and sums.
    assert 969_896 < found["bytes_per_step"] < 1_100_000


def test_words_that_fit_no_case_are_refused() -> None:
    command = [sys.executable, str(SCALING), "--only", "3 x 7"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "2 x 64 small_cnn ce together, strong, lo" in done.stderr
