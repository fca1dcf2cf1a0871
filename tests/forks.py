"""Processes as forks of one that has imported what takes long, so that they start at once.

Each is a process of its own that imports Thresher and runs ``thresher WORDS``. A fresh one takes
seconds to import PyTorch and what comes with it, more than most of these tests take.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

SLOW_IMPORTS = (
    "jsonargparse", "lightning_fabric", "pyarrow.parquet", "rich.progress", "timm", "torch._dynamo",
    "torch.utils.tensorboard", "torchvision.transforms.v2",
)  # fmt: skip
SECONDS = 120
Before = Callable[[int], None]
"""``before(rank)`` runs in a rank before Thresher does."""


@dataclass(frozen=True)
class Place:
    """Of a process among those that are started with it.

    Attributes:
        port: where they meet.
    """

    rank: int
    size: int
    port: int


class Forked:
    """A process that was started; what of ``subprocess.Popen`` the tests use."""

    def __init__(self, process: BaseProcess, folder: Path) -> None:
        self._process = process
        self._folder = folder
        assert process.pid is not None
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        """Negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """See ``returncode``."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        """Until it has ended.

        Raises:
            TimeoutExpired: it has not in time.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("thresher", timeout or 0.0, stderr=self._said("err"))

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait, and read what it printed and what it said to stderr."""
        self.wait(timeout)
        said = self._said("out"), self._said("err")
        shutil.rmtree(self._folder, ignore_errors=True)
        return said

    def send_signal(self, number: int) -> None:
        """To the process alone."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """By SIGKILL, if it still runs."""
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)

    def _said(self, stream: str) -> str:
        path = self._folder / stream
        return path.read_text() if path.exists() else ""


@dataclass(frozen=True)
class Ended:
    """What came of all ranks.

    Attributes:
        codes: exit codes of all.
        said: what they wrote to stderr.
        printed: what the first one wrote to stdout.
    """

    codes: list[int]
    said: str
    printed: str


def start(
    place: Place, words: Sequence[object], code: str = "", before: Before | None = None
) -> Forked:
    """Start ``thresher WORDS`` in one process, as torchrun would if there are several.

    Args:
        place: among the others.
        words: of the command line.
        code: runs before Thresher.
        before: likewise.
    """
    folder = Path(tempfile.mkdtemp())
    line = [str(word) for word in words]
    process = context().Process(
        target=_main, args=(place, line, dict(os.environ), folder, code, before)
    )
    process.start()
    return Forked(process, folder)


def run(size: int, *words: object, before: Before | None = None) -> Ended:
    """Run ``thresher WORDS`` in several ranks to their end."""
    port = free_port()
    ranks = [start(Place(rank, size, port), words, before=before) for rank in range(size)]
    with ExitStack() as until:
        for rank in ranks:
            until.callback(rank.kill)
        said = [rank.communicate(SECONDS) for rank in ranks]
    return Ended(
        [rank.returncode or 0 for rank in ranks],
        "".join(errors for _, errors in said),
        said[0][0],
    )


def thresher(*words: object) -> subprocess.CompletedProcess[str]:
    """Run ``thresher WORDS`` in one process to its end; a warning is an error."""
    ended = run(1, *words, before=_be_strict)
    return subprocess.CompletedProcess(words, ended.codes[0], ended.printed, ended.said)


def _be_strict(rank: int) -> None:
    warnings.simplefilter("error")


def trained(size: int, *words: object, out: Path, before: Before | None = None) -> Path:
    """Train or resume, and see that it went well."""
    ended = run(size, "train", *words, "--out", out, before=before)
    assert ended.codes == [0] * size, ended.said
    return out


def free_port() -> int:
    """One that nobody listens at, for now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@functools.cache
def context() -> ForkServerContext:
    """Starts processes as forks of the one that has imported what takes long."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(list(SLOW_IMPORTS))
    return made


def _main(
    place: Place,
    words: Sequence[str],
    environment: dict[str, str],
    folder: Path,
    code: str,
    before: Before | None,
) -> None:
    os.environ.clear()  # of when the first of these processes was started
    os.environ.update(environment)
    with (folder / "err").open("w") as errors:
        os.dup2(errors.fileno(), 2)
    if place.size > 1:
        os.environ.update(
            RANK=str(place.rank), LOCAL_RANK=str(place.rank), WORLD_SIZE=str(place.size),
            LOCAL_WORLD_SIZE=str(place.size), GROUP_RANK="0", GROUP_WORLD_SIZE="1",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(place.port), TORCHELASTIC_RUN_ID="test",
        )  # fmt: skip
    if before is not None:
        before(place.rank)
    module = sys.modules["before"] = types.ModuleType("before")  # timm looks networks up in theirs
    exec(code, vars(module))
    from thresher.cli import main

    with (folder / "out").open("w") as printed, redirect_stdout(printed):
        sys.exit(main(list(words)))
