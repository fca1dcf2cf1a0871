"""The threads of a loader: how many work can change, an error is told at once, and none that
stalls is waited for without end.

The last is why they are not those of ``concurrent.futures``: Python waits for these before it
ends, however long a server keeps one of them waiting.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_END_SECONDS = 3.0
"""For threads to finish the image they are at; one that takes longer has stalled."""
_ORDER_SECONDS = 1.0
"""For what comes before a task that failed: which error is told should not depend on chance."""


@dataclass
class _Shared:
    """What the threads know of their pool; the pool itself they must not keep alive."""

    tasks: queue.SimpleQueue[tuple[Work, int] | None] = field(default_factory=queue.SimpleQueue)
    changed: threading.Condition = field(default_factory=threading.Condition)
    threads: list[threading.Thread] = field(default_factory=list)
    is_closed: bool = False


class Work:
    """Tasks that belong together, such as the parts of a batch."""

    def __init__(self, tasks: Sequence[Callable[[], None]], shared: _Shared) -> None:
        self._tasks: list[Callable[[], None] | None] = [*tasks]
        self._shared = shared
        self._is_cancelled = False
        self._left = len(tasks)
        self._is_done = [False] * len(tasks)
        self._errors: dict[int, BaseException] = {}

    def cancel(self) -> None:
        """Leave out what has not begun."""
        self._is_cancelled = True

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for it any more; long tasks look at this now and then."""
        return self._is_cancelled or self._shared.is_closed

    def _run(self, index: int) -> None:
        error = None
        # Let go of it, since what it works for may hold this, and a batch is large.
        task, self._tasks[index] = self._tasks[index], None
        if task is not None and not self.is_cancelled:
            try:
                task()
            except BaseException as caught:
                error = caught
        with self._shared.changed:
            self._is_done[index] = True
            self._left -= 1
            if error is not None:
                self._errors[index] = error
            if self._left == 0 or error is not None:
                self._shared.changed.notify_all()

    def _first_error(self) -> int:
        """The first task that failed so far, or the number of tasks."""
        return min(self._errors, default=len(self._tasks))


class Pool:
    """Threads that take tasks in the order in which they were given.

    Args:
        size: how many; they start with the first task.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._started = 0
        self._shared = _Shared()
        self._end = weakref.finalize(self, _end, self._shared)  # at the latest when Python ends

    def resize(self, size: int) -> None:
        """Let this many threads take what is given from now on."""
        self.size = size
        while self._started > size:
            self._shared.tasks.put(None)
            self._started -= 1

    def start(self, tasks: Sequence[Callable[[], None]]) -> Work:
        """Have these done."""
        while tasks and self._started < self.size:
            thread = threading.Thread(target=_serve, args=(self._shared,), name="decode")
            thread.daemon = True
            thread.start()
            self._shared.threads.append(thread)
            self._started += 1
        work = Work(tasks, self._shared)
        for index in range(len(tasks)):
            self._shared.tasks.put((work, index))
        return work

    def finish(self, works: Sequence[Work]) -> None:
        """Wait until the first of these is done, or a task of any of them has failed.

        Raises:
            BaseException: what the task raised; of several that failed, the first in order.
        """
        changed = self._shared.changed
        with changed:
            changed.wait_for(lambda: works[0]._left == 0 or any(work._errors for work in works))
            if not any(work._errors for work in works):
                return
            until = time.monotonic() + _ORDER_SECONDS
            while not _is_first_known(works) and time.monotonic() < until:
                changed.wait(0.01)  # a task that went well tells nobody
            failed = next(work for work in works if work._errors)
            error = failed._errors[failed._first_error()]
        raise error

    def is_done_within(self, work: Work, seconds: float) -> bool:
        """Wait for a work, but no longer than this; errors in it do not matter."""
        with self._shared.changed:
            return self._shared.changed.wait_for(lambda: work._left == 0, seconds)

    def close(self) -> None:
        """Drop what has not begun and end the threads; one that stalls is left to itself."""
        self._end()


def _is_first_known(works: Sequence[Work]) -> bool:
    """Whether all tasks before the first one that failed are done."""
    for work in works:
        first = work._first_error()
        if not all(work._is_done[:first]):
            return False
        if first < len(work._tasks):
            break
    return True


def _serve(shared: _Shared) -> None:
    """What a thread does."""
    while (task := shared.tasks.get()) is not None:
        work, index = task
        work._run(index)
        del task, work  # a thread that waits must not keep a batch


def _end(shared: _Shared) -> None:
    shared.is_closed = True
    with contextlib.suppress(queue.Empty):
        while True:
            shared.tasks.get_nowait()
    for _ in shared.threads:
        shared.tasks.put(None)
    until = time.monotonic() + _END_SECONDS
    for thread in shared.threads:
        if thread is not threading.current_thread():  # which may have held the pool last
            thread.join(max(0.0, until - time.monotonic()))
