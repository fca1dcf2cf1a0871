"""What ranks must agree on, who stalls, and how cores are shared: each by itself."""

from __future__ import annotations

import itertools
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from thresher import ranks
from thresher.dist import cores
from thresher.dist.agree import first_difference, join_errors
from thresher.dist.cores import Binding, binding, is_crowded, ranks_here, share_of_cores
from thresher.dist.errors import PeersLostError, name_lost_peers
from thresher.dist.gradients import flatten, running_statistics, unflatten_into
from thresher.dist.group import Group
from thresher.dist.launchers import check_devices, local_size
from thresher.dist.quota import Quota, cpu_quota
from thresher.dist.runtime import Runtime
from thresher.dist.store import HashStore
from thresher.dist.watch import Watch
from thresher.errors import UserError
from thresher.train.flags import Flags
from thresher.train.interrupt import StopRequest


def test_the_first_difference_is_named_with_its_rank() -> None:
    same = {"--lr": 0.1, "the list of classes": "cat, dog"}
    assert first_difference([same, dict(same)]) is None
    other = {**same, "--lr": 0.2}
    assert first_difference([same, dict(same), other]) == "--lr is 0.2 on rank 2, but 0.1 on rank 0"
    missing = {"--lr": 0.1}
    assert first_difference([same, missing]) == (
        "the list of classes is None on rank 1, but 'cat, dog' on rank 0"
    )


def test_one_sentence_for_all_ranks_troubles() -> None:
    assert join_errors([None, None]) is None
    assert join_errors(["no data", "no data"]) == "no data"
    assert join_errors([None, "no data", None]) == "rank 1: no data"
    assert join_errors([None, "no data", "no disk"]) == "rank 1 (and 1 more): no data"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LOCAL_WORLD_SIZE": "4"}, 4),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 2),
        ({"SLURM_STEP_TASKS_PER_NODE": "3(x2),2", "SLURM_NODEID": "1"}, 3),
        ({"SLURM_STEP_TASKS_PER_NODE": "3(x2),2", "SLURM_NODEID": "2"}, 2),
        ({}, 8),
    ],
)
def test_processes_on_this_machine(environment: dict[str, str], expected: int) -> None:
    assert local_size(environment, 8) == expected


def test_one_process_of_each_machine_speaks_before_the_launch() -> None:
    assert ranks.rank({"SLURM_PROCID": "3"}) == 3
    assert ranks.rank({}) == 0
    assert ranks.speaks_before_launch({"RANK": "4", "LOCAL_RANK": "0"})
    assert not ranks.speaks_before_launch({"RANK": "1", "LOCAL_RANK": "1"})


SLURM = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RANK": "1", **SLURM, "TORCHELASTIC_RUN_ID": "x"}, 1),  # srun torchrun ...
        ({"RANK": "0", **SLURM}, 3),  # a batch script exported it
        ({"RANK": "2", "SLURM_PROCID": "0"}, 2),  # started by hand inside an allocation
        ({"RANK": "0", "OMPI_COMM_WORLD_RANK": "1", "SLURM_PROCID": "0"}, 1),
        ({"RANK": "2"}, 2),
    ],
)
def test_a_rank_left_over_by_a_script_deceives_nobody(
    environment: dict[str, str], expected: int
) -> None:
    assert ranks.rank(environment) == expected


@pytest.mark.parametrize(
    ("environment", "started"),
    [
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2"}, "torchrun started 2 processes"),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1"}, "srun started 1 process "),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, "MPI started 2 "),
        (
            {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "the launcher that set WORLD_SIZE started 1 process ",
        ),
    ],
    ids=["torchrun", "srun", "mpirun", "variables"],
)  # fmt: skip
def test_a_launcher_s_number_and_another_are_both_named(
    environment: dict[str, str], started: str
) -> None:
    with pytest.raises(UserError, match=f"^--devices 5, but {started}"):
        check_devices(5, environment)
    check_devices(1, environment)
    check_devices(local_size(environment, 1), environment)
    check_devices(5, {})


