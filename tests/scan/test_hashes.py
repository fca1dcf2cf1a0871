"""Perceptual hashes: the same bits as ImageHash's."""

from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image

from thresher.scan.hashes import ICON_SIDE, dhash, icon_of, phash

from .conftest import picture


def icons() -> dict[str, list[Image.Image]]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (200, ICON_SIDE, ICON_SIDE), dtype=np.uint8)
    slopes = np.tile(np.arange(0, 8 * ICON_SIDE, 8, dtype=np.uint8), (1, ICON_SIDE, 1))
    found = {
        "noise": noise,
        "mirrored": np.concatenate([noise[:, :, :16], noise[:, :, 15::-1]], axis=2),
        "flat": np.tile(np.arange(0, 256, 5, dtype=np.uint8)[:, None, None], (1, 32, 32)),
        "slopes": np.concatenate([slopes, slopes.transpose(0, 2, 1), 255 - slopes]),
    }
    made = {name: [Image.fromarray(icon) for icon in pixels] for name, pixels in found.items()}
    return made | {"pictures": [icon_of(picture(seed).convert("L")) for seed in range(50)]}


@pytest.mark.parametrize("kind", icons())
def test_hashes_are_those_of_imagehash(kind: str) -> None:
    for icon in icons()[kind]:
        assert f"{phash(icon):016x}" == str(imagehash.phash(icon))
        assert f"{dhash(icon):016x}" == str(imagehash.dhash(icon))
