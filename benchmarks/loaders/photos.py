"""The photographs of the loader benchmark: repeated, packed, or made."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from thresher.pack.run import pack
from thresher.pack.settings import PackSettings
from thresher.sources.detect import open_source

_CLASSES = 10
_NAMES = {".jpg", ".jpeg"}


def spread(source: Path, tree: Path, num: int) -> list[str]:
    """Link ``num`` photographs into class folders (copy across file systems)."""
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in _NAMES)
    if not found:
        raise SystemExit(f"{source} holds no JPEG files.")
    files = []
    for index in range(num):
        photo = found[index % len(found)]
        target = tree / f"class{index % _CLASSES}" / f"{index:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(photo, target)
        except OSError:
            target.write_bytes(photo.read_bytes())
        files.append(str(target))
    return files


def pack_tree(tree: Path, out: Path) -> None:
    """What ``thresher pack`` makes of the tree by default: short side 320, quality 90.

    In small tars, since other loaders give each worker whole tars.
    """
    pack(open_source(str(tree)), out, PackSettings(shard_mb=4), workers=2)


def make(folder: Path, num: int) -> Path:
    """JPEGs of 500 x 375 with detail at several scales, about 100 KB each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(num):
        pixels = np.zeros((375, 500, 3), dtype=np.float32)
        for radius, strength in ((40, 30), (8, 6), (1, 1)):
            noise = Image.fromarray(rng.integers(0, 255, (375, 500, 3), dtype=np.uint8))
            blurred = np.asarray(noise.filter(ImageFilter.GaussianBlur(radius)), np.float32)
            pixels += (blurred - blurred.mean()) * strength
        image = Image.fromarray(np.clip(pixels * 0.5 + 128, 0, 255).astype(np.uint8))
        image.save(folder / f"{index:04d}.jpg", quality=92)
    return folder
