"""Bytes to batches of canvases, ahead of the consumer, in threads.

The chain is: plan -> read -> decode -> canvas -> batch. Reading and decoding release the
interpreter, so threads do; each writes its pixels straight into the batch's place. With very many
of them each hands the decoding to a process of its own, see ``workers``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from thresher.config import Cache, Decoder
from thresher.errors import UserError
from thresher.loader import canvas
from thresher.loader.decode import DecodeError
from thresher.loader.draws import uniforms
from thresher.loader.keep import decide
from thresher.loader.make import Framing, Maker
from thresher.loader.planned import Planned, planned
from thresher.loader.store import DeviceStore, HostStore, store_side
from thresher.loader.transfer import to_device
from thresher.loader.workers import Make, Workers

__all__ = ["CROP_STREAM", "Framing", "HostBatch", "Loader"]

CROP_STREAM = 0
_PREFETCH = 3
_MOST_PER_TASK = 32
_TASKS_PER_THREAD = 4
"""Of one batch: few, since every task costs a turn of the interpreter; enough to share evenly."""
_MOST_THREADS = 16
"""That ``auto`` lets decode without processes. The interpreter runs one thread at a time, and of a
photograph's millisecond 4 to 5 % are Python: more than 16 threads would leave the training step
too little of it."""
_LITTLE = 2**20
"""Bytes of a batch that are copied sooner than a thread wakes up; and one that does takes a core
from a training step that uses all of them."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class HostBatch:
    """A batch before the device.

    Attributes:
        positions: int64[B], rows among the loader's samples; places to fill repeat others.
        ids: int64[B], manifest ids.
        canvas: uint8[B, 3, S, S], channels last in memory; on the device if images are kept there.
        labels: int64[B].
        valid: bool[B], false where a place only fills the shape or could not be decoded.
    """

    positions: np.ndarray
    ids: np.ndarray
    canvas: Tensor
    labels: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class _Job:
    """A batch in the making.

    Attributes:
        batch: to be filled.
        squares: uint8[B, side, side, 3], where the threads write: the batch's canvas, or what a
            device store is to keep.
        draws: float32[B, CROP_DRAWS] of random crops.
        copied: kept images are copied to all places, also to those that repeat others.
        tasks: that are not done yet.
    """

    batch: HostBatch
    squares: Tensor
    draws: np.ndarray | None
    copied: bool
    tasks: list[Future[None]]


