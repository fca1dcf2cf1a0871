from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from thresher.dist.runtime import Runtime
from thresher.train.together import Together


@pytest.fixture
def four_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime("cpu", "fp32")


@pytest.mark.usefixtures("four_threads")
def test_each_network_gets_its_share_of_the_cores(runtime: Runtime) -> None:
    meet = threading.Barrier(2, timeout=30)

    def work(item: int) -> tuple[int, int]:
        meet.wait()  # passes only if both really run at once
        torch.ones(8) @ torch.ones(8)
        return item, torch.get_num_threads()

    with Together(2, runtime) as together:
        assert together.map(work, [10, 20]) == [(10, 2), (20, 2)]
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_dropout_makes_them_take_turns(runtime: Runtime) -> None:
    with Together(2, runtime) as together:
        together.allow([nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0))])
        assert torch.get_num_threads() == 2
        together.allow([nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))])
        assert torch.get_num_threads() == 4
        caller = threading.get_ident()
        assert together.map(lambda _: threading.get_ident(), range(2)) == [caller] * 2


@pytest.mark.usefixtures("four_threads")
def test_one_network_keeps_all_cores(runtime: Runtime) -> None:
    with Together(1, runtime) as together:
        assert together.map(lambda _: torch.get_num_threads(), [0]) == [4]


def test_an_error_in_a_network_is_not_lost(runtime: Runtime) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("no")

    with Together(2, runtime) as together, pytest.raises(RuntimeError, match="no"):
        together.map(fail, range(2))
