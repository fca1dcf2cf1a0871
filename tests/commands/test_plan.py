"""``thresher plan`` as its user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from thresher.cli import main


def test_table_sentence_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.json"
    words = "--profile swcaffe-alexnet --link sunway-taihulight --nodes 1..1024 --images 1.28M"
    assert main(["plan", *words.split(), "--epochs", "90", "--json", str(out)]) == 0
    text = capsys.readouterr().out
    assert "bottleneck" in text
    assert "1,024" in text
    assert "100.0%" in text
    assert "the networks' own work takes most of a step" in " ".join(text.split())
    # A table that wraps at 80 columns cannot be read.
    assert max(map(len, text.splitlines())) <= 80
    figures = json.loads(out.read_text())
    assert [one["nodes"] for one in figures["predictions"]] == [2**p for p in range(11)]
    assert figures["predictions"][0]["efficiency"] == pytest.approx(1)
    assert figures["job"]["images"] == 1_280_000


def test_strong_scaling_and_yaml_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = tmp_path / "plan.yaml"
    options.write_text("profile: swcaffe-alexnet\nnodes: 1,64\nmemory: 100M\n")
    assert main(["plan", "--config", str(options), "--batch-size", "4096"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "4,096 images per step" in text
    assert "do not fit into 100 MB" in text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "--profile is missing"),
        (["--profile", "swcaffe-alex"], "Did you mean swcaffe-alexnet"),
        (["--profile", "none.json"], "There is no profile none.json"),
        (["--profile", "swcaffe-alexnet", "--nodes", "8..1"], "--nodes 8..1 is empty"),
        (["--profile", "swcaffe-alexnet", "--images", "many"], "--images takes a number"),
        (["--profile", "swcaffe-alexnet", "--epochs", "0"], "epochs is 0"),
        (["--profile", "swcaffe-alexnet", "--link", "token-ring"], "Unknown link 'token-ring'"),
        (["--profile", "swcaffe-alexnet", "--placement", "apart"], "a method of two networks"),
        (
            ["--profile", "swcaffe-alexnet", "--batch-size", "8", "--batch-per-process", "1"],
            "not both",
        ),
        (["--profile", "swcaffe-alexnet", "--node", "8"], "Did you mean --nodes"),
    ],
)
def test_bad_input(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    assert reason in capsys.readouterr().err


def test_needs_no_torch() -> None:
    code = (
        "from thresher.cli import main; import sys\n"
        "assert main(['plan', '--profile', 'swcaffe-resnet50']) == 0\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
