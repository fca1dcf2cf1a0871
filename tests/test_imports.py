"""The architecture, enforced: which room may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "thresher"
BASE = {"types", "config", "errors", "files", "__init__"}
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "ranks": set(),
    "config": set(),
    "files": {"errors"},
    "config_file": {"errors"},
    "options": {"config_file", "errors"},
    "losses": {"types"},
    "presets": {"config"},
    "sources": BASE,
    "loader": BASE | {"sources"},
    "models": BASE,
    "methods": BASE | {"losses"},
    "ledger": BASE | {"sources"},
    "dist": BASE,
    "export": BASE | {"models"},
    "audit": BASE | {"sources"},
    "scan": BASE | {"sources", "audit"},
    "label": BASE | {"sources"},
    "pack": BASE | {"sources", "loader"},
    "plan": BASE,
    "bench": BASE | {"loader", "models", "methods", "ledger", "train", "dist", "plan"},
    "train": BASE | {"sources", "loader", "models", "methods", "ledger", "dist", "export"},
}
ANYTHING = {"commands", "cli", "__main__", "__init__"}


def room_of(path: Path) -> str:
    relative = path.relative_to(SRC)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "thresher":
                names = [f"thresher.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("thresher.")}
    return rooms


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: str(p.relative_to(SRC)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    if room in ANYTHING:
        return
    assert room in ALLOWED, f"say in this test what the new room '{room}' may import"
    forbidden = imported_rooms(path) - ALLOWED[room] - {room} - {"__version__"}
    assert not forbidden, f"{path} must not import {sorted(forbidden)}"


def test_only_dist_knows_fabric_and_torch_distributed() -> None:
    for path in SRC.rglob("*.py"):
        if room_of(path) != "dist":
            text = path.read_text()
            assert "lightning_fabric" not in text, path
            assert "torch.distributed" not in text, path


TRAINERS = ("timm", "torchvision", "lightning_fabric", "thresher.train.run")


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import thresher", ("torch",)),
        ("import thresher.audit.run, thresher.sources.detect, thresher.config", ("torch",)),
        ("from thresher.cli import main; main(['--help'])", ("torch",)),
        ("from thresher.cli import main; main(['audit', '/no/such/run'])", ("torch",)),
        ("import thresher.commands.train_run  # may start processes, which train", TRAINERS),
    ],
)
def test_light_doors_do_not_import_what_is_heavy(code: str, heavy: tuple[str, ...]) -> None:
    check = f"{code}\nimport sys\nfound = set({heavy}) & set(sys.modules)\nassert not found, found"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
