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
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from thresher.loader.transfer import Sent, new_stream
from thresher.train.team import Team
from thresher.train.together import Together
from thresher.types import Progress

WARM_UP = 3
"""Steps computed before one is recorded: kernels are chosen, buffers of optimizers made."""
TRIALS = 10
"""Steps that each way of running two networks is timed for."""

Replay = Callable[[], None]
Whole = Callable[[Sent, Progress], None]
"""A whole step on what arrived: the device's part of it, and nothing that the host keeps."""


class Mark(Protocol):
    """A moment on the device."""

    def synchronize(self) -> None:
        """Wait until the device reaches it."""

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds from here to another one."""


class Recorder(Protocol):
    """Records work; CUDA's, or a stand-in."""

    def aside(self) -> AbstractContextManager[None]:
        """Where work runs that is to be recorded later."""

    def record(self, work: Callable[[], None]) -> Replay:
        """What does the work again, on the same memory; the work is not done now."""

    def mark(self) -> Mark:
        """A mark that the device reaches after all work until now."""


class CudaRecorder:
    """CUDA graphs, all in one pool of memory, since only one of them runs at a time.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = new_stream(device)
        self._pool: Any = None

    @contextlib.contextmanager
    def aside(self) -> Any:
        """On a stream of its own, where recordings are made too."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> Replay:
        """See ``Recorder``.

        Raises:
            RuntimeError: the work waits for the device, or does something else that no graph can.
        """
        graph = torch.cuda.CUDAGraph()
        # Only this thread is watched: others may allocate pinned memory at any time.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            work()
        self._pool = graph.pool()
        return graph.replay

    def mark(self) -> torch.cuda.Event:
        """See ``Recorder``."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


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
    """Makes the steps of one round.

    Args:
        recorder: records them.
        device: that computes.
        together: if given, recordings with the networks in turn and at once are both made, and the
            quicker one is kept.
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
        self._recordings: dict[Hashable, _Recording] = {}
        self._inputs: Sent | None = None
        self._moment = _Moment(device)
        self._failed = False

    def make(self, sent: Sent, progress: Progress, lr: float, team: Team, whole: Whole) -> None:
        """One step, however it is made."""
        recording = self._recordings.setdefault(progress.mode, _Recording())
        recording.seen += 1
        if recording.seen == WARM_UP and not self._failed:
            for learner in team.learners.values():
                learner.keep_scalars_on_device()
        team.prepare(lr)
        if self._failed or recording.seen <= WARM_UP:
            with self._recorder.aside():
                whole(sent, progress)
            return
        self._take(sent, progress)
        if not recording.ways:
            try:
                recording.ways = self._record(progress, whole)
            except RuntimeError as error:
                self._give_up(error, team)
                with self._recorder.aside():
                    whole(sent, progress)
                return
        self._replay(recording)

    def _take(self, sent: Sent, progress: Progress) -> None:
        """Put what is new where the recordings read it."""
        if self._inputs is None:
            self._inputs = tuple(torch.empty_like(tensor) for tensor in sent)
        for place, tensor in zip(self._inputs, sent, strict=True):
            place.copy_(tensor, non_blocking=True)
        self._moment.set(progress)

    def _record(self, progress: Progress, whole: Whole) -> dict[str, Replay]:
        assert self._inputs is not None
        inputs, moment = self._inputs, self._moment.on_device(progress)
        ways = {"in turn": self._recorder.record(lambda: whole(inputs, moment))}
        if self._together is not None:
            with self._together.on_streams(self._networks):
                ways["at once"] = self._recorder.record(lambda: whole(inputs, moment))
        return ways

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

    def _give_up(self, error: RuntimeError, team: Team) -> None:
        """Compute all further steps one operation after the other."""
        self._failed = True
        self._recordings = {}
        team.forget()
        root: BaseException = error
        while root.__context__ is not None:
            root = root.__context__
        line = str(root).strip().splitlines()[0] if str(root).strip() else type(root).__name__
        self._say(f"Steps are not recorded as a CUDA graph, since that failed ({line}).")


class _Moment:
    """The counts of ``Progress`` that change within a round, in the device's memory."""

    _NAMES = ("epoch", "step", "round_epoch")

    def __init__(self, device: torch.device) -> None:
        self._scalars = {
            name: torch.zeros((), dtype=torch.int64, device=device) for name in self._NAMES
        }
        self._last: dict[str, int] = {}

    def set(self, progress: Progress) -> None:
        for name, scalar in self._scalars.items():
            value = getattr(progress, name)
            if self._last.get(name) != value:
                scalar.fill_(value)
                self._last[name] = value

    def on_device(self, progress: Progress) -> Progress:
        scalars: dict[str, Any] = dict(self._scalars)
        return replace(progress, **scalars)
