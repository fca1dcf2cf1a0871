"""Ranks as forks of one process that has imported what takes long, so that they start at once.

Each is a process of its own that imports Thresher and runs ``thresher WORDS``.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from tests.dist.runs import free_port

SLOW_IMPORTS = (
    "jsonargparse", "lightning_fabric", "pyarrow.parquet", "rich.progress", "timm", "torch._dynamo",
    "torch.utils.tensorboard", "torchvision.transforms.v2",
)  # fmt: skip
SECONDS = 120
Before = Callable[[int], None]
"""``before(rank)`` runs in a rank before Thresher does."""


@dataclass(frozen=True)
class Ended:
    """What came of all ranks.

    Attributes:
        codes: exit codes of all.
        said: what they wrote to stderr.
    """

    codes: list[int]
    said: str


def run(size: int, *words: object, before: Before | None = None) -> Ended:
    """Run ``thresher WORDS`` in several ranks, as torchrun would start them."""
    context, port = _context(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        errors = [Path(folder, f"{rank}.txt") for rank in range(size)]
        line = [str(word) for word in words]
        ranks = [
            context.Process(target=_rank, args=(rank, size, port, line, errors[rank], before))
            for rank in range(size)
        ]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(SECONDS)
        alive = [rank for rank in ranks if rank.is_alive()]
        for rank in alive:
            rank.kill()
            rank.join()
        said = "".join(path.read_text() for path in errors if path.exists())
        assert not alive, f"a rank did not end\n{said}"
        return Ended([rank.exitcode or 0 for rank in ranks], said)


def trained(size: int, *words: object, out: Path, before: Before | None = None) -> Path:
    """Train or resume, and see that it went well."""
    ended = run(size, "train", *words, "--out", out, before=before)
    assert ended.codes == [0] * size, ended.said
    return out


@functools.cache
def _context() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(SLOW_IMPORTS))
    return context


def _rank(
    rank: int, size: int, port: int, words: Sequence[str], errors: Path, before: Before | None
) -> None:
    with errors.open("w") as said:
        os.dup2(said.fileno(), 2)
    if size > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size),
            LOCAL_WORLD_SIZE=str(size), GROUP_RANK="0", GROUP_WORLD_SIZE="1",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test",
        )  # fmt: skip
    if before is not None:
        before(rank)
    from thresher.cli import main

    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        sys.exit(main(list(words)))
