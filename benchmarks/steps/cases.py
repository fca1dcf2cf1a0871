"""What ``benchmarks/step.py`` compares on: a network and a folder of images, one folder a class.

Every side gets the same folder, as timm's ``train.py`` and noisypy read nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from thresher.bench.images import MADE_SIZE

FASHION = Path(__file__).parents[2] / "examples" / "fashion-noisy"
NAMES = ("small", "preact", "photo")
DISTINCT = 64
"""Made photographs; further ones are links to them."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        data: the folder.
        steps: of one block.
        mct: whether mutual calibration is timed too.
    """

    name: str
    data: str
    model: str
    pixels: int
    batch: int
    steps: int
    mct: bool


def make(name: str, quick: bool, on_gpu: bool, folder: Path) -> Case:
    """Write a case's images into the folder.

    Args:
        name: one of ``NAMES``.
        quick: few images and steps.
        on_gpu: so many images, steps and images of a batch as keep a GPU busy.
        folder: empty, or not there yet.
    """
    if name == "small":
        fashion(folder, FASHION / ("test.parquet" if quick else "train.parquet"))
        steps = 8 if quick else 200 if on_gpu else 48
        return Case(name, str(folder), "small_cnn", 28, 128, steps, mct=True)
    if name == "preact":
        made(folder, 12_800 if on_gpu else 1024, (32, 32), "png", 512)
        return Case(name, str(folder), "preact_resnet18", 32, 256, 200 if on_gpu else 3, on_gpu)
    made(folder, 4096 if on_gpu else DISTINCT, MADE_SIZE, "jpg", DISTINCT)
    batch, steps = (256, 16) if on_gpu else (16, 4)
    return Case(name, str(folder), "resnet50", 224, batch, steps, mct=False)


def fashion(folder: Path, table: Path) -> None:
    """The images of the example, by their given labels."""
    rows = pq.read_table(table)
    files, labels = rows["image"].to_pylist(), rows["label"].to_pylist()
    for index, (file, label) in enumerate(zip(files, labels, strict=True)):
        path = folder / str(label) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file["bytes"])


def made(folder: Path, count: int, size: tuple[int, int], kind: str, distinct: int) -> None:
    """Smooth made images in ten classes."""
    rng = np.random.default_rng(0)
    for index in range(count):
        path = folder / str(index % 10) / f"{index}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if index >= distinct:
            first = index % distinct
            path.hardlink_to(folder / str(first % 10) / f"{first}.{kind}")
            continue
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(path, quality=92)
