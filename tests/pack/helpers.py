"""Real images of many kinds, and what a packed folder holds."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def photo(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A picture with edges and colours, in RGB."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(image: Image.Image, orientation: int) -> bytes:
    """A JPEG whose EXIF data say how to turn it, with metadata that is not for others."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010E] = "secret place"
    return encoded(image, exif=exif)


def write_photos(
    root: Path, per_class: int = 20, size: tuple[int, int] = (96, 64), distinct: int = 20
) -> Path:
    """A tree of two classes; pictures repeat after ``distinct`` of each."""
    for label, name in enumerate(("cat", "dög 狗")):
        folder = root / name
        folder.mkdir(parents=True)
        pictures = [
            encoded(photo(label * 1000 + number, size), quality=95) for number in range(distinct)
        ]
        for number in range(per_class):
            (folder / f"{number} ü.jpg").write_bytes(pictures[number % distinct])
    return root


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that is not hidden."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
    }


def names(folder: Path) -> list[str]:
    """All that lies directly in a folder."""
    return sorted(path.name for path in folder.iterdir())
