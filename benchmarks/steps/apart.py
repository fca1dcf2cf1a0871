"""Other programs, each in a process of its own with this one's number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOM = Path(__file__).parents[1]
"""Where ``steps`` can be imported from."""


def run(words: list[str], folder: str) -> str:
    """What a Python program printed and logged.

    Args:
        words: its command line, without Python.
        folder: in which it runs.
    """
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=surroundings(), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stderr + done.stdout


def surroundings() -> dict[str, str]:
    """The environment of such a process."""
    # Absolute, as the program may run elsewhere.
    paths = [str(ROOM.resolve())]
    if given := os.environ.get("PYTHONPATH"):
        paths += [str(Path(path).resolve()) for path in given.split(os.pathsep)]
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONPATH": os.pathsep.join(paths),
    }
