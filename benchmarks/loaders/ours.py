"""Thresher's loader, and the decoder alone, for the loader benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from thresher.config import Cache, Decoder
from thresher.loader.decode import decode
from thresher.loader.order import Order
from thresher.loader.pipeline import Loader
from thresher.sources.detect import open_source
from thresher.sources.read import Reader

_BATCH = 128
_WORKERS = 2


class Thresher:
    """Epoch after epoch, as a run does; kept images are decoded before the first one counts."""

    def __init__(
        self, data: Path, cache: Cache, decoder: Decoder = "threads", *, min_area: float
    ) -> None:
        manifest = open_source(str(data))
        self._loader = Loader(
            Reader(manifest).read,
            np.arange(len(manifest)),
            manifest.labels,
            size=224,
            framing="random_crop",
            min_area=min_area,
            threads=_WORKERS,
            cache=cache,
            decoder=decoder,
        )
        self._order = Order(len(manifest), _BATCH, seed=0)
        self._epoch = 0
        if cache == "host":
            list(map(len, (batch.ids for batch in self._loader.batches(0, self._order.epoch(0)))))

    def __call__(self) -> Iterator[int]:
        self._epoch += 1
        for batch in self._loader.batches(self._epoch, self._order.epoch(self._epoch)):
            yield int(batch.valid.sum())
        assert not self._loader.unreadable


def decode_only(files: list[str]) -> Iterator[int]:
    """Decode every file in full in two threads and do nothing else."""

    def decode_some(part: list[str]) -> int:
        for file in part:
            decode(Path(file).read_bytes())
        return len(part)

    with ThreadPoolExecutor(_WORKERS) as pool:
        yield decode_some(files[:1])
        yield from pool.map(decode_some, (files[i : i + 8] for i in range(0, len(files), 8)))
