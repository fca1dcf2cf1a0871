"""Two real processes by every launcher train what one process trains."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.cluster import slurm
from tests.conftest import ROOT, write_classes
from tests.dist.launchers import BIN, LAUNCHERS, MPIRUN, SRUN, TORCHRUN, Launcher, Start
from tests.dist.runs import ENVIRONMENT, free_port
from thresher.dist.environment import surroundings
from thresher.errors import UserError

SCRIPT = ROOT / "examples" / "slurm" / "train.sbatch"
EPOCHS = 80
TINY = (
    "--model", "small_cnn", "--image-size", "16", "--batch-size", "8", "--precision", "fp32",
    "--threads", "1", "--accelerator", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("launch") / "data")


@pytest.fixture(scope="module")
def alone(data: Path) -> Path:
    """The run of one process."""
    out = data.parent / "alone"
    words = [BIN / "thresher", "train", data, "--out", out, "--epochs", "2", *TINY]
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
    return out


@pytest.fixture(scope="module", params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> Iterator[tuple[Launcher, Start]]:
    chosen = LAUNCHERS[request.param]
    if chosen.why_not is not None:
        pytest.skip(f"{request.param} {chosen.why_not}")
    with ExitStack() as stack:
        yield chosen, stack.enter_context(chosen.open())


def test_two_processes_leave_what_one_leaves(
    launcher: tuple[Launcher, Start], data: Path, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = launcher[1]("train", data, "--out", out, "--epochs", "2", *TINY)
    assert done.code == 0, done.err
    assert files_of(out) == files_of(alone)
    assert json.loads((out / "summary.json").read_text())["world_size"] == 2
    epochs = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in epochs] == [1, 2]
    # Neither rank's share alone: both together saw what one process sees.
    first = json.loads((alone / "metrics.jsonl").read_text().splitlines()[0])
    assert {event["images"] for event in epochs} == {first["images"]}
    tables = [pq.read_table(run / "ledger.parquet") for run in (out, alone)]
    assert tables[0]["id"].equals(tables[1]["id"])
    assert tables[0].schema.equals(tables[1].schema)
    for line in ("training images in 2 classes", "configuration {", "run directory", "report "):
        assert done.out.count(line) == 1, done.out
    assert "Traceback" not in done.err
    assert "Warning" not in done.err


def test_a_wrong_option_is_one_sentence(
    launcher: tuple[Launcher, Start], data: Path, tmp_path: Path
) -> None:
    chosen, start = launcher
    done = start("train", data, "--out", tmp_path / "run", "--method", "magic", *TINY)
    assert done.code == chosen.user_error
    # One on each machine: before the processes meet, none knows what the others found.
    assert (done.out + done.err).count("magic") == chosen.machines, done.err
    assert done.err.count("thresher: ") == chosen.machines
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("launcher", ["mpirun", "srun"], indirect=True)
def test_what_only_the_first_process_finds_is_one_sentence_too(
    launcher: tuple[Launcher, Start], data: Path, tmp_path: Path
) -> None:
    """The processes have met by then; none may wait for the one that left."""
    chosen, start = launcher
    out = tmp_path / "holiday"
    out.mkdir()
    (out / "photo.txt").write_text("dear")
    done = start("train", data, "--out", out, *TINY)
    assert done.code == chosen.user_error
    assert done.err.count("is not empty and holds no run") == 1, done.err
    assert [path.name for path in out.iterdir()] == ["photo.txt"]


@pytest.mark.parametrize("launcher", ["torchrun", "mpirun", "srun"], indirect=True)
def test_another_number_of_devices_is_refused(
    launcher: tuple[Launcher, Start], data: Path, tmp_path: Path
) -> None:
    chosen, start = launcher
    done = start("train", data, "--out", tmp_path / "run", *TINY, "--devices", "4")
    assert done.code == chosen.user_error
    assert done.err.count("thresher: --devices 4, but ") == 1, done.err
    assert "started 2 processes on this machine" in done.err
    assert not (tmp_path / "run").exists()


def test_pytorch_s_own_variables_are_a_launcher(data: Path, tmp_path: Path) -> None:
    """As Kubeflow's PyTorchJob sets them: one process in each container, no local rank."""
    out, port = tmp_path / "run", str(free_port())
    words = ["thresher", "train", data, "--out", out, "--epochs", "1", *TINY]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            env={**ENVIRONMENT, **place, "RANK": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    texts = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert json.loads((out / "summary.json").read_text())["world_size"] == 2
    assert [text.count("report ") for text, _ in texts] == [1, 0]


@pytest.mark.parametrize(
    ("left_over", "sentence"),
    [
        (
            {"WORLD_SIZE": "4"},
            "WORLD_SIZE is 4, as a launcher of PyTorch sets it, but RANK, MASTER",
        ),
        ({"RANK": "1"}, "RANK is 1, as a launcher of PyTorch sets it, but WORLD_SIZE, MASTER_ADDR"),
        ({"WORLD_SIZE": "four"}, "WORLD_SIZE is 'four', which is no number of processes"),
        (
            {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "RANK is 2, but WORLD_SIZE is 2: ranks count from 0 to 1",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "x"},
            "MASTER_PORT is 'x', which is no port",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_is_left_over_in_a_shell_is_a_sentence(
    left_over: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each process of a job would train alone, or one would wait for ever."""
    for name, value in left_over.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(sentence)):
        surroundings()


@pytest.mark.parametrize("harmless", [{"WORLD_SIZE": "1", "RANK": "0"}, {"MASTER_ADDR": "node0"}])
def test_variables_that_name_one_process_are_no_launcher(
    harmless: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in harmless.items():
        monkeypatch.setenv(name, value)
    assert surroundings().world_size == 1


def test_the_document_says_what_is_tested_here() -> None:
    lines = (ROOT / "docs" / "cluster.md").read_text().splitlines()
    train = "train photos/ --out runs/first"
    assert f"thresher {train} --devices 2" in lines
    assert {f"{typed} {train}" for typed in (TORCHRUN, MPIRUN, SRUN)} <= set(lines)
    assert f"sbatch {SCRIPT.relative_to(ROOT)} photos/ runs/first" in lines
    text = "\n".join(lines)
    for line in SCRIPT.read_text().splitlines():
        if line.startswith("#SBATCH") and not line.endswith(("=thresher", ".log")):
            assert f"`{line.removeprefix('#SBATCH ')}`" in text, line
        if line.startswith("srun "):
            assert f"`{line.partition(' thresher')[0]} …`" in text, line


def test_a_preempted_batch_job_saves_itself_and_goes_on(data: Path, tmp_path: Path) -> None:
    """As Slurm preempts: SIGTERM to the tasks. The script asks for another turn and resumes."""
    if (missing := slurm.why_not()) is not None:
        pytest.skip(f"Slurm {missing}")
    out, log = tmp_path / "run", tmp_path / "log"
    smaller = ("--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--gpus-per-node=0")
    with slurm.slurm() as cluster:
        cluster.env["PATH"] = f"{BIN}:{cluster.env['PATH']}"
        words = [SCRIPT, data, out, "--epochs", str(EPOCHS), *TINY]
        job = cluster.run("sbatch", "--parsable", f"--output={log}", *smaller, *words).strip()
        wait_until(lambda: len(epochs_of(out)) >= 3, log)
        cluster.run("scancel", "--signal=TERM", job)
        cluster.wait_for(job, ["PENDING"])
        before = len(epochs_of(out))
        cluster.start_soon(job)
        ended = cluster.wait_for(job, ["COMPLETED", "FAILED"], seconds=120)
        daemons = "".join(path.read_text()[-3000:] for path in cluster.folder.glob("slurm*.log"))
    text = log.read_text()
    assert ended["JobState"] == "COMPLETED", f"{text}\n{ended}\n{daemons}"
    assert ended["Restarts"] == "1"
    assert before < EPOCHS, "the signal came too late to show anything"
    assert text.count("thresher: stopped by SIGTERM. Everything is saved") == 1, text
    assert "Exited with exit code 143" in text
    assert epochs_of(out) == list(range(1, EPOCHS + 1))
    assert json.loads((out / "summary.json").read_text())["world_size"] == 2


def files_of(run: Path) -> set[str]:
    """What lies in a run's directory."""
    return {path.name for path in run.iterdir()}


def epochs_of(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["epoch"] for line in lines if line.endswith("}")]


def wait_until(ready: Callable[[], bool], log: Path, seconds: float = 90) -> None:
    ends = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < ends, log.read_text()
        time.sleep(0.1)
