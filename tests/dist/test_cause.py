"""Which process the launcher blames, where several failed."""

from __future__ import annotations

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from thresher.dist.launch import _cause, _explain

LOST, KILLED, STOPPED, SEGFAULT = 75, -9, -15, -11


def failed(*codes_and_seconds: tuple[int, int]) -> ChildFailedError:
    failures = {}
    for rank, (code, second) in enumerate(codes_and_seconds):
        failure = ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file="none")
        failure.timestamp = second
        failures[rank] = failure
    return ChildFailedError("thresher", failures)


@pytest.mark.parametrize(
    ("failures", "rank", "code"),
    [
        # Seen in the same look, and one that ends between two seconds.
        ([(LOST, 100), (KILLED, 100)], 1, KILLED),
        ([(LOST, 100), (LOST, 100), (SEGFAULT, 101)], 2, SEGFAULT),
        ([(LOST, 100), (1, 100)], 1, 1),
        # The agent ends the others itself: a frozen one is asked to, and killed a minute later.
        ([(LOST, 100), (STOPPED, 100)], 0, LOST),
        ([(LOST, 100), (KILLED, 160)], 0, LOST),
        ([(LOST, 100), (LOST, 100)], 0, LOST),
        ([(STOPPED, 101), (KILLED, 100)], 1, KILLED),
    ],
)
def test_a_lost_peer_is_not_the_fault_of_who_lost_it(
    failures: list[tuple[int, int]], rank: int, code: int
) -> None:
    assert _cause(failed(*failures)) == (rank, code)


def test_the_killed_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert _explain(failed((LOST, 100), (KILLED, 100))) == 128 + 9
    assert "rank 1 was ended by SIGKILL, as when" in capsys.readouterr().err
