"""The training loop: it alone steps, averages, records, measures and saves. Methods only decide."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thresher.config import ResolvedConfig
from thresher.dist.runtime import Runtime
from thresher.errors import UserError
from thresher.ledger.history import LedgerHistory
from thresher.ledger.ledger import Ledger
from thresher.loader.feed import Feed
from thresher.methods.base import Method
from thresher.train.checkpoint import load_newest, save_checkpoint
from thresher.train.evaluate import Score
from thresher.train.interrupt import Interrupted, StopRequest
from thresher.train.learner import Learner, MakeLearner
from thresher.train.meter import EpochMetrics, Meter
from thresher.train.schedule import triangle
from thresher.train.together import Together
from thresher.types import Networks, Progress

CLOCK_EVERY = 50
"""Steps between two looks at the clock and, on a GPU, at the losses' finiteness."""


@dataclass(frozen=True)
class Listener:
    """Who hears how the run goes; what a step came to is worked out only if asked for."""

    on_start: Callable[[int], None]
    on_step: Callable[[Progress, Callable[[Progress], EpochMetrics]], None]
    on_epoch: Callable[[EpochMetrics], None]


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
        measure: Callable[[Sequence[Learner]], Score] | None,
        checkpoints: Path,
        identity: dict[str, Any],
        listener: Listener,
    ) -> None:
        assert sum(method.rounds) == config.epochs, "a method's rounds make up the run"
        self.config = config
        self.runtime = runtime
        self.method = method
        self.feed = feed
        self.ledger = ledger
        self.history = LedgerHistory(ledger, runtime.sum)
        self.learners: list[Learner] = []
        self.last: EpochMetrics | None = None
        self._make_learner = make_learner
        self._measure = measure
        self._checkpoints = checkpoints
        self._identity = identity
        self._listener = listener
        self._meter = Meter(method.networks, runtime.device)
        self._together = Together(method.networks, runtime)
        self._saved_at = time.monotonic()

    def run(self, resume: bool) -> None:
        """Train to the end.

        Raises:
            UserError: a loss is not finite; the last good checkpoint stays.
            Interrupted: asked to stop; a checkpoint was saved first.
        """
        epoch, step = self._restore() if resume else (0, 0)
        self._listener.on_start(epoch)
        with StopRequest() as stop, self._together:
            for current in range(epoch, self.config.epochs):
                self._train_epoch(current, step, stop)
                step = 0
                last = current == self.config.epochs - 1
                if last or stop.requested or self._save_is_due():
                    self._save(current + 1, 0)
                if stop.requested and not last:
                    raise Interrupted(stop.signal)

    def _train_epoch(self, epoch: int, start: int, stop: StopRequest) -> None:
        steps = self.feed.order.steps
        progress = self._progress(epoch, start)
        if start == 0:
            self._meter = Meter(self.method.networks, self.runtime.device)
            if progress.round_epoch == 0:
                self.learners = [
                    self._make_learner(index, progress.round)
                    for index in range(self.method.networks)
                ]
            self.ledger.overwrite(self.method.begin_epoch(self.history, progress))
        self._together.allow(learner.module for learner in self.learners)
        networks = Networks(tuple(learner.network for learner in self.learners), self._together.map)
        self._meter.resume_clock(self.feed.loader.wait_seconds)
        for step, (batch, positions) in enumerate(self.feed.epoch(epoch, start), start):
            progress = self._progress(epoch, step)
            result = self.method.step(
                networks,
                batch,
                self.ledger.rows(positions),
                progress,
            )
            self._meter.add(result, batch.valid)
            if self.runtime.device.type == "cpu" or step % CLOCK_EVERY == 0:
                self._refuse_non_finite(progress)
            totals = self.runtime.sum(torch.stack([w.detach() for w in result.weight_sums]))
            self._apply(result.loss_sums, totals, self._learning_rate(progress))
            self.ledger.update(positions, batch.valid, result.records)
            self._listener.on_step(progress, self._metrics_so_far)
            if step + 1 < steps and (
                stop.requested or (step % CLOCK_EVERY == 0 and self._save_is_due())
            ):
                self._refuse_non_finite(progress)
                self._save(epoch, step + 1)
                if stop.requested:
                    raise Interrupted(stop.signal)
        self._refuse_non_finite(progress)
        self._finish_epoch(progress)

    def _apply(self, loss_sums: Sequence[Tensor], weight_totals: Tensor, lr: float) -> None:
        """One step of every network down its mean loss over the global weight."""
        # Gradients are averaged over ranks, so the mean over all weights needs the factor.
        scales = self.runtime.world_size / weight_totals.clamp(min=1.0)
        losses = [loss * scale for loss, scale in zip(loss_sums, scales, strict=True)]

        def apply(index: int) -> None:
            self.learners[index].apply(losses[index], lr)

        self._together.map(apply, range(len(self.learners)))

    def _finish_epoch(self, progress: Progress) -> None:
        timing = self._meter.stop_clock(self.feed.loader.wait_seconds)
        done = progress.epoch + 1
        due = done % self.config.eval_every == 0 or done == self.config.epochs
        score = self._measure(self.learners) if due and self._measure else None
        totals = self.runtime.sum(self._meter.sums)
        rate = self._learning_rate(progress)
        self.last = self._meter.summary(progress, timing, totals, score, rate)
        self._listener.on_epoch(self.last)

    def _metrics_so_far(self, progress: Progress) -> EpochMetrics:
        """This rank's epoch until now; waits for the device."""
        timing = self._meter.so_far(self.feed.loader.wait_seconds)
        rate = self._learning_rate(progress)
        return self._meter.summary(progress, timing, self._meter.sums, None, rate)

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
        if self._meter.is_finite():
            return
        raise UserError(
            f"The loss is no longer finite (epoch {progress.epoch + 1}, seen at step"
            f" {progress.step + 1} of {progress.steps}). Lower the learning rate (--lr, now"
            f" {self.config.lr:g}) or use --precision fp32. The last good checkpoint stays in"
            f" {self._checkpoints}."
        )

    def _refuse_broken_weights(self) -> None:
        """A finite loss may still have had a gradient that is not; such weights are not kept."""
        for learner in self.learners:
            if not all(bool(torch.isfinite(p).all()) for p in learner.module.parameters()):
                raise UserError(
                    "The weights are no longer finite. Lower the learning rate (--lr, now"
                    f" {self.config.lr:g}) or use --precision fp32. The last good checkpoint stays"
                    f" in {self._checkpoints}."
                )

    def _save_is_due(self) -> bool:
        due = time.monotonic() - self._saved_at > 60 * self.config.checkpoint_minutes
        return self.runtime.broadcast(due) if self.runtime.world_size > 1 else due

    def _save(self, epoch: int, step: int) -> None:
        self._refuse_broken_weights()
        state = {
            "learners": [learner.state_dict() for learner in self.learners],
            "meter": self._meter.state_dict(),
            "last": None if self.last is None else dataclasses.asdict(self.last),
            "unreadable": dict(self.feed.loader.unreadable),
            "random": torch.get_rng_state(),
        }
        parts = {"state": state, f"ledger-{self.runtime.rank}": self.ledger.state_dict()}
        save_checkpoint(
            self._checkpoints, epoch, step, parts, self._identity, self.config.keep_checkpoints
        )
        self._saved_at = time.monotonic()

    def _restore(self) -> tuple[int, int]:
        found = load_newest(self._checkpoints)
        if found is None:
            return 0, 0
        meta, parts = found
        epoch, step = int(meta["epoch"]), int(meta["step"])
        state = parts["state"]
        # At a round's first step the loop makes fresh networks; the saved ones are the old round's.
        last_trained = epoch if step else max(0, epoch - 1)
        round_index = self._progress(last_trained, 0).round
        self.learners = [
            self._make_learner(index, round_index) for index in range(self.method.networks)
        ]
        for learner, saved in zip(self.learners, state["learners"], strict=True):
            learner.load_state_dict(saved)
        self._meter.load_state_dict(state["meter"])
        self.last = EpochMetrics(**state["last"]) if state["last"] else None
        self.feed.loader.unreadable.update(state["unreadable"])
        self.ledger.load_state_dict(parts[f"ledger-{self.runtime.rank}"])
        torch.set_rng_state(state["random"])
        return epoch, step
