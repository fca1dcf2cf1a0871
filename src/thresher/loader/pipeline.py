"""Bytes to batches of canvases, ahead of the consumer, in threads.

The chain is: plan -> read -> decode -> canvas -> batch. Reading and decoding release the
interpreter, so threads do; each writes its pixels straight into the batch's place. How many do it
best, or whether each hands it to a process of its own (``workers``), is found out by a ``trial``.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from thresher.config import Cache, Decoder
from thresher.errors import UserError
from thresher.loader import canvas
from thresher.loader.choice import choose
from thresher.loader.draws import uniforms
from thresher.loader.host_batch import HostBatch
from thresher.loader.keep import decide, free_memory
from thresher.loader.make import Framing, Maker, has_reason
from thresher.loader.planned import Planned, planned
from thresher.loader.pool import Pool, Work
from thresher.loader.store import DeviceStore, HostStore, store_side
from thresher.loader.trial import MOST_SAMPLES
from thresher.loader.workers import Workers, affordable

__all__ = ["CROP_STREAM", "Framing", "HostBatch", "Loader"]

CROP_STREAM = 0
_PREFETCH = 3
_MOST_PER_TASK = 32
_TASKS_PER_THREAD = 2
"""Of one batch: few, since every task costs a turn of the interpreter; enough to share evenly. Of a
process only one: a message takes this one's interpreter as long as a dozen small images in it."""
_LITTLE = 2**20
"""Bytes of a batch that are copied sooner than a thread wakes up; and one that does takes a core
from a training step that uses all of them."""
_CPU = torch.device("cpu")


