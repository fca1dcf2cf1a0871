"""The real training loop, run for a number of steps and timed part by part."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from thresher.bench.clock import finish
from thresher.bench.parts import Parts
from thresher.bench.work import Work
from thresher.loader.feed import Feed
from thresher.loader.transfer import Sent
from thresher.train.loop import Listener, Loop
from thresher.train.steps import Steps
from thresher.types import Batch, Progress


@dataclass(frozen=True)
class Timed:
    """What was timed.

    Attributes:
        steps: that were counted.
        seconds: of all of them, without those before.
        parts: seconds of each of ``PARTS``; empty if parts were not timed.
    """

    steps: int
    seconds: float
    parts: dict[str, float]


def time_loop(
    work: Work,
    steps: int,
    skip: int,
    *,
    by_part: bool,
    heard: Callable[[Progress], None] = lambda _: None,
) -> Timed:
    """Train from the start with fresh networks and a fresh ledger, and stop without a trace.

    Args:
        work: what to train; its epochs must have ``skip + steps`` steps or more.
        steps: to count.
        skip: steps before, in which memory is allocated and kernels are chosen.
        by_part: time the parts too, which costs a little; then no step is recorded on a GPU.
        heard: told of every step.

    Raises:
        UserError: a loss is not finite.
        Interrupted: asked to stop.
    """
    assert work.feed.order.steps * work.config.epochs >= skip + steps
    assert skip >= 1, "time is counted from the end of a step"
    device = work.runtime.device
    parts = Parts(device)
    started = 0.0

    def on_step(progress: Progress, _: Any) -> None:
        nonlocal started
        heard(progress)
        if progress.step + 1 == skip:
            finish(device)
            parts.clear()
            started = time.perf_counter()
        if progress.step + 1 == skip + steps:
            raise _Enough

    listener = Listener(_nothing, on_step, _nothing, _nothing)
    loop = _Loop(work, listener, parts if by_part else None)
    try:
        loop.run(resume=False)
    except _Enough:
        finish(device)
    seconds = time.perf_counter() - started
    exposed = loop.team.exchange_wait_seconds * steps / (skip + steps)
    parts.add("exchange", exposed)
    parts.add("backward", -exposed)
    return Timed(steps, seconds, parts.seconds() if by_part else {})


class _Enough(Exception):  # noqa: N818 - no error: the measurement is over
    """All steps were made."""


class _Loop(Loop):
    """Thresher's loop; its parts report their time, if asked to."""

    def __init__(self, work: Work, listener: Listener, parts: Parts | None) -> None:
        # A copy, so that the next loop finds a method that is not timed.
        ledger, method, feed = work.make_ledger(), copy.copy(work.method), work.feed
        config = work.config
        self._parts = parts
        if parts is not None:
            config = dataclasses.replace(config, capture=False)
            parts.wrap(ledger, "ledger", "rows", "update")
            parts.wrap(method, "forward + loss", "step")
            own = {field.name: getattr(feed, field.name) for field in dataclasses.fields(feed)}
            feed = _TimedFeed(**own, clock=parts)
        super().__init__(
            config, work.runtime, method, feed, ledger, work.make_learner, None,
            work.checkpoints, {}, listener,
        )  # fmt: skip

    def _save(self, epoch: int, step: int, *, last: bool) -> None:
        """Nothing of this training is kept, not even if it is stopped."""

    def _make_steps(self, index: int) -> Steps:
        steps = super()._make_steps(index)
        if self._parts is not None:
            self._parts.wrap(self.team, "backward", "add_part", "backward")
            self._parts.wrap(self.team, "optimizer + average", "step")
        return steps


@dataclass(frozen=True, kw_only=True)
class _TimedFeed(Feed):
    """A feed that says how long it waited for the loader, and how long it augmented."""

    clock: Parts

    def sent(self, epoch: int, start: int = 0) -> Iterator[Sent]:
        """As the feed's own."""
        arriving = super().sent(epoch, start)
        take = self.clock.timed("augmentation", lambda: next(arriving, None))
        while True:
            before = self.loader.wait_seconds
            sent = take()
            waited = self.loader.wait_seconds - before
            self.clock.add("data wait", waited)
            self.clock.add("augmentation", -waited)
            if sent is None:
                return
            yield sent

    def batch(self, sent: Sent) -> tuple[Batch, Tensor]:
        """As the feed's own."""
        return self.clock.timed("augmentation", super().batch)(sent)


def _nothing(_: Any) -> None:
    pass
