"""Real runs in real processes, and what they left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def thresher(*words: object, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    """Run ``thresher WORDS`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "thresher", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=ENVIRONMENT,
        check=False,
    )


def trained(data: Path, out: Path, *words: object) -> Path:
    """Train and see that it went well."""
    done = thresher("train", data, "--out", out, *words)
    assert done.returncode == 0, done.stderr + done.stdout
    return out


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