@dataclass
class _Job:
    """A batch in the making.

    Attributes:
        batch: to be filled.
        squares: uint8[B, side, side, 3], where the threads write: the batch's canvas, or what a
            device store is to keep.
        draws: float32[B, CROP_DRAWS] of random crops.
        copied: kept images are copied to all places, also to those that repeat others.
        work: of the threads.
    """

    batch: HostBatch
    squares: Tensor
    draws: np.ndarray | None
    copied: bool
    work: Work


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
        decoder: whether the threads decode themselves or each in a process of its own; auto: found
            out, as is how many threads do it best.
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
        self._maker = Maker(read, framing, min_area)
        self._made_side = side if self.cache.place != "none" else size
        self._processes = processes
        self._workers = None
        if decoder == "processes":
            self._workers = Workers(self._maker, self._made_side, _MOST_PER_TASK, self._name)
        self._is_settled = decoder != "auto"
        self._pool = Pool(max(1, threads))

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
            Exception: what else ``read`` raised, if no OSError; a note names the sample. Errors of
            batches ahead end this one, too: it may wait for what will never come.
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
                waiting = time.perf_counter()
                self._pool.finish([job.work for job in ahead])
                self.wait_seconds += time.perf_counter() - waiting
                job = ahead.popleft()
                batch = self._finish_on_device(job, self._device) if self._device else job.batch
                if self.unreadable or not job.copied:
                    batch.fill_gaps()
                yield batch
        finally:
            for job in ahead:
                job.work.cancel()

    def close(self) -> None:
        """Stop the threads and their processes; a read that stalls is not waited for."""
        self._pool.close()
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
        job = _Job(batch, squares, draws, copied, self._pool.start([]))
        if as_kept and squares.nbytes <= _LITTLE:
            self._take_kept(job)
        elif as_kept:
            job.work = self._pool.start([partial(self._take_kept, job)])
        else:
            if not self._is_settled and not all_kept:
                self._settle(job)
            per_thread = _TASKS_PER_THREAD if self._workers is None else 1
            share = len(valid) // (self._pool.size * per_thread)
            size = min(_MOST_PER_TASK, max(1, share))
            parts = [slice(at, at + size) for at in range(0, len(valid), size)]
            job.work = self._pool.start([partial(self._make_part, job, part) for part in parts])
        return job

    def _settle(self, job: _Job) -> None:
        """Find out how to decode, with some samples of the first batch that needs it."""
        self._is_settled = True
        store = self._host or self._device
        num = len(self) if store is None else int((~store.filled).sum())
        places = np.flatnonzero(self._missing(job, slice(None)))[:MOST_SAMPLES]
        draws = self._draws(job)
        samples = [
            (int(job.batch.ids[place]), None if draws is None else draws[place]) for place in places
        ]
        choice = choose(self._pool, self._maker, samples, self._made_side, num)
        free = free_memory() // self._processes
        if not choice.processes or not affordable(self._maker, self._pool.size, free):
            self._pool.resize(choice.threads)
            return
        self._workers = Workers(self._maker, self._made_side, _MOST_PER_TASK, self._name)
        print(
            f"note: {self._pool.size} processes decode the images, since threads would wait for"
            " each other (--decoder threads keeps to threads)",
            file=sys.stderr,
            flush=True,
        )

    def _take_kept(self, job: _Job) -> None:
        """All images of a batch are kept, and as whole canvases if on the host."""
        if self._host is not None:
            self._host.copy(job.batch.positions, job.squares.numpy())
        if self.unreadable:
            job.batch.valid[np.isin(job.batch.ids, list(self.unreadable))] = False

    def _make_part(self, job: _Job, part: slice) -> None:
        batch, squares = job.batch, job.squares.numpy()
        valid = np.flatnonzero(batch.valid[part]) + part.start
        for place in valid:
            if (known := self.unreadable.get(int(batch.ids[place]))) is not None:
                self._pass_over(job, place, known)  # perhaps known from a checkpoint
        missing = np.flatnonzero(self._missing(job, part)) + part.start
        kept = squares if self._host is None else self._host.pixels
        rows = missing if self._host is None else batch.positions[missing]
        draws = self._draws(job)
        if self._workers is not None:  # which are not asked to stop, but ended
            make = self._workers.many
        else:
            make = partial(self._maker.many, going=lambda _: not job.work.is_cancelled)
        made = make(
            batch.ids[missing].tolist(),
            None if draws is None else draws[missing],
            [kept[row] for row in rows],
        )
        store = self._host or self._device
        for place, answer in zip(missing, made, strict=False):
            if isinstance(answer, Exception):
                self._pass_over(job, place, self._reason(answer, int(batch.ids[place])))
            elif store is not None:
                store.sizes[batch.positions[place]] = answer
        if self._host is None or job.work.is_cancelled:
            return  # the device keeps the batch's squares when all of them are there
        self._host.filled[batch.positions[missing]] = True
        for place in valid[batch.valid[valid]]:
            if job.draws is None:
                squares[place] = self._host.pixels[batch.positions[place]]
            else:
                self._host.crop(int(batch.positions[place]), job.draws[place], squares[place])

    def _pass_over(self, job: _Job, place: int, reason: str) -> None:
        self._mark_unreadable(int(job.batch.ids[place]), int(job.batch.positions[place]), reason)
        job.batch.valid[place] = False
        job.squares.numpy()[place] = 0

    def _reason(self, error: Exception, sample: int) -> str:
        """Why an image cannot be used.

        Raises:
            UserError, or the error itself: it is no image's reason; the sample's name is added.
        """
        if has_reason(error):
            return str(error)
        if isinstance(error, UserError | MemoryError):
            what = str(error) if isinstance(error, UserError) else "Memory ran out."
            raise UserError(f"{what} This happened at {self._name(sample)}.") from error
        error.add_note(f"This happened at {self._name(sample)}.")
        raise error

    def _draws(self, job: _Job) -> np.ndarray | None:
        """What a maker needs of them: nothing where whole images are kept and cropped later."""
        return job.draws if self._host is None and self._device is None else None

    def _missing(self, job: _Job, part: slice) -> np.ndarray:
        """Which places are to be decoded: neither kept nor known to be unreadable."""
        batch, store = job.batch, self._host or self._device
        missing = batch.valid[part] & ~np.isin(batch.ids[part], list(self.unreadable))
        if store is not None:
            missing &= ~store.filled[batch.positions[part]]
        return missing

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
