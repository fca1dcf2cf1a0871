"""Who is a task of Slurm's, and who merely works inside an allocation or at a task's terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.cluster import slurm
from tests.conftest import write_classes
from tests.dist.launchers import BIN, SECONDS
from thresher.dist import launchers
from thresher.dist.environment import surroundings
from thresher.dist.launchers import check_devices, has_launcher, local_size
from thresher.errors import UserError

# What salloc's own shell has, and what srun adds for each task; taken from Slurm 22.05.
ALLOCATION = {
    "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "2",
    "SLURM_TASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODELIST": "node0",
    "SLURM_JOB_NODELIST": "node0",
}  # fmt: skip
TASK = {
    "SLURM_STEP_ID": "0", "SLURM_STEPID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_LOCALID": "1",
    "SLURM_NODEID": "0",
}  # fmt: skip
TERMINAL = {"SLURM_PTY_PORT": "43785"}
ONE = {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_TASKS_PER_NODE": "1"}


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str], bool], None]:
    """Sets the variables, and whether a person typed the command into a task's shell."""

    def set_up(variables: dict[str, str], typed: bool) -> None:
        for name in [name for name in os.environ if name.startswith("SLURM_")]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        for name in ("MASTER_ADDR", "SLURM_NTASKS_PER_NODE"):  # may be set; leaves no trace
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        monkeypatch.setattr(launchers, "_is_typed", lambda: typed)

    return set_up


@pytest.mark.parametrize(
    ("variables", "typed", "size"),
    [
        (ALLOCATION, False, 1),
        ({**ALLOCATION, **TASK}, False, 2),
        ({**ALLOCATION, **TASK, "SLURM_JOB_NAME": "bash"}, False, 2),
        ({**ALLOCATION, **TASK, **TERMINAL}, False, 2),
        ({**ALLOCATION, **TASK, **TERMINAL, "SLURM_PROCID": "0"}, True, 1),
        ({**ALLOCATION, **TASK, **TERMINAL, **ONE}, True, 1),
        ({**ALLOCATION, **TASK, **ONE}, False, 1),
    ],
    ids=[
        "salloc's shell", "srun in salloc", "srun bash -c", "srun in srun --pty bash",
        "srun -n 2 --pty bash", "srun --pty bash", "srun -n 1",
    ],
)  # fmt: skip
def test_only_tasks_train_together(
    variables: dict[str, str],
    typed: bool,
    size: int,
    within: Callable[[dict[str, str], bool], None],
) -> None:
    within(variables, typed)
    around = surroundings()
    assert around.world_size == size
    if size == 2:
        assert (around.cluster.global_rank(), around.local_size) == (1, 2)
        assert has_launcher()


def test_at_a_task_s_terminal_devices_may_be_chosen(
    within: Callable[[dict[str, str], bool], None],
) -> None:
    variables = {**ALLOCATION, **TASK, **TERMINAL, **ONE}
    within(variables, True)
    check_devices(2, variables)
    within(variables, False)
    with pytest.raises(UserError, match="srun started 1 process on this machine"):
        check_devices(2, variables)
    assert local_size(variables, 1) == 1


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Slurm]:
    if (missing := slurm.why_not()) is not None:
        pytest.skip(f"Slurm {missing}")
    with slurm.slurm() as started:
        started.env["PATH"] = f"{BIN}{os.pathsep}{started.env['PATH']}"
        yield started


def test_srun_inside_salloc_trains_with_all_its_tasks(cluster: slurm.Slurm, tmp_path: Path) -> None:
    data, out = write_classes(tmp_path / "data"), tmp_path / "run"
    words = [
        "salloc", "--quiet", "-n", "2", "srun", "-n", "2", "thresher", "train", str(data), "--out",
        str(out), "--epochs", "1", "--model", "small_cnn", "--image-size", "16", "--batch-size",
        "8", "--threads", "1", "--accelerator", "cpu",
    ]  # fmt: skip
    done = subprocess.run(words, env=cluster.env, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "summary.json").read_text())["world_size"] == 2
    assert done.stdout.count("run directory") == 1


ASK = (
    f"{sys.executable} -c 'import thresher.dist.launchers as l; print(l.launcher_of(l.os.environ))'"
)


@pytest.mark.parametrize(
    ("typed", "launcher"),
    [
        (f'srun -n 1 --pty bash -c "{ASK}; true"', "None"),
        (f'srun -n 1 --pty bash -c "srun --overlap -n 1 {ASK}; true"', "slurm"),
        (f"srun -n 1 --pty {ASK}", "slurm"),
    ],
    ids=["typed", "srun in a shell", "no shell"],
)
def test_a_shell_that_is_a_task_is_told_from_a_task(
    typed: str, launcher: str, cluster: slurm.Slurm
) -> None:
    """At a real terminal, as ``srun --pty`` wants one."""
    mine, its = pty.openpty()
    try:
        done = subprocess.run(
            ["setsid", "--ctty", "--wait", "bash", "-c", typed],
            env=cluster.env, stdin=its, stdout=its, stderr=its, timeout=SECONDS,
        )  # fmt: skip
        said = os.read(mine, 10_000).decode()
    finally:
        os.close(mine)
        os.close(its)
    assert done.returncode == 0, said
    assert said.split() == [launcher]
