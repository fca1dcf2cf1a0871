"""Real runs in real processes, and what they left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests import forks
from tests.forks import free_port

__all__ = [
    "ENVIRONMENT", "free_port", "furthest", "losses", "rank", "sentences", "thresher", "trained",
    "weights", "without_devices",
]  # fmt: skip

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def thresher(*words: object, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    """Run ``thresher WORDS`` to its end; with ``--devices`` in a fresh process that starts more."""
    if "--devices" not in words:
        return forks.thresher(*words)
    line = [sys.executable, "-m", "thresher", *map(str, words)]
    return subprocess.run(
        line, capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT, check=False
    )


def trained(data: Path, out: Path, *words: object) -> Path:
    """Train and see that it went well; ``--devices`` says in how many ranks."""
    ranks, given = without_devices(words)
    return forks.trained(ranks, data, *given, out=out)


def without_devices(words: Sequence[object]) -> tuple[int, list[object]]:
    """The number of ranks that ``--devices`` says, and all other words."""
    given = list(words)
    if "--devices" not in given:
        return 1, given
    at = given.index("--devices")
    return int(str(given[at + 1])), given[:at] + given[at + 2 :]


def rank(
    number: int, size: int, port: int, words: Sequence[object], code: str = ""
) -> forks.Forked:
    """One rank as torchrun would start it; ``code`` runs before Thresher."""
    return forks.start(forks.Place(number, size, port), words, code)


def sentences(processes: Sequence[forks.Forked]) -> tuple[list[int], list[str]]:
    """Exit codes, and what Thresher itself said."""
    errors = [process.communicate(timeout=100)[1] for process in processes]
    said = [line for text in errors for line in text.splitlines() if line.startswith("thresher: ")]
    assert not any("Traceback" in text for text in errors), errors
    return [process.returncode or 0 for process in processes], said


def weights(out: Path) -> dict[str, torch.Tensor]:
    """All weights of a run's networks."""
    return {
        f"{path.name}/{name}": value
        for path in sorted(out.glob("model*.safetensors"))
        for name, value in load_file(path).items()
    }


def losses(out: Path) -> list[list[float]]:
    """Per epoch, each network's loss."""
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def furthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference between two runs' weights."""
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
