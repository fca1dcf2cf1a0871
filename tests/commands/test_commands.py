"""The command line as its user meets it: real processes, real files, exit codes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests import forks
from tests.conftest import write_classes
from tests.forks import thresher
from thresher.cli import COMMANDS, main

QUICK = ["--model", "small_cnn", "--epochs", "2", "--batch-size", "8", "--threads", "1"]
ALONE = forks.Place(rank=0, size=1, port=0)
LINE = [sys.executable, "-W", "error", "-m", "thresher"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("data") / "train")


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    checked = shutil.copytree(data, tmp_path_factory.mktemp("checked") / "val")
    words = ["train", data, "--val", checked, *QUICK, "--out", out]
    done = subprocess.run([*LINE, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert str(out / "report.html") in done.stdout
    return out


def test_help_and_version_are_quick_and_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert main([]) == 0
    assert main(["--version"]) == 0
    assert "thresher 0." in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"thresher {command}" in capsys.readouterr().out


def test_every_option_of_train_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for option in ("--val", "--clean", "--method", "--ema-decay", "--mct.sharpen", "--ce.networks"):
        assert option in text
    assert "Replace the run in --out" in text


def test_a_run_leaves_a_report_and_suspects(finished: Path) -> None:
    assert (finished / "report.html").stat().st_size > 5_000
    assert (finished / "suspects.csv").exists()
    assert (finished / "ledger.parquet").exists()


def test_plain_output_has_no_control_codes(data: Path, tmp_path: Path) -> None:
    done = thresher("train", data, *QUICK, "--method", "ce", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "noisy held-out labels" in done.stdout
    assert done.stderr == ""


def test_evaluate(finished: Path, data: Path, tmp_path: Path) -> None:
    done = thresher("evaluate", finished, data, "--out", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["images"] == 24
    assert f"accuracy {figures['accuracy']:.2%} on 24 images" in done.stdout
    assert sum(c["right"] for c in figures["per_class"].values()) == figures["accuracy"] * 24


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_predict(finished: Path, data: Path, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    odd = tmp_path / 'a&b <i>,".png'
    Image.new("L", (30, 11), 250).save(odd)
    out = tmp_path / f"predictions{suffix}"
    done = thresher(
        "predict",
        finished,
        data / "dark",
        odd,
        tmp_path / "broken.png",
        "--out",
        out,
        "--probabilities",
    )
    assert done.returncode == 0, done.stderr
    assert "13 of 14 images labelled" in done.stdout
    if suffix == ".csv":
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pq.read_table(out).to_pylist()
    assert len(rows) == 14
    by_name = {Path(row["path"]).name: row for row in rows}
    assert by_name["broken.png"]["state"].startswith("not an image")
    assert not by_name["broken.png"]["label"]
    good = by_name[odd.name]
    assert good["label"] in ("dark", "light")
    assert float(good["p(dark)"]) + float(good["p(light)"]) == pytest.approx(1, abs=1e-3)
    assert max(float(good["p(dark)"]), float(good["p(light)"])) == pytest.approx(
        float(good["confidence"])
    )


def test_audit_again(finished: Path) -> None:
    (finished / "report.html").unlink()
    done = thresher("audit", finished, "--per-class", "2")
    assert done.returncode == 0, done.stderr
    assert (finished / "report.html").exists()


def test_the_saved_configuration_makes_the_same_run_again(finished: Path, tmp_path: Path) -> None:
    done = thresher("train", "--config", finished / "config.yaml", "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "model-2.safetensors", "config.yaml"):
        assert (finished / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_resumed_from_the_command_line(
    data: Path, tmp_path: Path, signal_number: signal.Signals
) -> None:
    out = tmp_path / "run"
    words = ["train", data, "--method", "ce", *QUICK, "--epochs", "100000", "--out", out]
    process = forks.start(ALONE, words)
    try:
        deadline = time.monotonic() + 120
        while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + signal_number
    assert f"thresher train --resume --out {out}" in errors
    assert "Traceback" not in errors
    assert list((out / "checkpoints").iterdir())
    trained = len((out / "metrics.jsonl").read_text().splitlines())
    process = forks.start(ALONE, ["train", "--resume", "--out", out])
    try:
        deadline = time.monotonic() + 120
        while (
            len((out / "metrics.jsonl").read_text().splitlines()) < trained + 3
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    epochs = [
        json.loads(line)["epoch"] for line in (out / "metrics.jsonl").read_text().splitlines()
    ]
    assert epochs[:trained] == list(range(1, trained + 1))
    assert epochs[trained] == trained + 1, "goes on where it stopped"


# Bad input: (words, what the sentence says). {data}, {run} and {tmp} are filled in.

BAD_INPUT = [
    ("trian x", "Unknown command 'trian'. Did you mean train"),
    ("train", "Name the training images"),
    ("train {tmp}/none", "There is no file or folder"),
    ("train {tmp}/empty", "holds no images"),
    ("train {tmp}/one", "has only one class"),
    ("train {tmp}/unreadable", "Class 'b' in"),
    ("train {tmp}/columns.csv", "no column that is known to hold the path"),
    ("train {tmp}/paths.csv", "3 of 3 files listed in"),
    ("train {tmp}/notes.txt", "is no table that is read here. Give it a first line"),
    ("train {data} --val {tmp}/others", "that training does not know: 'cat', 'cow', 'dog'"),
    ("train {data} --clean {tmp}/none", "There is no file or folder"),
    ("train {data} --method mtc", "Unknown method 'mtc'. Did you mean mct"),
    ("train {data} --model resnt50", "Unknown model 'resnt50'. Did you mean resnet50"),
    ("train {data} --epoch 3", "Unknown option '--epoch'. Did you mean --epochs"),
    ("train {data} --epochs three", "--epochs takes a whole number, not 'three'"),
    ("train {data} --epochs 0", "--epochs is 0; it must be at least 1"),
    ("train {data} --ce.network 2", "Unknown option '--ce.network'. Did you mean --ce.networks"),
    ("train {data} --config {tmp}/bad.yaml", "bad.yaml, line 1: unknown key 'epocs'. Did you"),
    ("train {data} --config {tmp}/none.yaml", "none.yaml"),
    ("train {data} --config {tmp}/notes.txt", "--config"),
    ("train {data} --out {run}", "already holds a run"),
    ("train {data} --out {run} --resume --overwrite", "exclude each other"),
    ("train {data} --out {data}", "lies inside the data"),
    ("train {data} --out {data}/runs/a", "lies inside the data"),
    ("train {data} --out {tmp}/others", "holds no run of Thresher, so it is left"),
    ("train {data} --cache hots", "--cache takes auto, none, host or device, not 'hots'"),
    ("train {data} --val {data}", "is the same as the data"),
    ("train {data} --val file://{data}", "is the same as the data"),
    ("train file:{data} --out {data}/runs/a", "lies inside the data"),
    ("train {tmp}/others --val {tmp}/others/cat", "lies inside"),
    ("train {data} --out {tmp}/notes.txt", "is a file"),
    ("train {data} --out {tmp}/notes.txt/run", "Cannot write"),
    ("train {data} --resume", "--resume needs --out"),
    ("train {data} --resume --out {tmp}/empty", "holds no run"),
    ("train {data} --init-weights {tmp}/none.pth", "There is no weights file"),
    ("train {data} --init-weights {tmp}/notes.txt", "not a weights file"),
    ("train {data} --precision fp16", "--precision takes fp32 or bf16, not 'fp16'"),
    ("train {data} --optimizer foo", "Unknown optimizer 'foo'"),
    ("train {data} --ce.networks 0 --method ce", "--ce.networks is 0; it must lie between"),
    ("train {data} --flip maybe", "Unknown option 'maybe'"),
    ("train {data} --model vit_tiny_patch16_224 --image-size 16", "does not take images of 16"),
    ("train {data} --accelerator tpu", "choose cpu, cuda, mps or auto"),
    ("evaluate {tmp}/none {data}", "There is no run at"),
    ("evaluate {tmp}/empty {data}", "is not a run"),
    ("evaluate {run} {tmp}/others", "that training does not know"),
    ("evaluate {run} {tmp}/none", "There is no file or folder"),
    ("predict {run} {tmp}/none.jpg", "There is no file or folder"),
    ("predict {run} {data} --out {tmp}/x.txt", "name a file that ends in .csv or .parquet"),
    ("predict {run}", "images"),
    ("audit {tmp}/none", "none"),
    ("audit {tmp}/empty", "empty"),
    ("audit {run} --per-class -1", "must be 0 or more"),
]  # fmt: skip


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("corner")
    (tmp / "empty").mkdir()
    picture = Image.new("RGB", (16, 16), "red")
    for name in (
        "one/a/1.png",
        "unreadable/a/1.png",
        "others/cat/1.png",
        "others/dog/1.png",
        "others/cow/1.png",
    ):
        (tmp / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp / name)
    (tmp / "unreadable" / "b").mkdir()
    (tmp / "unreadable" / "b" / "1.jpg").write_bytes(b"<html>")
    (tmp / "columns.csv").write_text("where,what\na.jpg,cat\n")
    (tmp / "paths.csv").write_text("path,label\nx.jpg,cat\ny.jpg,dog\nz.jpg,dog\n")
    (tmp / "notes.txt").write_text("notes\n")
    (tmp / "bad.yaml").write_text("epocs: 3\n")
    return tmp


@pytest.mark.parametrize(("words", "sentence"), BAD_INPUT, ids=[words for words, _ in BAD_INPUT])
def test_bad_input_gets_a_sentence_and_exit_code_2(
    words: str,
    sentence: str,
    data: Path,
    finished: Path,
    corner: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(finished.rglob("*"))
    filled = [word.format(data=data, run=finished, tmp=corner) for word in words.split()]
    quick = (
        QUICK if filled[0] == "train" and "--epochs" not in words and "--model" not in words else []
    )
    assert main([*filled, *quick]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("thresher: ")
    assert sentence in captured.err
    assert captured.err.count("\n") == 1, "one sentence, one line"
    assert list(tmp_path.iterdir()) == [], "nothing half-written"
    assert sorted(finished.rglob("*")) == before


def test_bad_input_as_a_process(tmp_path: Path) -> None:
    words = ["train", tmp_path / "none"]
    done = subprocess.run([*LINE, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("thresher: There is no file or folder")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_no_right_to_write(data: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "thresher",
         "train", str(data), *QUICK, "--out", str(locked / "run")],
        capture_output=True, text=True,
    )  # fmt: skip
    if "setpriv" in done.stderr:
        pytest.skip("setpriv cannot drop rights here")
    assert done.returncode == 2, done.stderr
    assert "No right to write" in done.stderr
    assert list(locked.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_no_space(data: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no right to mount a file system here")
    try:
        done = thresher("train", data, *QUICK, "--out", small / "run")
    finally:
        subprocess.run(["umount", "-l", small], check=True)
    assert done.returncode == 2, done.stderr
    assert "No space left to write" in done.stderr
