"""How fast one core decodes images, and serves decoded ones from memory."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from thresher.config import DataOptions
from thresher.errors import UserError
from thresher.loader import canvas
from thresher.loader.decode import DecodeError, decode_part
from thresher.loader.store import HostStore, store_side
from thresher.train.data import open_images

_MOST = 64
"""Images that are measured; they are read in turn until the time is up."""
MADE_SIZE = (375, 500)
"""Height and width of the made photographs: the most frequent of ImageNet's."""


@dataclass(frozen=True)
class Rates:
    """Of one core.

    Attributes:
        decoded: images per second, from a file's bytes to a canvas.
        cached: images per second, from a kept square to a canvas.
        image_bytes: mean size of a file.
        cache_bytes: per kept square.
        words: what was decoded.
    """

    decoded: float
    cached: float
    image_bytes: float
    cache_bytes: float
    words: str


def measure(data: str | None, image_size: int, small: bool, seconds: float = 1.0) -> Rates:
    """Decode for about ``seconds``, then serve from memory for as long.

    Args:
        data: any images that train takes; None for made ones.
        image_size: side of the canvas.
        small: the whole image is shown, else a random crop.
        seconds: of measuring.

    Raises:
        UserError: data that cannot be opened, or of which no image can be decoded.
    """
    files = _made() if data is None else _some_of(data)
    draws = np.random.default_rng(0).random((997, canvas.CROP_DRAWS)).astype(np.float32)
    out = np.empty((image_size, image_size, 3), dtype=np.uint8)

    def decode(turn: int) -> None:
        def choose(height: int, width: int) -> canvas.Box:
            if small:
                return canvas.all_of_it(height, width)
            return canvas.random_box(height, width, draws[turn % len(draws)])

        pixels, box = decode_part(files[turn % len(files)], choose, image_size)
        canvas.cut(pixels, box, out)

    store = HostStore(_MOST, store_side(image_size, not small))
    store.pixels[...] = 127
    store.sizes[...] = MADE_SIZE

    def serve(turn: int) -> None:
        if small:
            out[...] = store.pixels[turn % _MOST]
        else:
            store.crop(turn % _MOST, draws[turn % len(draws)], out)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        decoded, cached = _rate(decode, seconds), _rate(serve, seconds)
    finally:
        torch.set_num_threads(threads)
    return Rates(
        decoded=decoded,
        cached=cached,
        image_bytes=float(np.mean([len(file) for file in files])),
        cache_bytes=float(store.side**2 * 3),
        words="made images" if data is None else f"{len(files)} images of {data}",
    )


def _rate(action: object, seconds: float) -> float:
    assert callable(action)
    for turn in range(3):
        action(turn)
    start, turn = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds or turn == 0:
        action(turn)
        turn += 1
    return turn / spent if spent > 0 else float(turn)


def _some_of(data: str) -> Sequence[bytes]:
    images = open_images(data, DataOptions(), None)
    chosen = images.ids[:: max(1, len(images.ids) // _MOST)][:_MOST]
    files = []
    for sample in chosen:
        try:
            file = images.reader.read(int(sample))
            decode_part(file, canvas.all_of_it, None)
        except (DecodeError, OSError):
            continue
        files.append(file)
    images.reader.close()
    if not files:
        raise UserError(f"None of {len(chosen)} images of {data} tried can be decoded.")
    return files


def _made() -> Sequence[bytes]:
    """Smooth colours with some grain, so that JPEG finds about as much as in a photograph."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(8):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(MADE_SIZE[::-1], Image.Resampling.BICUBIC), np.float32)
        grain = rng.normal(0, 12, (*MADE_SIZE, 1))
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=92)
        files.append(file.getvalue())
    return files
