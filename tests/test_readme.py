"""The README is true: its commands run, its figures are those that were measured."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from thresher.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
FIGURES = json.loads((ROOT / "docs" / "figures" / "demo.json").read_text())


def test_every_command_is_in_the_readme_and_no_other() -> None:
    assert set(re.findall(r"`thresher (\w+)", README)) == set(COMMANDS)


def test_set_up_commands_are_targets() -> None:
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_ci_runs_what_the_readme_says() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_every_file_that_the_readme_names_is_there() -> None:
    for name in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / name).exists(), name
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"\]\(([\w./-]+)\)", page.read_text()):
            assert (page.parent / name).exists(), f"{page.name}: {name}"


@pytest.mark.parametrize("name", ["ce_accuracy", "mct_accuracy", "clean_accuracy"])
def test_demo_figures_are_the_measured_ones(name: str) -> None:
    mean = sum(run[name] for run in FIGURES["runs"]) / len(FIGURES["runs"])
    assert f"{mean:.1%}".replace("%", " %") in README


def test_figures_name_their_command() -> None:
    assert FIGURES["command"] in README
    assert len(FIGURES["runs"]) >= 3
