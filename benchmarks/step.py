"""Thresher's training step beside plain PyTorch's and timm's: the same network on the same images.

    python benchmarks/step.py [--cases small photo] [--rounds 7] [--out step.json]

Block by block in turn, in one process: Thresher's own loop with its loader, ledger and meter; a
bare step (the same network, precision, views, SGD and average, and nothing else); PyTorch as its
tutorials have it, in float32 and with bfloat16 and channels_last; the step of timm's train.py.
The others have all images decoded in memory. small: ``small_cnn`` on examples/fashion-noisy,
28 pixels, batch 128. photo: ResNet-50 on made photographs, 224 pixels, batch 16, of which Thresher
crops anew each time and the others take the middle.

Prints times and ratios; above 1 Thresher is quicker, ``mct_over_ce`` and
``overhead_over_bare_step`` are its own costs. The last line is JSON. Mutual calibration is timed
over a whole short run, with all rounds, teachers and judging. Every step has the batch's full
shape; in Thresher's some places may repeat others, where the images do not come out even.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from steps.others import Block, Images, bare, plain, timm_loop

from thresher.bench.images import MADE_SIZE
from thresher.bench.loop import time_loop
from thresher.bench.work import Work, on_images
from thresher.config import TrainConfig
from thresher.dist.runtime import Runtime
from thresher.methods import all_methods
from thresher.train.resolve import best_precision

FASHION = Path(__file__).parents[1] / "examples" / "fashion-noisy"
SKIP = 3
"""Steps of Thresher's before time is counted."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        steps: of one block.
        mct_epochs: of mutual calibration's short run; 0: none.
    """

    name: str
    data: str
    model: str
    batch: int
    steps: int
    mct_epochs: int


def measure(case: Case, rounds: int, runtime: Runtime, precision: Any) -> dict[str, list[float]]:
    """Seconds per step of each side, round by round."""
    ours = work_of(case, "ce", runtime, precision)
    works = [ours]
    images, bf16 = decoded(ours), precision == "bf16"
    sides: dict[str, Block] = {
        "Thresher": lambda steps: seconds_per_step(ours, steps),
        "bare step": bare(images, bf16),
        "PyTorch, fp32": plain(images, bf16=False),
        "PyTorch, bf16": plain(images, bf16=True),
        "timm, bf16": timm_loop(images),
    }
    if case.mct_epochs:
        mct = work_of(case, "mct", runtime, precision)
        works.append(mct)
        whole = mct.feed.order.steps * case.mct_epochs - SKIP
        sides["Thresher, mct"] = lambda _: seconds_per_step(mct, whole)
    found: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side(min(case.steps, 5))  # decodes, allocates, chooses kernels
    for turn in range(rounds):
        names = list(sides)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(sides[name](case.steps))
    for work in works:
        work.feed.close()
    return found


def work_of(case: Case, method: str, runtime: Runtime, precision: Any) -> Work:
    kind = all_methods()[method]
    options = kind.Options(rounds=3) if method == "mct" else kind.Options()
    epochs = case.mct_epochs if method == "mct" else 10_000
    config = TrainConfig(
        data=case.data, method=method, model=case.model, batch_size=case.batch, epochs=epochs,
        precision=precision, lr=0.01, cache="host",
    )  # fmt: skip
    return on_images(config, options, runtime)


def seconds_per_step(work: Work, steps: int) -> float:
    return time_loop(work, steps, SKIP, by_part=False).seconds / steps


def decoded(work: Work) -> Images:
    """All images of a loader, as it would serve them."""
    loader, config = work.feed.loader, work.config
    plan = np.arange(len(loader)).reshape(1, -1)
    whole = next(iter(loader.batches(0, plan)))
    return Images(
        canvases=whole.canvas,
        labels=torch.from_numpy(whole.labels),
        num_classes=work.num_classes,
        batch=config.batch_size,
        model=config.model,
        lr=config.lr,
        augmentation=work.feed.augmentation,
    )


def ratios(found: dict[str, list[float]]) -> dict[str, float | None]:
    """Medians over the rounds of the ratios within each."""

    def ratio(one: str, other: str) -> float | None:
        if one not in found:
            return None
        pairs = zip(found[one], found[other], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 4)

    overhead = ratio("Thresher", "bare step")
    assert overhead is not None
    return {
        "vs_plain": ratio("PyTorch, fp32", "Thresher"),
        "vs_plain_bf16": ratio("PyTorch, bf16", "Thresher"),
        "vs_timm": ratio("timm, bf16", "Thresher"),
        "mct_over_ce": ratio("Thresher, mct", "Thresher"),
        "overhead_over_bare_step": round(overhead - 1, 4),
    }


def show(case: Case, found: dict[str, list[float]]) -> None:
    table = Table("side", "ms per step", "from", "to", "images/s", box=None)
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        shown = (f"{1e3 * value:.1f}" for value in (middle, min(seconds), max(seconds)))
        table.add_row(name, *shown, f"{case.batch / middle:,.0f}")
    Console().print(f"{case.name}: {case.model}, batch {case.batch}", table, highlight=False)


def photographs(folder: Path, count: int) -> str:
    """Made photographs in two classes."""
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        path = folder / f"class-{index % 2}" / f"{index}.jpg"
        path.parent.mkdir(exist_ok=True)
        coarse.resize(MADE_SIZE[::-1], Image.Resampling.BICUBIC).save(path, quality=92)
    return str(folder)


def cases(names: list[str], quick: bool, folder: Path) -> list[Case]:
    data = FASHION / ("test.parquet" if quick else "train.parquet")
    small = Case("small", str(data), "small_cnn", 128, *((6, 3) if quick else (48, 6)))
    found = [small] if "small" in names else []
    if "photo" in names:
        made = photographs(folder, 64)
        found.append(Case("photo", made, "resnet50", 16, 4, mct_epochs=0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", nargs="+", choices=["small", "photo"], default=["small", "photo"]
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--quick", action="store_true", help="small steps, only to see that it runs"
    )
    parser.add_argument("--out", type=Path, help="every round's figures, as JSON")
    given = parser.parse_args()
    names = ["small"] if given.quick else given.cases
    rounds = 2 if given.quick else given.rounds
    precision = best_precision("cpu")
    runtime = Runtime("cpu", precision, alone=True)
    result: dict[str, Any] = {
        "precision": precision, "threads": torch.get_num_threads(), "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(names, given.quick, Path(folder)):
            found = measure(case, rounds, runtime, precision)
            show(case, found)
            result[case.name] = ratios(found)
            if given.out is not None:
                record = {"case": dataclasses.asdict(case), "seconds_per_step": found}
                with given.out.open("a") as lines:
                    lines.write(json.dumps(record) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
