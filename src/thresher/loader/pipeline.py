"""Bytes to batches of canvases, ahead of the consumer, in threads.

The chain is: plan -> read -> decode -> canvas -> batch. Threads are enough, since reading and
decoding release the interpreter; each writes its pixels straight into the batch's place.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from thresher.loader import canvas
from thresher.loader.decode import DecodeError, decode
from thresher.loader.draws import uniforms

Framing = Literal["whole", "centre", "random_crop"]

CROP_STREAM = 0
_PREFETCH = 3
_IMAGES_PER_TASK = 8
_CACHE_SHARE_OF_FREE_MEMORY = 0.25


@dataclass(frozen=True)
class HostBatch:
    """A batch before the device.

    Attributes:
        positions: int64[B], rows among the loader's samples; places to fill repeat others.
        ids: int64[B], manifest ids.
        canvas: uint8[B, 3, S, S], channels last in memory.
        labels: int64[B].
        valid: bool[B], false where a place only fills the shape or could not be decoded.
    """

    positions: np.ndarray
    ids: np.ndarray
    canvas: Tensor
    labels: np.ndarray
    valid: np.ndarray


class Loader:
    """Reads, decodes and frames the samples of one rank.

    Args:
        read: bytes of a sample by manifest id; raises OSError with a reason when it cannot.
        ids: int64[n], the manifest ids this loader serves.
        labels: int64[n], their labels.
        size: side of the canvas in pixels.
        framing: how an image becomes a square; ``random_crop`` depends on the epoch.
        seed: of the crops.
        threads: that decode.
        cache: whether canvases may be kept in memory; they are if they fit and do not change.
        pin: whether batches lie in pinned memory, for a faster way to the device.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        ids: np.ndarray,
        labels: np.ndarray,
        *,
        size: int,
        framing: Framing,
        seed: int = 0,
        threads: int = 2,
        cache: bool = True,
        pin: bool = False,
    ) -> None:
        self._read = read
        self.ids = np.asarray(ids, dtype=np.int64)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.size = size
        self.framing = framing
        self.seed = seed
        self.unreadable: dict[int, str] = {}
        self.wait_seconds = 0.0
        self._pin = pin
        self._pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="decode")
        self._cache = self._make_cache() if cache else None
        self._cached = np.zeros(len(self.ids), dtype=bool)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def caches(self) -> bool:
        """Whether decoded images are kept in memory."""
        return self._cache is not None

    def batches(self, epoch: int, plan: np.ndarray, start: int = 0) -> Iterator[HostBatch]:
        """Serve the steps of a plan in order.

        Args:
            epoch: for random crops.
            plan: int64[steps, B] of positions, -1 for places that stay empty.
            start: first step to serve.
        """
        ahead: deque[tuple[HostBatch, list[Future[None]]]] = deque()
        upcoming = iter(plan[start:])
        try:
            while True:
                while len(ahead) < _PREFETCH and (places := next(upcoming, None)) is not None:
                    ahead.append(self._submit(epoch, places))
                if not ahead:
                    return
                batch, tasks = ahead.popleft()
                waiting = time.perf_counter()
                for task in tasks:
                    task.result()
                self.wait_seconds += time.perf_counter() - waiting
                _fill_gaps(batch)
                yield batch
        finally:
            for _, tasks in ahead:
                for task in tasks:
                    task.cancel()

    def close(self) -> None:
        """Stop the threads; tasks that wait are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, epoch: int, places: np.ndarray) -> tuple[HostBatch, list[Future[None]]]:
        valid = places >= 0
        positions = np.where(valid, places, 0)
        pixels = torch.empty(
            (len(places), self.size, self.size, 3), dtype=torch.uint8, pin_memory=self._pin
        ).permute(0, 3, 1, 2)
        batch = HostBatch(positions, self.ids[positions], pixels, self.labels[positions], valid)
        if self._cache is not None and self._cached[positions[valid]].all():
            return batch, [self._pool.submit(self._copy_cached, batch)]
        draws = (
            uniforms(self.seed, epoch, batch.ids, CROP_STREAM, canvas.CROP_DRAWS)
            if self.framing == "random_crop"
            else None
        )
        parts = range(0, len(places), _IMAGES_PER_TASK)
        return batch, [
            self._pool.submit(self._decode_part, batch, slice(at, at + _IMAGES_PER_TASK), draws)
            for at in parts
        ]

    def _copy_cached(self, batch: HostBatch) -> None:
        assert self._cache is not None
        rows = torch.from_numpy(batch.positions)
        torch.index_select(self._cache, 0, rows, out=batch.canvas.permute(0, 2, 3, 1))
        if self.unreadable:
            batch.valid[np.isin(batch.ids, list(self.unreadable))] = False

    def _decode_part(self, batch: HostBatch, part: slice, draws: np.ndarray | None) -> None:
        for place in range(part.start, min(part.stop, len(batch.ids))):
            if not batch.valid[place]:
                continue
            sample = int(batch.ids[place])
            position = int(batch.positions[place])
            if sample in self.unreadable:
                batch.valid[place] = False
            elif self._cache is not None and self._cached[position]:
                batch.canvas[place] = self._cache[position].permute(2, 0, 1)
            else:
                self._decode_one(batch, place, sample, None if draws is None else draws[place])

    def _decode_one(
        self, batch: HostBatch, place: int, sample: int, draws: np.ndarray | None
    ) -> None:
        try:
            image = decode(self._read(sample))
        except (DecodeError, OSError) as error:
            self.unreadable[sample] = str(error)
            batch.valid[place] = False
            batch.canvas[place] = 0
        else:
            if draws is not None:
                framed = canvas.random_crop(image, self.size, draws)
            elif self.framing == "centre":
                framed = canvas.centre(image, self.size)
            else:
                framed = canvas.whole(image, self.size)
            batch.canvas[place] = framed
        if self._cache is not None:
            position = batch.positions[place]
            self._cache[position] = batch.canvas[place].permute(1, 2, 0)
            self._cached[position] = True

    def _make_cache(self) -> Tensor | None:
        shape = (len(self.ids), self.size, self.size, 3)
        budget = psutil.virtual_memory().available * _CACHE_SHARE_OF_FREE_MEMORY
        if self.framing == "random_crop" or np.prod(shape) > budget:
            return None
        return torch.empty(shape, dtype=torch.uint8)


def _fill_gaps(batch: HostBatch) -> None:
    """Repeat valid samples in the places that are not, so that batch statistics stay sane."""
    gaps = np.flatnonzero(~batch.valid)
    if len(gaps) == 0:
        return
    good = np.flatnonzero(batch.valid)
    if len(good) == 0:
        batch.canvas.zero_()
        return
    source = np.resize(good, len(gaps))
    batch.canvas[torch.from_numpy(gaps)] = batch.canvas[torch.from_numpy(source)]
    for column in (batch.positions, batch.ids, batch.labels):
        column[gaps] = column[source]
