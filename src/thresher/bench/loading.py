"""How fast batches come when nothing trains on them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from thresher.bench.clock import finish
from thresher.bench.report import peak_memory
from thresher.bench.work import Work


@dataclass(frozen=True)
class Loading:
    """Rates of one process.

    Attributes:
        images: of an epoch of this process.
        image_size: side of the views in pixels.
        cache: where decoded images were kept: none, host or device.
        why: that is so.
        first: images/s of the first epoch, read and decoded.
        second: images/s of the second, from the cache if there is one.
        unreadable: images that could not be decoded.
        memory_bytes: most that was ever held.
    """

    images: int
    image_size: int
    views: int
    threads: int
    cache: str
    why: str
    first: float
    second: float
    unreadable: int
    memory_bytes: int

    def sentence(self) -> str:
        """For people."""
        again = "from there" if self.cache != "none" else "again from the files"
        return (
            f"{self.images:,} images to {self.views} view(s) of {self.image_size} pixels by"
            f" {self.threads} threads: {self.first:,.0f} images/s in the first epoch,"
            f" {self.second:,.0f} in the second, {again}\ncache: {self.why}"
        )


def measure(work: Work) -> Loading:
    """Two epochs of batches with their views, of all samples of this process."""
    rates = [_epoch(work, epoch) for epoch in range(2)]
    loader = work.feed.loader
    return Loading(
        images=len(loader),
        image_size=loader.size,
        views=len(work.feed.views),
        threads=work.config.threads,
        cache=loader.cache.place,
        why=loader.cache.why,
        first=rates[0],
        second=rates[1],
        unreadable=len(loader.unreadable),
        memory_bytes=peak_memory(work.runtime.device),
    )


def _epoch(work: Work, epoch: int) -> float:
    """Images per second."""
    finish(work.runtime.device)
    started = time.perf_counter()
    for _ in work.feed.epoch(epoch):
        pass
    finish(work.runtime.device)
    return len(work.feed.loader) / (time.perf_counter() - started)