class Loader:
    """Reads, decodes and frames the samples of one rank.

    Args:
        read: bytes of a sample by manifest id. An OSError is the sample's reason why it cannot be
            used; any other error ends the run.
        ids: int64[n], the manifest ids this loader serves.
        labels: int64[n], their labels.
        size: side of the canvas in pixels.
        framing: how an image becomes a square; ``random_crop`` depends on the epoch.
        min_area: least share of an image that a random crop shows.
        seed: of the crops.
        threads: that decode.
        decoder: whether the threads decode themselves or each in a process of its own.
        cache: where decoded images may be kept, see ``keep`` and ``store``.
        device: that trains; batches for a GPU lie in pinned memory, for a faster way there.
        processes: that share this machine's memory.
        place: where a sample lies, for messages.

    Raises:
        UserError: the cache that is wanted cannot be had.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        ids: np.ndarray,
        labels: np.ndarray,
        *,
        size: int,
        framing: Framing,
        min_area: float = canvas.MIN_CROP_AREA,
        seed: int = 0,
        threads: int = 2,
        decoder: Decoder = "auto",
        cache: Cache = "auto",
        device: torch.device = _CPU,
        processes: int = 1,
        place: Callable[[int], str] | None = None,
    ) -> None:
        self._place = place
        self.ids = np.asarray(ids, dtype=np.int64)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.size = size
        self.framing = framing
        self.seed = seed
        self.unreadable: dict[int, str] = {}
        self.wait_seconds = 0.0
        self._pin = device.type == "cuda"
        side = store_side(size, framing == "random_crop")
        self.cache = decide(cache, len(self.ids) * side * side * 3, device, processes)
        self._host = (
            HostStore(len(self.ids), side, min_area) if self.cache.place == "host" else None
        )
        self._device = (
            DeviceStore(len(self.ids), side, device, min_area)
            if self.cache.place == "device"
            else None
        )
        self._is_full = False
        self._threads = max(1, threads)
        self._maker = Maker(read, framing, min_area)
        self._workers = None
        if decoder == "processes" or (decoder == "auto" and self._threads > _MOST_THREADS):
            made = side if self.cache.place != "none" else size
            self._workers = Workers(self._maker, made, _MOST_PER_TASK, self._name)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, epoch: int, plan: np.ndarray, start: int = 0) -> Iterator[HostBatch]:
        """Serve the steps of a plan in order.

        Args:
            epoch: for random crops.
            plan: int64[steps, B] of positions, -1 for places that stay empty.
            start: first step to serve.

        Raises:
            UserError: no image can be read any more; the message names the sample it was met at.
            Exception: what else ``read`` raised, if no OSError; a note names the sample.
        """
        ahead: deque[_Job] = deque()
        store = self._host or self._device
        self._is_full = store is not None and bool(store.filled.all())
        draw = partial(self._crop_draws, epoch) if self.framing == "random_crop" else None
        upcoming = planned(plan[start:], self.ids, self.labels, draw)
        try:
            while True:
                while len(ahead) < _PREFETCH and (step := next(upcoming, None)) is not None:
                    ahead.append(self._submit(step))
                if not ahead:
                    return
                job = ahead.popleft()
                waiting = time.perf_counter()
                for task in job.tasks:
                    task.result()
                self.wait_seconds += time.perf_counter() - waiting
                batch = self._finish_on_device(job, self._device) if self._device else job.batch
                if self.unreadable or not job.copied:
                    _fill_gaps(batch)
                yield batch
        finally:
            for job in ahead:
                for task in job.tasks:
                    task.cancel()

    def close(self) -> None:
        """Stop the threads and their processes; tasks that wait are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._workers is not None:
            self._workers.close()

    def _crop_draws(self, epoch: int, ids: np.ndarray) -> np.ndarray:
        return uniforms(self.seed, epoch, ids, CROP_STREAM, canvas.CROP_DRAWS)

    def _submit(self, step: Planned) -> _Job:
        valid, positions, draws = step.valid, step.positions, step.draws
        store = self._host or self._device
        # Empty places repeat others, unless all are empty.
        all_kept = self._is_full or (
            store is not None and (not step.has_any or bool(store.filled[positions].all()))
        )
        side = self._device.side if self._device is not None else self.size
        num = 0 if self._device is not None and all_kept else len(valid)
        squares = torch.empty((num, side, side, 3), dtype=torch.uint8, pin_memory=self._pin)
        canvases = squares.permute(0, 3, 1, 2)
        batch = HostBatch(positions, step.ids, canvases, step.labels, valid)
        as_kept = all_kept and (draws is None or self._device is not None)
        copied = step.has_any and (as_kept or self._device is not None)
        job = _Job(batch, squares, draws, copied, [])
        if as_kept and squares.nbytes <= _LITTLE:
            self._take_kept(job)
        elif as_kept:
            job.tasks.append(self._pool.submit(self._take_kept, job))
        else:
            share = len(valid) // (self._threads * _TASKS_PER_THREAD)
            size = min(_MOST_PER_TASK, max(1, share))
            job.tasks.extend(
                self._pool.submit(self._make_part, job, slice(at, at + size))
                for at in range(0, len(valid), size)
            )
        return job

    def _take_kept(self, job: _Job) -> None:
        """All images of a batch are kept, and as whole canvases if on the host."""
        if self._host is not None:
            self._host.copy(job.batch.positions, job.squares.numpy())
        if self.unreadable:
            job.batch.valid[np.isin(job.batch.ids, list(self.unreadable))] = False

    def _make_part(self, job: _Job, part: slice) -> None:
        squares = job.squares.numpy()
        batch = job.batch
        make = self._maker if self._workers is None else self._made(job, part, self._workers)
        for place in range(part.start, min(part.stop, len(batch.ids))):
            if not batch.valid[place]:
                continue
            sample, position = int(batch.ids[place]), int(batch.positions[place])
            if (known := self.unreadable.get(sample)) is not None:
                self._mark_unreadable(sample, position, known)  # perhaps known from a checkpoint
                batch.valid[place] = False
                continue
            draws = None if job.draws is None else job.draws[place]
            try:
                self._make_one(make, sample, position, draws, squares[place])
            except (DecodeError, OSError) as error:
                self._mark_unreadable(sample, position, str(error))
                batch.valid[place] = False
                squares[place] = 0
            except (UserError, MemoryError) as error:
                what = str(error) if isinstance(error, UserError) else "Memory ran out."
                raise UserError(f"{what} This happened at {self._name(sample)}.") from error
            except Exception as error:
                error.add_note(f"This happened at {self._name(sample)}.")
                raise

    def _made(self, job: _Job, part: slice, workers: Workers) -> Make:
        """Let this thread's process decode what is not kept yet and not known to be unreadable."""
        batch, store = job.batch, self._host or self._device
        wanted = batch.valid[part] & ~np.isin(batch.ids[part], list(self.unreadable))
        if store is not None:
            wanted &= ~store.filled[batch.positions[part]]
        draws = None if job.draws is None or store is not None else job.draws[part][wanted]
        return workers.make(batch.ids[part][wanted], draws)

    def _make_one(
        self, make: Make, sample: int, position: int, draws: np.ndarray | None, out: np.ndarray
    ) -> None:
        store = self._host or self._device
        if store is None:
            make(sample, draws, out)
            return
        if not store.filled[position]:
            kept = out if self._host is None else self._host.pixels[position]
            store.sizes[position] = make(sample, None, kept)
        if self._host is None:
            return  # the device keeps the batch's squares when all of them are there
        self._host.filled[position] = True
        if draws is None:
            out[...] = self._host.pixels[position]
        else:
            self._host.crop(position, draws, out)

    def _mark_unreadable(self, sample: int, position: int, reason: str) -> None:
        self.unreadable[sample] = reason
        store = self._host or self._device
        if store is not None:  # as settled as a kept one: batches around it need no decoding
            store.filled[position] = True
        if self._host is not None:
            self._host.pixels[position] = 0

    def _name(self, sample: int) -> str:
        """Which image it is, in words."""
        where = "" if self._place is None else f" ({self._place(sample)})"
        return f"the image with the id {sample}{where}"

    def _finish_on_device(self, job: _Job, store: DeviceStore) -> HostBatch:
        positions = job.batch.positions
        new = np.flatnonzero(job.batch.valid & ~store.filled[positions])
        if len(new):
            # A sample may stand in a batch once only, so no row is written twice.
            whole = len(new) == len(positions)  # as they lie, in pinned memory
            store.put(positions[new], job.squares if whole else job.squares[torch.from_numpy(new)])
        return replace(job.batch, canvas=store.canvases(positions, self.size, job.draws))


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
    squares = batch.canvas.permute(0, 2, 3, 1)  # each in one piece, which copies faster
    squares.index_copy_(
        0,
        to_device(gaps, squares.device),
        squares.index_select(0, to_device(source, squares.device)),
    )
    for column in (batch.positions, batch.ids, batch.labels):
        column[gaps] = column[source]
