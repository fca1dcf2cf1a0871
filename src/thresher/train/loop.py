"""The training loop: it alone steps, averages, records, measures and saves. Methods only decide."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from thresher.config import ResolvedConfig
from thresher.dist.runtime import Runtime
from thresher.errors import UserError
from thresher.ledger.history import LedgerHistory
from thresher.ledger.ledger import Ledger
from thresher.loader.feed import Feed
from thresher.methods.base import Method
from thresher.train.checkpoint import find_newest
from thresher.train.evaluate import Score
from thresher.train.flags import Flags, Verdict
from thresher.train.interrupt import Interrupted, StopRequest
from thresher.train.learner import MakeLearner
from thresher.train.meter import EpochMetrics, Meter, Waits
from thresher.train.saver import Saver
from thresher.train.schedule import triangle
from thresher.train.state import meta_of, parts_of, restore
from thresher.train.steps import Steps, capture_for
from thresher.train.team import Team
from thresher.train.together import Together
from thresher.types import Progress


@dataclass(frozen=True)
class Listener:
    """Who hears how the run goes; what a step came to is worked out only if asked for."""

    on_start: Callable[[int], None]
    on_step: Callable[[Progress, Callable[[Progress], EpochMetrics]], None]
    on_epoch: Callable[[EpochMetrics], None]
    on_note: Callable[[str], None]


class Loop:
    """One training run, from its newest checkpoint to its end.

    Args:
        config: of the run.
        runtime: this process's place among its peers.
        method: what decides.
        feed: batches on the device.
        ledger: what is known of this rank's samples.
        make_learner: (network, round) to a fresh network with its optimizer.
        measure: accuracy of the current networks, None where there is nothing to measure on.
        checkpoints: folder of the run's checkpoints.
        identity: what a checkpoint must belong to, kept in its ``meta.json``.
        listener: hears of every step and epoch.
    """

    def __init__(
        self,
        config: ResolvedConfig,
        runtime: Runtime,
        method: Method,
        feed: Feed,
        ledger: Ledger,
        make_learner: MakeLearner,
        measure: Callable[[Team], Score] | None,
        checkpoints: Path,
        identity: dict[str, Any],
        listener: Listener,
    ) -> None:
        assert sum(method.rounds) == config.epochs, "a method's rounds make up the run"
        assert len(feed.loader) == len(ledger), "a sample has the same row in both"
        self.config = config
        self.runtime = runtime
        self.method = method
        self.feed = feed
        self.ledger = ledger
        self.history = LedgerHistory(ledger, runtime.sum)
        self.last: EpochMetrics | None = None
        self.team: Team
        self._steps: Steps | None = None
        self._make_learner = make_learner
        self._measure = measure
        self._checkpoints = checkpoints
        self._identity = identity
        self._listener = listener
        self._meter = Meter(method.networks, runtime.device)
        self._together = Together(method.networks, runtime)
        token = runtime.broadcast(f"{time.time_ns():x}")
        self._saver = Saver(checkpoints, runtime, config.keep_checkpoints, token)
        self._saved_at = time.monotonic()

    def run(self, resume: bool) -> None:
        """Train to the end.

        Raises:
            UserError: a loss is not finite; the last good checkpoint stays.
            Interrupted: asked to stop; a checkpoint was saved first.
        """
        with StopRequest() as stop, self._together:
            self.runtime.watch(orphaned=stop.request)
            epoch, step = self._restore() if resume else (0, 0)
            self._listener.on_start(epoch)
            flags = Flags(self.runtime, stop)
            for current in range(epoch, self.config.epochs):
                self._train_epoch(current, step, flags)
                step = 0
                last = current == self.config.epochs - 1
                verdict = flags.ask(save=self._save_is_due())
                if last or verdict.stop or verdict.save:
                    self._save(current + 1, 0, last=last or verdict.stop > 0)
                if verdict.stop and not last:
                    self._leave(verdict)
            self._saver.finish()

    def _train_epoch(self, epoch: int, start: int, flags: Flags) -> None:
        steps, parts = self.feed.order.steps, self.config.accumulate
        progress = self._progress(epoch, start)
        if start == 0:
            self._meter.reset()
            if progress.round_epoch == 0:
                self._begin_round(progress.round)
            self.ledger.overwrite(self.method.begin_epoch(self.history, progress))
        self._meter.resume_clock(self._waits())
        made = self._steps
        assert made is not None, "a round has begun"
        for place, sent in enumerate(self.feed.sent(epoch, start), start * parts):
            step, part = divmod(place, parts)
            progress = self._progress(epoch, step)
            last_part = part == parts - 1
            rate = self._learning_rate(progress)
            look = partial(self._raised, flags, step) if last_part else None
            told = made.compute(sent, progress, rate, look)
            if not last_part:
                continue
            verdict = flags.read(told)
            if verdict.broken:
                self._refuse_non_finite(progress)
            made.apply(rate)
            self.runtime.tick()
            self._listener.on_step(progress, self._metrics_so_far)
            if step + 1 < steps and (verdict.stop or verdict.save):
                self._save(epoch, step + 1, last=verdict.stop > 0)
                if verdict.stop:
                    self._leave(verdict)
        self._finish_epoch(progress)

    def _raised(self, flags: Flags, step: int) -> list[float] | None:
        """Whether this rank wants to stop, must save, or has lost its way."""
        look = flags.looks_at_the_clock(step)
        broken = look and not self._meter.is_finite()
        return flags.raised(step, save=look and self._save_is_due(), broken=broken)

    def _leave(self, verdict: Verdict) -> None:
        self._saver.finish()
        raise Interrupted(verdict.stop)

    def _begin_round(self, index: int) -> None:
        """Fresh networks, and nothing recorded of the old ones."""
        if self._steps is None:
            self._steps = self._make_steps(index)
            return
        for network, learner in self.team.learners.items():
            learner.begin_again(self._make_learner(network, index))

    def _make_steps(self, index: int) -> Steps:
        """With networks for a first round."""
        num, runtime, note = self.method.networks, self.runtime, self._listener.on_note
        learners = {network: self._make_learner(network, index) for network in runtime.held(num)}
        self.team = Team(learners, num, self.config, runtime, self._together)
        captured = capture_for(self.config, runtime, self._together, num, note)
        return Steps(self.method, self.feed, self.ledger, self._meter, self.team, captured)

    def _finish_epoch(self, progress: Progress) -> None:
        totals = self.runtime.sum(self._meter.sums)
        if not bool(torch.isfinite(totals).all()):
            self._refuse_non_finite(progress)
        timing = self._meter.stop_clock(self._waits())
        done = progress.epoch + 1
        due = done % self.config.eval_every == 0 or done == self.config.epochs
        score = self._measure(self.team) if due and self._measure else None
        rate = self._learning_rate(progress)
        self.last = self._meter.summary(progress, timing, totals, score, rate)
        self._listener.on_epoch(self.last)

    def _metrics_so_far(self, progress: Progress) -> EpochMetrics:
        """The epoch until a moment ago, as if all ranks were like this one."""
        sums, timing = self._meter.so_far(self._waits())
        rate = self._learning_rate(progress)
        totals = sums * self.runtime.group.size
        return self._meter.summary(progress, timing, totals, None, rate)

    def _waits(self) -> Waits:
        return Waits(self.feed.loader.wait_seconds, self.team.exchange_wait_seconds)

    def _progress(self, epoch: int, step: int) -> Progress:
        rounds = self.method.rounds
        current, first = 0, 0
        while epoch >= first + rounds[current]:
            first += rounds[current]
            current += 1
        return Progress(
            epoch=epoch,
            epochs=self.config.epochs,
            step=epoch * self.feed.order.steps + step,
            steps=self.config.epochs * self.feed.order.steps,
            round=current,
            rounds=len(rounds),
            round_epoch=epoch - first,
            round_epochs=rounds[current],
        )

    def _learning_rate(self, progress: Progress) -> float:
        first = (progress.epoch - progress.round_epoch) * self.feed.order.steps
        steps = progress.round_epochs * self.feed.order.steps
        return self.config.lr * triangle(progress.step - first, steps, self.config.warmup_share)

    def _refuse_non_finite(self, progress: Progress) -> None:
        self._saver.wait()
        raise UserError(
            f"The loss is no longer finite (epoch {progress.epoch + 1}, seen at step"
            f" {progress.step + 1} of {progress.steps}). Lower the learning rate (--lr, now"
            f" {self.config.lr:g}) or use --precision fp32. The last good checkpoint stays in"
            f" {self._checkpoints}.",
            told=not self.runtime.is_first,
        )

    def _save_is_due(self) -> bool:
        return time.monotonic() - self._saved_at > 60 * self.config.checkpoint_minutes

    def _save(self, epoch: int, step: int, *, last: bool) -> None:
        """Begin to save; a finite loss may still have had a gradient that is not."""
        is_finite = self.team.has_finite_weights() and self._meter.is_finite()
        broken = self.runtime.start_flags([float(not is_finite)]).wait()
        if broken.item():
            self._saver.wait()
            raise UserError(
                "The weights or the losses are no longer finite. Lower the learning rate (--lr, now"
                f" {self.config.lr:g}) or use --precision fp32. The last good checkpoint stays"
                f" in {self._checkpoints}.",
                told=not self.runtime.is_first,
            )
        learners = self.team.learners
        parts = parts_of(self.runtime, learners, self.ledger, self._meter, self.feed.loader)
        meta = meta_of(self.runtime, self.last, epoch_ended=step == 0)
        self._saver.save(epoch, step, parts, {**meta, **self._identity}, last=last)
        self._saved_at = time.monotonic()

    def _restore(self) -> tuple[int, int]:
        found = self.runtime.on_first(lambda: find_newest(self._checkpoints))
        found = self.runtime.broadcast(found)
        if found is None:
            return 0, 0
        path, meta = found
        epoch, step = int(meta["epoch"]), int(meta["step"])
        # At a round's first step the loop makes fresh networks; the saved ones are the old round's.
        last_trained = epoch if step else max(0, epoch - 1)
        self._begin_round(self._progress(last_trained, 0).round)
        restore(
            path, meta, self.runtime, self.team.learners, self.ledger, self._meter, self.feed.loader
        )
        if meta["last"] is not None:
            self.last = EpochMetrics(**{**meta["last"], "loss": tuple(meta["last"]["loss"])})
        return epoch, step
