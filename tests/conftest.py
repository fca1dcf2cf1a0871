"""Shared by all tests: the demo's images, small real data sets, one thread per process."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the machine's cores are shared by real processes

ROOT = Path(__file__).resolve().parents[1]
FASHION = ROOT / "examples" / "fashion-noisy"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def fashion() -> Path:
    """Folder of the demo's Parquet files."""
    return FASHION


def write_classes(root: Path, per_class: int = 12, size: int = 16, seed: int = 0) -> Path:
    """A folder tree of two classes that differ by brightness, as PNG files."""
    rng = np.random.default_rng(seed)
    for label, (name, level) in enumerate((("dark", 60), ("light", 190))):
        folder = root / name
        folder.mkdir(parents=True)
        for index in range(per_class):
            pixels = rng.integers(level - 40, level + 40, size=(size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{label}-{index:03d}.png")
    return root


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """Twelve dark and twelve light images in two class folders."""
    return write_classes(tmp_path / "data")


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()
