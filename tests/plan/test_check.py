"""``benchmarks/plan_check.py`` as it is called."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
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


def test_own_runs_are_compared_and_drawn(profile: Profile, tmp_path: Path) -> None:
    profile = dataclasses.replace(profile, pace_seconds=0.1)
    profile.save(tmp_path / "profile.json")
    (tmp_path / "wire.yaml").write_text("levels: [{name: all, latency: 0, bandwidth: 1e12}]")
    records = [
        {
            "processes": processes, "placement": "together", "mode": "weak", "link": "wire",
            "images_per_second": 25.0 * processes, "batch_per_process": 10,
            "exposed_seconds": 0.0, "bytes_per_step": 4e8, "method": "mct",
        }
        for processes in (1, 2)
    ]  # fmt: skip
    # With one network on each, both processes serve all twenty images.
    records.append({**records[1], "placement": "apart", "batch_per_process": 20})
    # The machine was half as fast as when it was profiled.
    records.append({**records[0], "images_per_second": 12.5, "pace_seconds": 0.2})
    (tmp_path / "scaling.json").write_text(json.dumps(records))
    found = check(
        "--measured", tmp_path / "scaling.json", "--profile", tmp_path / "profile.json",
        "--link", tmp_path / "wire.yaml", "--cores", 2, "--out", tmp_path / "out",
    )  # fmt: skip
    rows = found["measured"]
    assert isinstance(rows, list)
    # A step of 0.37 s for 10 images.
    assert rows[0]["predicted_images_per_second"] == 27.03
    assert rows[0]["error"] == 0.0811
    # Both share out 20 images per step; apart saves half of the update's 0.05 s, and its twice as
    # many images take 0.01 s more of augmentation.
    together, apart = (20 / row["predicted_images_per_second"] for row in rows[1:3])
    assert together - apart == pytest.approx(0.025 - 0.01, abs=1e-3)
    assert rows[3]["predicted_images_per_second"] == 13.51
    assert (rows[3]["error"], rows[3]["error_as_profiled"]) == (0.0811, 1.1622)
    kept = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert kept["worst_measured_error"] >= 0.0811
    svg = (tmp_path / "out" / "scaling.svg").read_text()
    ElementTree.fromstring(svg)
    assert "wire, mct, together, weak, measured" in svg
