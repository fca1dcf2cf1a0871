"""Decoding in processes: the same batches, and an end that is told and leaves nothing behind."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from thresher.errors import UserError
from thresher.loader.make import Maker
from thresher.loader.pipeline import Loader
from thresher.loader.trial import Trial
from thresher.loader.workers import affordable
from thresher.sources.detect import open_source
from thresher.sources.read import Reader

PLAN = np.array([[3, 1, 4], [9, 0, 2], [5, 8, -1], [6, 7, -1]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(10):
        pixels = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
        path = tmp_path / "data" / f"class{index % 2}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels.resize((60 + index, 50)).save(path)
    (tmp_path / "data" / "class0" / "4.jpg").write_bytes(b"no image")
    return tmp_path / "data"


def make(folder: Path, **options: object) -> Loader:
    manifest = open_source(str(folder))
    reader = Reader(manifest)
    settings = {"size": 24, "framing": "random_crop", "seed": 5, "cache": "none", **options}
    return Loader(
        reader.read, np.arange(10), np.zeros(10), place=reader.place, threads=2, **settings
    )


@pytest.mark.parametrize("cache", ["none", "host"])
@pytest.mark.parametrize("framing", ["random_crop", "centre"])
def test_batches_are_those_of_threads_to_the_bit(folder: Path, cache: str, framing: str) -> None:
    def served(decoder: str) -> tuple[list[torch.Tensor], list[list[bool]], dict[int, str]]:
        loader = make(folder, decoder=decoder, cache=cache, framing=framing)
        batches = [batch for epoch in range(2) for batch in loader.batches(epoch, PLAN)]
        loader.close()
        return (
            [batch.canvas for batch in batches],
            [batch.valid.tolist() for batch in batches],
            loader.unreadable,
        )

    expected, got = served("threads"), served("processes")
    for one, other in zip(expected[0], got[0], strict=True):
        assert torch.equal(one, other)
    assert expected[1:] == got[1:]
    assert list(got[2].values()) == ["not an image"]


@pytest.fixture
def children() -> Callable[[], list[psutil.Process]]:
    """The processes below this one that a test has started and that still run."""
    before = set(psutil.Process().children(recursive=True))  # other tests' servers, say
    return lambda: [p for p in psutil.Process().children(recursive=True) if p not in before]


def test_a_killed_worker_ends_the_run_and_names_the_image(
    folder: Path, children: Callable[[], list[psutil.Process]]
) -> None:
    loader = make(folder, decoder="processes")
    plan = np.tile(PLAN, (10_000, 1))
    batches = loader.batches(0, plan)
    next(batches)
    assert 1 <= len(children()) <= 2
    started = time.monotonic()
    for child in children():
        child.kill()
    with pytest.raises(
        UserError, match=r"was killed by signal 9 at the image with the id \d \(/.*data/class\d/\d"
    ):
        list(batches)
    loader.close()
    assert time.monotonic() - started < 10
    assert children() == []


def test_closing_ends_the_processes_and_threads(
    folder: Path, children: Callable[[], list[psutil.Process]]
) -> None:
    before = threading.active_count()
    loader = make(folder, decoder="processes")
    next(loader.batches(0, PLAN))
    loader.close()
    assert children() == []
    assert threading.active_count() == before


def test_what_cannot_be_sent_to_a_process_is_refused() -> None:
    with pytest.raises(UserError, match="Choose --decoder threads"):
        Loader(lambda index: b"", np.arange(2), np.zeros(2), size=8, framing="whole",
               decoder="processes")  # fmt: skip


def test_auto_takes_processes_for_more_threads_than_an_interpreter_feeds(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """For photographs, whose threads do not get into each other's way."""
    monkeypatch.setattr(Trial, "rates", lambda self, counts: {n: 100.0 * n for n in counts})
    monkeypatch.setattr("thresher.loader.choice.FEWEST", 1)
    monkeypatch.setattr("thresher.loader.workers._SHARE", 100)
    reader = Reader(open_source(str(folder)))
    for threads, expected in ((16, False), (17, True)):
        loader = Loader(reader.read, np.arange(10), np.zeros(10), size=8, framing="whole",
                        threads=threads)  # fmt: skip
        assert loader._workers is None  # nothing is decoded yet
        next(loader.batches(0, PLAN[:1]))
        assert (loader._workers is not None) == expected
        assert loader._pool.size == threads
        loader.close()
    assert capfd.readouterr().err.startswith("note: 17 processes decode the images, since")


def test_auto_keeps_to_threads_where_processes_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Trial, "rates", lambda self, counts: {n: 100.0 * n for n in counts})
    monkeypatch.setattr("thresher.loader.choice.FEWEST", 1)
    loader = Loader(lambda index: b"no image", np.arange(10), np.zeros(10), size=8,
                    framing="whole", threads=20)  # fmt: skip
    assert len(list(loader.batches(0, PLAN))) == 4
    assert loader._workers is None
    assert loader._pool.size == 16
    loader.close()
    assert capfd.readouterr().err == ""


def test_processes_are_taken_unasked_only_where_memory_is_plenty(folder: Path) -> None:
    maker = Maker(Reader(open_source(str(folder))).read, "whole")
    assert affordable(maker, 16, 32 * 10**9)
    assert not affordable(maker, 16, 16 * 10**9)
    assert not affordable(Maker(lambda index: b"", "whole"), 1, 10**12)


def stall(sample: int) -> bytes:
    """A server that does not answer."""
    time.sleep(1000)
    return b""


def test_processes_that_stall_are_ended_in_time(
    children: Callable[[], list[psutil.Process]],
) -> None:
    loader = Loader(stall, np.arange(10), np.zeros(10), size=8, framing="whole",
                    decoder="processes", threads=3)  # fmt: skip
    batches = loader.batches(0, PLAN)

    def wait() -> None:
        with contextlib.suppress(UserError):  # of the process that was ended
            next(batches)

    threading.Thread(target=wait, daemon=True).start()
    deadline = time.monotonic() + 60
    while len(children()) < 3 or not all(
        worker.progress[0] >= 0 for worker in loader._workers._all
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = time.monotonic()
    loader.close()
    assert time.monotonic() - started < 10
    assert children() == []


ENDLESS = """
import sys
import numpy as np
from thresher.loader.pipeline import Loader
from thresher.sources.detect import open_source
from thresher.sources.read import Reader
loader = Loader(Reader(open_source(sys.argv[1])).read, np.arange(10), np.zeros(10), size=64,
                framing="random_crop", threads=2, cache="none", decoder="processes")
for batch in loader.batches(0, np.tile(np.arange(10), (100000, 1))):
    print("batch", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_trainer_ends_no_process_stays(folder: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", ENDLESS, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"batch\n"
        workers = psutil.Process(process.pid).children()
        assert workers
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(timeout=10) != 0
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []
