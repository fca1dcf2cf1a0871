"""What the documents tell users to type, typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, write_classes


def thresher(*words: str, cwd: Path) -> str:
    command = [sys.executable, "-W", "error", "-m", "thresher", *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_runs_and_writes_its_summary(fashion: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-W",
        "error",
        fashion / "demo.py",
        "--epochs",
        "1",
        "--out",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "summary.json").read_text())
    assert set(figures) >= {
        "ce_accuracy", "mct_accuracy", "clean_accuracy", "recovered_gap", "seconds",
        "label_error_precision", "label_error_recall", "label_error_auroc",
    }  # fmt: skip
    assert (tmp_path / "report.html").stat().st_size > 50_000
    assert "Mutual calibration wins back" in done.stdout
    for run in (tmp_path / "ce", tmp_path / "mct"):
        assert "train-true" not in (run / "config.yaml").read_text()


def test_train_as_in_the_readme(tmp_path: Path) -> None:
    write_classes(tmp_path / "photos")
    write_classes(tmp_path / "checked", 3, seed=1)
    line = "train photos/ --val checked/ --out runs/first"
    assert f"thresher {line}" in (ROOT / "README.md").read_text()
    out = thresher(*line.split(), "--epochs", "2", cwd=tmp_path)
    assert "against validation labels" in out
    assert (tmp_path / "runs" / "first" / "report.html").exists()


def test_from_the_crawl_to_a_trained_network_as_in_docs_data(tmp_path: Path) -> None:
    for word in ("dark", "light"):
        folder = write_classes(tmp_path / "made" / word) / word
        for path in folder.iterdir():
            target = tmp_path / "crawl" / f"a {word} picture {path.stem}.png"
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
    write_classes(tmp_path / "test", 3, seed=1)
    (tmp_path / "classes.yaml").write_text("dark: [dark, black]\nlight: [light, white]\n")
    text = (ROOT / "docs" / "data.md").read_text()
    chain = [
        line.removeprefix("thresher ") for line in text.splitlines() if line.startswith("thresher ")
    ]
    assert [line.split()[0] for line in chain] == ["label", "scan", "pack", "train"]
    for line in chain:
        more = ["--epochs", "2", "--out", "run"] if line.startswith("train") else []
        thresher(*line.split(), *more, cwd=tmp_path)
    assert (tmp_path / "scans" / "crawl" / "scan.html").exists()
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_every_benchmark_explains_itself(script: Path) -> None:
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