def test_cores_are_divided_only_among_those_who_share_them() -> None:
    whole = Binding("a", (0, 1, 2, 3))
    assert share_of_cores(whole, [whole]) == 4
    assert share_of_cores(whole, [whole, whole]) == 2
    assert share_of_cores(whole, [whole] * 9) == 1
    bound = [Binding("a", (0, 1)), Binding("a", (2, 3)), Binding("b", (0, 1))]
    assert share_of_cores(bound[0], bound) == 2
    assert ranks_here(bound[0], bound) == 2


def test_ranks_are_crowded_where_each_has_less_than_a_core() -> None:
    pair = Binding("a", (0, 1))
    assert not is_crowded(pair, [pair] * 2)
    assert is_crowded(pair, [pair] * 3)
    assert not is_crowded(pair, [pair] * 2 + [Binding("b", (0, 1))] * 2)
    bound = [Binding("a", (0,)), Binding("a", (1,))]
    assert not is_crowded(bound[0], bound)
    held = Binding("a", (0, 1, 2, 3), Quota(1.5, "one"))
    assert is_crowded(held, [held] * 2)


def test_containers_of_one_machine_share_its_cores_and_keep_to_their_quotas() -> None:
    numbers = tuple(range(16))
    first, second = (Binding("a", numbers, Quota(4.0, name)) for name in ("one", "other"))
    outside = Binding("a", numbers)
    assert share_of_cores(first, [first, second]) == 4
    assert share_of_cores(first, [first, first, second]) == 2
    assert share_of_cores(outside, [outside, first]) == 8
    assert share_of_cores(first, [first] * 9) == 1
    assert share_of_cores(first, [first] * 2 + [second] * 14) == 1  # more ranks than cores
    assert ranks_here(first, [first, second, outside]) == 3


