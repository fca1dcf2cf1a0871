"""The comparison of steps runs, and Thresher's loop costs little beside the network.

Ratios, not times, and with room: tests run beside other work.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "step.py"


def test_the_loop_is_about_as_quick_as_a_bare_step(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--out", out], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    small = found["small"]
    assert small["overhead_over_bare_step"] < 1.5
    assert small["vs_timm"] > 0.3
    # Two networks with two views each and their teachers, after networks that run at once.
    assert 1.2 < small["mct_over_ce"] < 20
    if found["precision"] == "bf16":
        assert small["vs_plain"] > 0.5
    record = json.loads(out.read_text())
    assert {len(seconds) for seconds in record["seconds_per_step"].values()} == {2}
