"""A rank that is stopped in the middle, its connections open, is named, also the first one."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import write_classes
from tests.dist.runs import free_port, rank, sentences
from tests.dist.test_elastic import newest
from thresher.dist.cores import Binding, first_here_but_0
from thresher.dist.errors import PeersLostError, name_lost_peers
from thresher.dist.store import HashStore, StoreSilentError, within
from thresher.dist.watch import Watch

PEER_TIMEOUT = 5


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_rank_is_named(frozen: int, tmp_path: Path) -> None:
    """The first rank hosts the store in which the others look for who stalls."""
    data = write_classes(tmp_path / "data", per_class=60)
    out, port = tmp_path / "run", free_port()
    words = [
        "train", data, "--out", out, "--method", "ce", "--epochs", 500, "--batch-size", 12,
        "--image-size", 16, "--val-share", 0, "--accelerator", "cpu", "--threads", 1,
        "--checkpoint-minutes", 0, "--peer-timeout", PEER_TIMEOUT,
    ]  # fmt: skip
    ranks = [rank(number, 2, port, words) for number in range(2)]
    try:
        give_up = time.monotonic() + 120
        while newest(out) is None:
            assert time.monotonic() < give_up, "no checkpoint within two minutes"
            assert [process.poll() for process in ranks] == [None, None]
            time.sleep(0.05)
        os.kill(ranks[frozen].pid, signal.SIGSTOP)
        began = time.monotonic()
        (code,), said = sentences([ranks[1 - frozen]])
        took = time.monotonic() - began
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert code == 75
    assert len(said) == 1
    assert f"rank {frozen} of 2 says nothing any more" in said[0]
    assert "go on with --resume" in said[0]
    assert took < 4 * PEER_TIMEOUT


class _Silent(HashStore):
    """A store that takes what it is given and never answers, as behind a machine without power."""

    def multi_get(self, keys: list[str]) -> list[bytes]:
        threading.Event().wait()
        return super().multi_get(keys)


def test_where_the_store_is_silent_a_deputy_speaks() -> None:
    said: dict[int, str | None] = {}
    ended = threading.Semaphore(0)

    def end(rank: int, sentence: str | None) -> None:
        said[rank] = sentence
        ended.release()

    store = _Silent()
    watches = [
        Watch(lambda: store, rank, 5, 0.5, end=partial(end, rank), deputy=rank in (1, 3))
        for rank in (1, 2, 3, 4)
    ]
    for _ in watches:
        assert ended.acquire(timeout=20)
    for watch in watches:
        watch.close()
    sentence = "rank 0 of 5 says nothing any more: no step for 0.5 s, while the others wait"
    assert said == {1: sentence, 2: None, 3: sentence, 4: None}


def test_each_machine_has_a_deputy_who_is_not_the_first_rank() -> None:
    everyone = [Binding(name, (0,)) for name in "aabbc"]
    assert [first_here_but_0(mine, everyone) for mine in everyone] == [1, 1, 2, 2, 4]
    alone = [Binding(name, (0,)) for name in "ab"]
    assert [first_here_but_0(mine, alone) for mine in alone] == [None, 1]


def test_what_nobody_answers_ends() -> None:
    assert within(5, lambda: 3) == 3
    with pytest.raises(KeyError, match="mine"):
        within(5, lambda: {}["mine"])
    with pytest.raises(StoreSilentError), name_lost_peers(1):
        within(0.1, threading.Event().wait)
    lost = pytest.raises(PeersLostError, match=r"rank 0 has not answered for 0\.1 s")
    with lost, name_lost_peers(2):
        within(0.1, threading.Event().wait)
