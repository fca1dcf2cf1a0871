"""Real runs in real processes, and what they left."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
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


def free_port() -> int:
    """One that nobody listens at, for now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def rank(
    number: int, size: int, port: int, words: Sequence[object], code: str = ""
) -> subprocess.Popen[str]:
    """One rank as torchrun would start it; ``code`` runs before Thresher."""
    environment = {
        **ENVIRONMENT, "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size), "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    main = f"{code}\nimport sys\nfrom thresher.cli import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", main, *map(str, words)],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def sentences(processes: Sequence[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    """Exit codes, and what Thresher itself said."""
    errors = [process.communicate(timeout=100)[1] for process in processes]
    said = [line for text in errors for line in text.splitlines() if line.startswith("thresher: ")]
    assert not any("Traceback" in text for text in errors), errors
    return [process.returncode for process in processes], said


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
