"""Whole training steps, recorded once as a CUDA graph and then replayed.

A small network's step consists of a thousand short kernels, which a GPU finishes faster than the
host can start them. A recorded step is started as one. The price: it always reads and writes the
same memory, so what changes from step to step (images, learning rate, the average's share, the
moment) is written there first, and it repeats what the host did when it was recorded. Hence one
recording for each ``mode`` of the method.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from thresher.loader.transfer import Sent
from thresher.train.recorder import Mark, Recorder, Replay
from thresher.train.team import Team
from thresher.train.together import Together
from thresher.types import Progress

WARM_UP = 3
"""Steps computed before one is recorded: kernels are chosen, buffers of optimizers made."""
WAYS = IN_TURN, AT_ONCE = "in turn", "at once"
"""To run several networks on a GPU; see ``train/together.py``."""
TRIALS = 10
"""Steps that each way is timed for."""
_REFUSALS = (RuntimeError, ValueError, AssertionError)
"""What is raised by work that cannot be done or recorded in some way."""

Whole = Callable[[Sent, Progress], None]
"""A whole step on what arrived: the device's part of it, and nothing that the host keeps."""


@dataclass
class _Recording:
    """The steps of one mode.

    Attributes:
        seen: steps until now.
        ways: replays that do the same, by name; one of them is left in the end.
        spans: marks before and after each timed replay, by way.
    """

    seen: int = 0
    ways: dict[str, Replay] = field(default_factory=dict)
    spans: dict[str, list[tuple[Mark, Mark]]] = field(default_factory=dict)


class Captured:
    """Makes steps, recorded where that can be.

    Args:
        recorder: records them.
        device: that computes.
        together: if given, recordings with the networks in turn and at once are both made where
            that can be, and the quicker one is kept.
        networks: that are trained.
        say: takes a line for the user.
    """

    def __init__(
        self,
        recorder: Recorder,
        device: torch.device,
        together: Together | None,
        networks: int,
        say: Callable[[str], None],
    ) -> None:
        self._recorder = recorder
        self._together = together
        self._networks = networks
        self._say = say
        self._ways: tuple[str, ...] = (IN_TURN,) if together is None else WAYS
        self._recordings: dict[Hashable, _Recording] = {}
        self._inputs: Sent | None = None
        self._moment = _Moment(device)
        self._failed = False  # each step is computed

    def make(self, sent: Sent, progress: Progress, lr: float, team: Team, whole: Whole) -> None:
        """One step, however it is made."""
        recording = self._recordings.setdefault(progress.mode, _Recording())
        recording.seen += 1
        warm = recording.seen == WARM_UP and not self._failed
        if warm:
            for learner in team.learners.values():
                learner.keep_scalars_on_device()
        team.prepare(lr)
        if self._failed or recording.seen < WARM_UP:
            self._compute(whole, sent, progress)
            return
        inputs, moment = self._take(sent, progress)
        if warm:
            self._compute(whole, inputs, moment)
            return
        if not recording.ways:
            failure = self._record(recording, partial(whole, inputs, moment), team)
            if failure is not None:
                # Outside of the handler, whose error holds all that the recording had made.
                self._give_up(failure)
                self._compute(whole, sent, progress)
                return
        self._replay(recording)

    def _compute(self, whole: Whole, sent: Sent, progress: Progress) -> None:
        with self._recorder.aside():
            whole(sent, progress)

    def _take(self, sent: Sent, progress: Progress) -> tuple[Sent, Progress]:
        """Put what is new where the recordings read it."""
        if self._inputs is None:
            self._inputs = tuple(torch.empty_like(tensor) for tensor in sent)
        for place, tensor in zip(self._inputs, sent, strict=True):
            place.copy_(tensor, non_blocking=True)
        return self._inputs, self._moment.set(progress)

    def _record(self, recording: _Recording, work: Callable[[], None], team: Team) -> str | None:
        """Record the ways that are still in question; why none could be, if so."""
        failure = None
        for way in self._ways:
            arranged: AbstractContextManager[None] = contextlib.nullcontext()
            if way == AT_ONCE and self._together is not None:
                arranged = self._together.on_streams(self._networks)
            try:
                with arranged:
                    recording.ways[way] = self._recorder.record(way, work)
            except _REFUSALS as error:
                failure = _first_line(error)
                team.forget()
        self._ways = tuple(recording.ways)
        return None if recording.ways else failure

    def _replay(self, recording: _Recording) -> None:
        if len(recording.ways) == 1:
            next(iter(recording.ways.values()))()
            return
        name = min(recording.ways, key=lambda way: len(recording.spans.get(way, ())))
        before = self._recorder.mark()
        recording.ways[name]()
        spans = recording.spans.setdefault(name, [])
        spans.append((before, self._recorder.mark()))
        if min(len(recording.spans.get(way, ())) for way in recording.ways) == TRIALS:
            self._choose(recording)

    def _choose(self, recording: _Recording) -> None:
        """Keep the quickest way; the marks of all have been reached when the last one is."""
        for spans in recording.spans.values():
            spans[-1][1].synchronize()
        times = {
            way: statistics.median(start.elapsed_time(end) for start, end in spans)
            for way, spans in recording.spans.items()
        }
        best = min(times, key=lambda way: times[way])
        if len(self._recordings) == 1:
            told = ", ".join(f"{way} {ms:.2f} ms" for way, ms in times.items())
            self._say(f"The networks run {best} on the GPU (a step takes {told}).")
        recording.ways = {best: recording.ways[best]}
        recording.spans.clear()
        self._ways = (best,)
        self._recorder.free()

    def _give_up(self, reason: str) -> None:
        """Compute all further steps one operation after the other."""
        self._failed = True
        self._recordings = {}
        self._inputs = None
        self._recorder.free()
        self._say(f"Steps are not recorded as a CUDA graph, since that failed ({reason}).")


def _first_line(error: BaseException) -> str:
    """Of what went wrong first."""
    while error.__context__ is not None:
        error = error.__context__
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


class _Moment:
    """The counts of ``Progress`` that change within a run, in the device's memory."""

    _NAMES = ("epoch", "step", "round", "round_epoch", "round_epochs")

    def __init__(self, device: torch.device) -> None:
        self._scalars = {
            name: torch.zeros((), dtype=torch.int64, device=device) for name in self._NAMES
        }
        self._last: dict[str, int] = {}

    def set(self, progress: Progress) -> Progress:
        """Take over the counts; the moment in which they are read from the device."""
        for name, scalar in self._scalars.items():
            value = getattr(progress, name)
            if self._last.get(name) != value:
                scalar.fill_(value)
                self._last[name] = value
        scalars: dict[str, Any] = dict(self._scalars)
        return progress._replace(**scalars)
