"""Sums over an epoch, kept on the device so that no step waits for the host."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thresher.train.evaluate import Score
from thresher.types import Progress, StepResult


class Waits(NamedTuple):
    """Counters of seconds that only grow while a round lasts: for the loader, for other ranks."""

    data: float
    exchange: float


@dataclass(frozen=True)
class Timing:
    """Wall time of an epoch's training part, seconds, and what of it was spent waiting."""

    seconds: float
    waiting: Waits


@dataclass(frozen=True)
class EpochMetrics:
    """What an epoch came to; one line of ``metrics.jsonl``.

    Attributes:
        epoch, epochs: counted from 1, for people.
        loss: per network, the weighted mean.
        kept_share: mean weight of the given labels, 0 to 1.
        accuracy: 0 to 1 where measured.
        images_per_second: images trained on, each counted once however many networks see it.
        data_wait_share: share of the time spent waiting for the loader.
        exchange_wait_share: share spent waiting for other processes, partly estimated; with
            ``--placement apart`` without the wait for the other network's predictions.
    """

    epoch: int
    epochs: int
    round: int
    loss: tuple[float, ...]
    lr: float
    kept_share: float
    accuracy: float | None
    images: int
    images_per_second: float
    data_wait_share: float
    seconds: float
    exchange_wait_share: float = 0.0


class _Glance:
    """Values of a device as they were a moment ago: on a GPU each look only asks for the next one.

    Args:
        values: that change on the device.
    """

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self._arriving: Tensor | None = None
        self._event: torch.cuda.Event | None = None
        if values.is_cuda:
            self._arriving = torch.empty_like(values, device="cpu", pin_memory=True)
        self.forget()

    def forget(self) -> None:
        """Take what was seen for zeros; what is still arriving is overtaken by the next look."""
        self._event = None
        self._last = torch.zeros_like(self._values, device="cpu")
        self._last_at = self._asked_at = time.perf_counter()

    def __call__(self) -> tuple[Tensor, float]:
        """The values on the host, and when they were so by ``time.perf_counter``."""
        if self._arriving is None:
            return self._values.cpu(), time.perf_counter()
        if self._event is not None and self._event.query():  # type: ignore[no-untyped-call]
            self._last, self._last_at = self._arriving.clone(), self._asked_at
            self._event = None
        if self._event is None:
            self._arriving.copy_(self._values, non_blocking=True)
            self._asked_at = time.perf_counter()
            self._event = torch.cuda.current_stream(self._values.device).record_event()
        return self._last, self._last_at


class Meter:
    """Accumulates one epoch.

    ``sums`` is float64[2 * networks + 2]: losses, weights, kept weight, images.
    """

    def __init__(self, networks: int, device: torch.device) -> None:
        self.networks = networks
        # MPS has no float64; an epoch's sums fit float32 well enough there.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(2 * networks + 2, dtype=dtype, device=device)
        self._seconds = 0.0
        self._waited = Waits(0.0, 0.0)
        self._started = time.perf_counter()
        self._waited_before = Waits(0.0, 0.0)
        self._glance = _Glance(self.sums)

    def reset(self) -> None:
        """Begin an epoch, in the same memory: a recorded step adds to it."""
        self.sums.zero_()
        self._glance.forget()
        self._seconds, self._waited = 0.0, Waits(0.0, 0.0)
        self.resume_clock(self._waited)

    def add(self, result: StepResult, valid: Tensor) -> None:
        """Count one step."""
        seen = valid.float()
        # As it is kept, perhaps in float16, whose sums end at 65,504.
        kept = seen * result.records["weight"].float().mean(dim=1)
        losses = (loss.detach() for loss in result.loss_sums)
        # Each is a sum in float32 already; only what adds them up over an epoch must be wider.
        self.sums += torch.stack([*losses, *result.weight_sums, kept.sum(), seen.sum()])

    def is_finite(self) -> bool:
        """Whether all losses are finite, as far as is known without waiting for the device."""
        sums, _ = self._glance()
        return all(map(math.isfinite, sums.tolist()))

    def resume_clock(self, waited: Waits) -> None:
        """Start timing; ``waited`` is what the counters say now."""
        self._started, self._waited_before = time.perf_counter(), waited

    def stop_clock(self, waited: Waits) -> Timing:
        """Stop timing and return what this epoch took, also before an interruption."""
        timing = self._timing(waited, time.perf_counter())
        self._seconds, self._waited = timing.seconds, timing.waiting
        return timing

    def so_far(self, waited: Waits) -> tuple[Tensor, Timing]:
        """``sums`` on the host and what they took, as of a moment ago; see ``_Glance``.

        Args:
            waited: what the counters say.
        """
        sums, at = self._glance()
        return sums, self._timing(waited, at)

    def _timing(self, waited: Waits, now: float) -> Timing:
        spans = zip(self._waited, waited, self._waited_before, strict=True)
        waits = Waits(*(max(0.0, past + count - before) for past, count, before in spans))
        return Timing(self._seconds + max(0.0, now - self._started), waits)

    def summary(
        self, progress: Progress, timing: Timing, totals: Tensor, score: Score | None, lr: float
    ) -> EpochMetrics:
        """The epoch in numbers; ``totals`` are ``sums`` over all ranks."""
        values = totals.tolist()
        losses, weights = values[: self.networks], values[self.networks : -2]
        kept, images = values[-2:]
        return EpochMetrics(
            epoch=progress.epoch + 1,
            epochs=progress.epochs,
            round=progress.round + 1,
            loss=tuple(a / max(b, 1e-9) for a, b in zip(losses, weights, strict=True)),
            lr=lr,
            kept_share=kept / max(images, 1.0),
            accuracy=None if score is None else score.accuracy,
            images=int(images),
            images_per_second=images / max(timing.seconds, 1e-9),
            data_wait_share=timing.waiting.data / max(timing.seconds, 1e-9),
            seconds=timing.seconds,
            exchange_wait_share=timing.waiting.exchange / max(timing.seconds, 1e-9),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""
        timing = (self._seconds + time.perf_counter() - self._started, tuple(self._waited))
        return {"sums": self.sums.cpu(), "timing": timing}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.sums.copy_(state["sums"])
        self._seconds, waited = state["timing"]
        self._waited = Waits(*waited)

    def add_state(self, state: dict[str, Any]) -> None:
        """Take over what another rank counted; the time is the longest of all."""
        self.sums += state["sums"].to(self.sums.device)
        seconds, waited = state["timing"]
        self._seconds = max(self._seconds, seconds)
        self._waited = Waits(*map(max, self._waited, waited))
