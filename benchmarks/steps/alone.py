"""Sides in a process of their own, whose C library nobody has set up.

Thresher keeps the memory that its steps on a CPU free (``dist/memory.py``), which holds for a whole
process: what others do there would profit. This one is started once and makes blocks on demand.

    python -m steps.alone IMAGES BF16

takes lines of JSON, [side, steps], and answers each with [wall, cpu], seconds per step.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from steps.apart import surroundings
from steps.figures import BF16, COMPILED, FP32, TIMM_PARTS
from steps.others import Images, compiled, plain, timm_parts
from steps.spent import Block, Spent


def sides_on(device: torch.device) -> tuple[str, ...]:
    """Those that are timed there; on a CPU compiling takes half a minute and gains nothing."""
    return (FP32, BF16, TIMM_PARTS, *((COMPILED,) if device.type == "cuda" else ()))


class Alone:
    """The process.

    Args:
        images: that all of its sides train on.
        bf16: precision of timm's parts.
        folder: for the images, on their way there.
    """

    def __init__(self, images: Images, bf16: bool, folder: Path) -> None:
        file = folder / "images.pt"
        torch.save(images, file)
        self._errors = (folder / "errors").open("w+")
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "steps.alone", str(file), str(int(bf16))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            env=surroundings(), text=True,
        )  # fmt: skip

    def block(self, side: str) -> Block:
        def block(steps: int) -> Spent:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            try:
                print(json.dumps([side, steps]), file=self._process.stdin, flush=True)
                answer = self._process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if not answer:
                self._errors.seek(0)
                raise SystemExit(f"The process of '{side}' ended:\n{self._errors.read()[-2000:]}")
            return Spent(*json.loads(answer))

        return block

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._errors.close()


def main(images_file: str, bf16: str) -> None:
    """Serve until nobody asks any more."""
    images: Any = torch.load(images_file, weights_only=False)
    blocks: dict[str, Block] = {
        FP32: plain(images, bf16=False),
        BF16: plain(images, bf16=True),
        TIMM_PARTS: timm_parts(images, bf16 == "1"),
    }
    if COMPILED in sides_on(images.canvases.device):
        blocks[COMPILED] = compiled(images)
    for line in sys.stdin:
        side, steps = json.loads(line)
        spent = blocks[side](steps)
        print(json.dumps([spent.wall, spent.cpu]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