def test_machines_of_one_host_name_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As containers have them that are made from one image."""
    found = []
    for number in ("first", "second"):
        (tmp_path / number).write_text(f"{number}\n")
        monkeypatch.setattr(cores, "_BOOT_ID", tmp_path / number)
        found.append(binding())
    assert [other.machine for other in found] == ["first", "second"]
    assert ranks_here(found[0], found) == 1
    monkeypatch.setattr(cores, "_BOOT_ID", tmp_path / "not Linux")
    assert binding().machine == socket.gethostname()


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "250000 100000"}, 2.5),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4.0),
        ("0::/not/seen/here\n", {"cpu.max": "100000 100000"}, 1.0),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "300000"}, 3.0),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1"}, None),
        ("", {}, None),
    ],
)
def test_the_tightest_quota_counts(
    membership: str, files: dict[str, str], expected: float | None, tmp_path: Path
) -> None:
    for name, text in {**files, "self": membership}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = cpu_quota(tmp_path / "self", tmp_path)
    assert (found.cores if found else None) == expected


def test_broken_connections_are_lost_peers_and_other_errors_stay() -> None:
    with pytest.raises(PeersLostError, match="Connection closed by peer"), name_lost_peers(2):
        raise RuntimeError("[/a/gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:1234")
    with pytest.raises(RuntimeError, match="shape"), name_lost_peers(2):
        raise RuntimeError("shape '[2]' is invalid")
    with pytest.raises(RuntimeError, match="gloo"), name_lost_peers(1):
        raise RuntimeError("gloo")


def test_statistics_travel_as_one_vector_and_come_back() -> None:
    nets = [nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)) for _ in range(2)]
    nets[0][1].running_mean.fill_(3.0)
    buffers = running_statistics(nets)
    assert len(buffers) == 4  # mean and variance, not the whole number of batches
    vector = flatten(buffers)
    assert vector.tolist() == [3, 3, 1, 1, 0, 0, 1, 1]
    unflatten_into(vector * 2, buffers)
    assert nets[0][1].running_mean.tolist() == [6, 6]
    assert nets[1][1].running_var.tolist() == [2, 2]


def test_one_rank_sums_up_alone() -> None:
    values = torch.tensor([1.0, 2.0])
    assert Group(0, 1).sum(values) is values
    assert Group(0, 1).start_sum(values).wait() is values


class Ranks:
    """Several watches in one process, on one store."""

    def __init__(self, size: int, timeout: float) -> None:
        store = HashStore()
        self.said: dict[int, str | None] = {}
        self.ended = threading.Event()
        self.watches = [
            Watch(lambda: store, rank, size, timeout, end=self._end(rank)) for rank in range(size)
        ]

    def _end(self, rank: int):  # type: ignore[no-untyped-def]
        def end(sentence: str | None) -> None:
            self.said[rank] = sentence
            self.ended.set()

        return end

    def close(self) -> None:
        for watch in self.watches:
            watch.close()


def test_a_rank_that_makes_no_progress_is_named() -> None:
    ranks_ = Ranks(3, timeout=0.5)
    try:
        for watch in (ranks_.watches[0], ranks_.watches[2]):
            watch.tick()  # these two have done a step and wait for the third
        assert ranks_.ended.wait(20)
        time.sleep(3)
    finally:
        ranks_.close()
    assert ranks_.said[0] == (
        "rank 1 of 3 makes no progress: no step for 0.5 s, while the others wait"
    )
    assert ranks_.said[2] is None  # one voice is enough


def test_a_rank_that_is_stopped_is_named() -> None:
    ranks_ = Ranks(2, timeout=0.5)
    try:
        ranks_.watches[0].close()  # it says nothing any more, as under SIGSTOP
        assert ranks_.ended.wait(20)
    finally:
        ranks_.watches[1].close()
    assert ranks_.said[1] is not None
    assert ranks_.said[1].startswith("rank 0 of 2 says nothing any more")


def test_ranks_that_go_on_are_left_alone() -> None:
    ranks_ = Ranks(2, timeout=0.6)
    try:
        for _ in range(20):
            time.sleep(0.1)
            for watch in ranks_.watches:
                watch.tick()
    finally:
        ranks_.close()
    assert ranks_.said == {}


def test_batches_of_an_evaluation_do_not_shift_the_blame() -> None:
    """Ranks have different numbers of them; only what all do alike is compared."""
    ranks_ = Ranks(2, timeout=0.5)
    try:
        for _ in range(10):
            ranks_.watches[0].tick(alike=False)
        ranks_.watches[1].tick()  # has done a step that rank 0 has not
        assert ranks_.ended.wait(20)
        time.sleep(1)
    finally:
        ranks_.close()
    assert all(said is None or said.startswith("rank 0 ") for said in ranks_.said.values())


def test_large_jobs_look_at_the_clock_as_often() -> None:
    class Many:
        world_size = 1024
        flags_can_ride = False

    flags = Flags(Many(), StopRequest())  # type: ignore[arg-type]
    looks = [step for step in range(1000) if flags.looks_at_the_clock(step)]
    assert looks[0] == 0
    assert all(flags.asks(step) for step in looks)
    assert max(b - a for a, b in itertools.pairwise(looks)) <= 64


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_process_on_its_own_raises_flags_only_when_something_is_up(
    ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime("cpu", "fp32", alone=True)
    monkeypatch.setattr(runtime, "world_size", ranks)
    stop = StopRequest()
    flags = Flags(runtime, stop)
    quiet = flags.raised(7, save=False, broken=False)
    assert quiet == (None if ranks == 1 else [0, 0, 0, 0])
    assert flags.raised(7, save=True, broken=False) == [0, 0, 1, 0]
    assert flags.raised(7, save=False, broken=True) == [0, 0, 0, 1]
    stop.request(signal.SIGTERM)
    assert flags.raised(7, save=False, broken=False) == [0, 1, 0, 0]
    stop.signal = signal.SIGINT
    assert flags.raised(7, save=False, broken=False) == [1, 0, 0, 0]
