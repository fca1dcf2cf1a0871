"""The benchmark runs and says what the README quotes; the figures of so few images mean nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "loader.py"


def test_the_benchmark_ends_in_a_line_of_figures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(3):
        pixels = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.jpg")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--photos", tmp_path, "--rounds", "1", "--images", "700"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Thresher, kept in memory" in done.stdout
    figures = json.loads(done.stdout.splitlines()[-1])
    for name in ("ratio_files", "ratio_packed", "ratio_cached", "decode_limit_share"):
        assert figures[name] > 0
        assert len(figures["spread"][name]) == 2
    assert (figures["n"], figures["images"]) == (1, 700)
