"""Ranks that were not started alike, or not all started, end with one plain sentence."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests import forks
from tests.conftest import write_classes
from tests.dist.runs import free_port, rank, sentences, thresher
from thresher.train.facts import versions

COMMON = (
    "--method", "ce", "--epochs", "1", "--batch-size", "12", "--val-share", "0",
    "--accelerator", "cpu", "--peer-timeout", "20",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("refusals") / "data", per_class=12)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        (["--lr", "0.2"], "", "--lr is 0.2 on rank 1, but 0.1 on rank 0"),
        (["--data", "OTHER"], "", "--data is "),
        ([], "from functools import partial; import thresher.commands.train_here as train;"
         " train.train = partial(lambda f, *a, **k: f(*a, **{**k, 'resume': True}), train.train)",
         "--resume is True on rank 1, but False on rank 0"),
        ([], "import thresher; thresher.__version__ = '0.0.9'",
         "the version of thresher is '0.0.9' on rank 1, but"),
        ([], "import importlib.metadata as m; true = m.version;"
         " m.version = lambda name: '0.1' if name == 'simplejpeg' else true(name)",
         "the version of simplejpeg is '0.1' on rank 1, but"),
        (["--data", "/no/such/place"], "", "rank 1: "),
    ],
    ids=["setting", "data", "resume", "version", "version of what decodes", "missing data"],
)  # fmt: skip
def test_ranks_that_differ_are_refused_by_name(
    change: list[str], code: str, sentence: str, data: Path, tmp_path: Path, port: int
) -> None:
    other = write_classes(tmp_path / "other", per_class=8)
    change = [str(other) if word == "OTHER" else word for word in change]
    common = ["train", "--out", str(tmp_path / "run"), *COMMON, "--lr", "0.1"]
    first = rank(0, 2, port, [*common, "--data", str(data)])
    given = [] if "--data" in change else ["--data", str(data)]
    second = rank(1, 2, port, [*common, *given, *change], code)
    codes, said = sentences([first, second])
    assert codes == [2, 2]
    assert len(said) == 1, said
    assert sentence in said[0]
    assert not (tmp_path / "run").exists()


def test_versions_of_all_that_shapes_pixels_are_compared() -> None:
    assert {"thresher", "torch", "timm", "numpy", "pillow", "simplejpeg"} <= versions().keys()


def test_a_changed_label_is_noticed(data: Path, tmp_path: Path, port: int) -> None:
    """The same path on two machines, and not the same images behind it."""
    code = (
        "import thresher.train.run as run; opened = run.open_training_data\n"
        "from dataclasses import replace\n"
        "def other(config):\n"
        "    data = opened(config)\n"
        "    manifest = data.train.manifest\n"
        "    labels = manifest.labels.copy()\n"
        "    labels[0] ^= 1\n"
        "    manifest = manifest.with_labels(labels, manifest.classes)\n"
        "    return replace(data, train=replace(data.train, manifest=manifest))\n"
        "run.open_training_data = other\n"
    )
    words = ["train", str(data), "--out", str(tmp_path / "run"), *COMMON]
    codes, said = sentences([rank(0, 2, port, words), rank(1, 2, port, words, code)])
    assert codes == [2, 2]
    assert "the fingerprint of names and labels is" in said[0]


@pytest.mark.parametrize(("part", "name"), [("train", "data"), ("measure", "images to measure on")])
def test_ranks_that_can_read_other_images_are_refused(
    part: str, name: str, data: Path, tmp_path: Path, port: int
) -> None:
    """One failed read on one machine; the ranks would share out other samples, or wait for ever."""
    code = (
        "import thresher.train.run as run; opened = run.open_training_data\n"
        "from dataclasses import replace\n"
        "def other(config):\n"
        "    data = opened(config)\n"
        f"    images = data.{part}\n"
        "    ids = images.ids.copy()\n"
        "    ids[0] = images.ids[1]\n"
        f"    return replace(data, {part}=replace(images, ids=ids))\n"
        "run.open_training_data = other\n"
    )
    val = write_classes(tmp_path / "val", per_class=8)
    words = ["train", str(data), "--out", str(tmp_path / "run"), *COMMON, "--val", str(val)]
    codes, said = sentences([rank(0, 2, port, words), rank(1, 2, port, words, code)])
    assert codes == [2, 2]
    assert f"the fingerprint of usable {name} is" in said[0]
    assert not (tmp_path / "run").exists()


def test_a_missing_rank_is_a_sentence_after_the_time_out(
    data: Path, tmp_path: Path, port: int
) -> None:
    words = ["train", str(data), "--out", str(tmp_path / "run"), *COMMON, "--peer-timeout", "3"]
    codes, said = sentences([rank(0, 2, port, words)])
    assert codes == [2]
    assert "1 of 2 processes did not come within 3 s: rank 1." in said[0]


def test_a_missing_first_rank_is_a_sentence_too(data: Path, tmp_path: Path, port: int) -> None:
    words = ["train", str(data), "--out", str(tmp_path / "run"), *COMMON, "--peer-timeout", "3"]
    process = rank(1, 2, port, words)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert f"thresher: rank 1: The processes did not meet at 127.0.0.1:{port} within 3 s" in errors


def test_a_taken_port_is_a_sentence(data: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        words = ["train", str(data), "--out", str(tmp_path / "run"), *COMMON]
        codes, said = sentences([rank(0, 2, number, words)])
    assert codes == [2]
    assert f"The port {number} that the processes should meet at is taken" in said[0]


def test_an_interface_that_is_not_there_is_a_sentence(
    data: Path, tmp_path: Path, port: int
) -> None:
    """The ranks meet at one port, and then each connects to each by others."""
    words = ["train", str(data), "--out", str(tmp_path / "run"), *COMMON, "--peer-timeout", "5"]
    code = "import os; os.environ['GLOO_SOCKET_IFNAME'] = 'nowhere0'"
    codes, said = sentences([rank(number, 2, port, words, code) for number in range(2)])
    assert codes == [2, 2]
    assert any("cannot connect to the others" in line and "nowhere0" in line for line in said), said


@pytest.mark.parametrize(
    ("ranks", "words", "sentence"),
    [
        (2, ("--placement", "apart"), "'ce' trains 1. Choose --placement together"),
        (3, ("--placement", "apart"), "needs an even number of processes, not 3"),
        (2, ("--batch-size", "13"), "--batch-size 13 is shared out over 2 processes"),
        (2, ("--max-restarts", "-1"), "--max-restarts is -1; it must not be negative"),
        (2, ("--peer-timeout", "0"), "--peer-timeout is 0.0; it must be above 0"),
        (2, ("--accelerator", "cuda"), "PyTorch finds no CUDA device"),
        (2, ("--method", "unheard-of"), "Unknown method 'unheard-of'"),
    ],
)
@pytest.mark.skipif(os.environ.get("CUDA_VISIBLE_DEVICES", "") != "", reason="for CPUs only")
def test_what_cannot_be_is_one_sentence(
    ranks: int, words: tuple[str, ...], sentence: str, data: Path, tmp_path: Path
) -> None:
    ended = forks.run(ranks, "train", data, "--out", tmp_path / "run", *COMMON, *words)
    assert ended.codes == [2] * ranks
    assert sum(line.startswith("thresher: ") for line in ended.said.splitlines()) == 1, ended.said
    assert sentence in ended.said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--batch-size", "13"), "--batch-size 13 is shared out over 2 processes"),
        (("--max-restarts", "-1"), "--max-restarts is -1; it must not be negative"),
    ],
    ids=["by the processes", "before they start"],
)
def test_devices_end_in_one_sentence_too(
    words: tuple[str, ...], sentence: str, data: Path, tmp_path: Path
) -> None:
    done = thresher("train", data, "--out", tmp_path / "run", *COMMON, "--devices", 2, *words)
    assert done.returncode == 2, done.stderr
    assert sum(line.startswith("thresher: ") for line in done.stderr.splitlines()) == 1, done.stderr
    assert sentence in done.stderr
    assert not (tmp_path / "run").exists()
