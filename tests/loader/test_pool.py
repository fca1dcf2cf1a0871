"""A loader's threads: how many work, which error is told and when, and none holds up an end."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from thresher.loader.pool import Pool


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(4)
    yield made
    made.close()


def fail(message: str) -> Callable[[], None]:
    def task() -> None:
        raise RuntimeError(message)

    return task


def test_all_tasks_are_done(pool: Pool) -> None:
    done: list[int] = []
    works = [pool.start([lambda n=n: done.append(n) for n in range(at, at + 9)]) for at in (0, 9)]
    pool.finish(works)
    pool.finish(works[1:])
    assert sorted(done) == list(range(18))
    pool.finish([pool.start([])])


def test_of_several_errors_the_first_in_order_is_told(pool: Pool) -> None:
    def late() -> None:
        time.sleep(0.2)
        raise RuntimeError("first")

    works = [pool.start([lambda: None, late]), pool.start([fail("second"), fail("third")])]
    with pytest.raises(RuntimeError, match="first"):
        pool.finish(works)


def test_an_error_does_not_wait_for_what_stalls(pool: Pool) -> None:
    go_on = threading.Event()
    works = [pool.start([go_on.wait]), pool.start([lambda: None, fail("told")])]
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="told"):
        pool.finish(works)
    assert time.monotonic() - started < 5
    go_on.set()


def test_what_is_cancelled_or_dropped_is_not_begun() -> None:
    pool = Pool(1)
    go_on, begun = threading.Event(), []
    first = pool.start([go_on.wait, lambda: begun.append(1)])
    dropped = pool.start([lambda: begun.append(2)])
    first.cancel()
    go_on.set()
    pool.finish([first])
    pool.finish([dropped])
    assert begun == [2]
    stopped = pool.start([lambda: time.sleep(0.2), lambda: begun.append(3)])
    pool.close()
    assert stopped.is_cancelled
    assert begun == [2]


def test_closing_leaves_a_stalled_thread_to_itself() -> None:
    pool = Pool(3)
    go_on = threading.Event()
    pool.start([go_on.wait, go_on.wait])
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 8
    go_on.set()


def test_only_so_many_work_at_a_time(pool: Pool) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def task() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1

    for size in (2, 1, 3):
        pool.resize(size)
        pool.finish([pool.start([task] * 4)])  # those that are too many end before or with these
        most[0] = 0
        pool.finish([pool.start([task] * 12)])
        assert most[0] <= size
    assert most[0] == 3


def test_nothing_keeps_what_tasks_worked_for(pool: Pool) -> None:
    class Batch:
        def fill(self) -> None:
            pass

    batch = Batch()
    gone = weakref.ref(batch)
    gc.disable()
    try:
        batch.work = pool.start([batch.fill] * 8)  # type: ignore[attr-defined]
        pool.finish([batch.work])  # type: ignore[attr-defined]
        del batch
        deadline = time.monotonic() + 10
        while gone() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert gone() is None
    finally:
        gc.enable()


def test_threads_of_a_pool_that_nobody_holds_end() -> None:
    before = threading.active_count()
    pool = Pool(3)
    pool.finish([pool.start([lambda: None] * 9)])
    assert threading.active_count() == before + 3
    del pool
    gc.collect()
    assert threading.active_count() == before
