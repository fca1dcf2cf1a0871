"""``benchmarks/plan_check.py`` as it is called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from thresher.plan.profile import Profile

ROOT = Path(__file__).resolve().parents[2]


def check(*words: object) -> dict[str, object]:
    command = [sys.executable, str(ROOT / "benchmarks" / "plan_check.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    last: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return last


def test_document_quotes_what_the_script_finds() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text()
    found = check()
    assert found["measured"] is None
    for row in found["swcaffe"]:  # type: ignore[attr-defined]
        assert f"{row['predicted']:,.1f}× | **{row['error']:+.1%}**".replace("%", " %") in text
        for value in row["sensitivity"].values():
            error = f"{value / row['published'] - 1:+.1%}".replace("%", " %").replace("-", "−")
            assert f"{value:,.1f}× ({error})" in text


def test_own_runs_are_compared_set_by_set_and_drawn(profile: Profile, tmp_path: Path) -> None:
    wire = "levels: [{name: all, latency: 0, bandwidth: 1e12}]"
    runs: list[dict[str, Any]] = [
        {
            "processes": processes, "placement": "together", "mode": "weak", "link": "lo",
            "images_per_second": 25.0 * processes, "batch_per_process": 10, "model": "round",
            "exposed_seconds": 0.0, "bytes_per_step": 4e8, "method": "mct", "spread": [0.3, 0.5],
            "alone_seconds": 0.37,
        }
        for processes in (1, 2)
    ]  # fmt: skip
    # With one network on each, both processes serve all twenty images.
    runs.append({**runs[1], "placement": "apart", "batch_per_process": 20, "alone_seconds": 0.355})
    # In the second set the machine was half as fast, in the third a quarter slower.
    for number, speed in enumerate((1.0, 0.5, 0.75), 1):
        measured: list[dict[str, object]] = []
        folder = tmp_path / "sets" / f"set-{number}"
        folder.mkdir(parents=True)
        profile.save(folder / "round-mct.profile.json")
        for link in ("here", "hosts"):
            (folder / f"{link}.link.yaml").write_text(wire)
        for run in runs:
            mine = {
                "images_per_second": run["images_per_second"] * speed,
                "alone_seconds": run["alone_seconds"] / speed,
            }
            measured.append({**run, **mine, "spread": [0.3 / speed, 0.5]})
        (folder / "measured.json").write_text(json.dumps(measured))
    found = check("--sets", tmp_path / "sets", "--cores", 2, "--out", tmp_path / "out")
    rows = found["measured"]
    assert isinstance(rows, list)
    # A step of 0.37 s for 10 images.
    assert rows[0]["predicted_images_per_second"] == 27.03
    assert (rows[0]["images_per_second"], rows[0]["spread"]) == (18.75, [0.3, 0.5])
    assert (rows[0]["error"], rows[0]["error_spread"]) == (0.4414, [0.0811, 1.1622])
    # Several processes are compared at the speed of one of them in the same minutes.
    assert rows[1]["error"] == pytest.approx(0.0811, abs=0.001)
    assert rows[1]["error_as_profiled"] == pytest.approx(0.4414, abs=0.001)
    # Both share out 20 images per step; apart saves half of the update's 0.05 s, and its twice as
    # many images take 0.01 s more of augmentation; all a third longer in the set in the middle.
    together, apart = (20 / row["predicted_images_per_second"] for row in rows[1:3])
    assert together - apart == pytest.approx((0.025 - 0.01) / 0.75, abs=1e-3)
    kept = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert kept["worst_measured_error"] == 0.4414
    svg = (tmp_path / "out" / "scaling.svg").read_text()
    ElementTree.fromstring(svg)
    assert "round, mct, together, lo, measured" in svg


def test_a_folder_without_sets_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "plan_check.py"), "--sets", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "has no set-1" in done.stderr
