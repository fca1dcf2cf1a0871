"""Whole runs, small but real."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from tests.conftest import write_classes
from thresher import presets
from thresher.config import TrainConfig
from thresher.errors import UserError
from thresher.methods import all_methods
from thresher.train import loop as loop_module
from thresher.train.data import open_training_data
from thresher.train.interrupt import Interrupted
from thresher.train.run import RunResult, train

QUIET = Console(quiet=True)
METHODS = sorted(all_methods())


def run(config: TrainConfig, out: Path, **options: object) -> RunResult:
    return train(config, options_of(config.method), out, console=QUIET, **options)


def options_of(name: str, **changes: object) -> object:
    """The method's options; several rounds even where they are short."""
    several = {"rounds": 3} if name == "mct" else {}
    return all_methods()[name].Options(**{**several, **changes})


def tiny(data: Path, method: str = "mct", **changes: object) -> TrainConfig:
    settings = {
        "model": "small_cnn", "epochs": 6, "batch_size": 8, "precision": "fp32", "threads": 1,
        "image_size": 16, **changes,
    }  # fmt: skip
    return TrainConfig(data=str(data), method=method, **settings)


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.name}/{name}": value
        for path in sorted(out.glob("model*.safetensors"))
        for name, value in load_file(path).items()
    }


def losses_of(out: Path) -> list[list[float]]:
    by_epoch = {}
    for line in (out / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        by_epoch[event["epoch"]] = event["loss"]
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_what_explains_it(method: str, two_classes: Path, tmp_path: Path) -> None:
    (two_classes / "dark" / "broken.png").write_bytes(b"no image")
    out = tmp_path / "run"
    result = run(tiny(two_classes, method, val_share=0.25), out)
    assert result.measured_on == "noisy held-out labels"
    assert {path.name for path in out.iterdir()} >= {
        "config.yaml", "config.json", "manifest.parquet", "metrics.jsonl", "ledger.parquet",
        "model.safetensors", "checkpoints", "tensorboard", "summary.json",
    }  # fmt: skip
    assert list((out / "tensorboard").glob("events*"))
    ledger = pq.read_table(out / "ledger.parquet")
    manifest = pq.read_table(out / "manifest.parquet")
    assert manifest.num_rows == 25
    states = manifest["state"].to_pylist()
    assert sum(state != "ok" for state in states) == 1
    assert ledger.num_rows == 18
    assert set(ledger["status"].to_pylist()) <= {"trusted", "down-weighted"}
    assert not set(ledger["id"].to_pylist()) & set(np.flatnonzero([s != "ok" for s in states]))
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert all(event["images"] == 18 for event in events)
    assert events[-1]["accuracy_against"] == "noisy held-out labels"
    model = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 2)


def test_images_found_unreadable_on_the_way_are_marked(two_classes: Path, tmp_path: Path) -> None:
    """Good header, damaged pixels: only decoding finds it."""
    victim = sorted((two_classes / "light").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:-40])
    out = tmp_path / "run"
    run(tiny(two_classes, val=str(write_classes(tmp_path / "val", 4, seed=1))), out)
    rows = pq.read_table(out / "ledger.parquet").to_pylist()
    bad = [row for row in rows if row["status"].startswith("unreadable: damaged")]
    assert [row["key"] for row in bad] == [f"light/{victim.name}"]
    assert math.isnan(bad[0]["clean_probability"])
    assert len(rows) == 24
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {event["images"] for event in events} == {23}


def test_the_ledger_tells_what_the_last_epoch_saw(two_classes: Path, tmp_path: Path) -> None:
    """Of plain cross-entropy the loss is that of the given label's probability."""
    out = tmp_path / "run"
    run(tiny(two_classes, method="ce", precision="fp32"), out)
    rows = pq.read_table(out / "ledger.parquet").to_pylist()
    for row in rows:
        assert row["loss"] == pytest.approx(-math.log(row["prob_given"]), abs=5e-3)
    assert len({row["loss"] for row in rows}) > 1


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_weights_for_any_threads_and_cache(
    method: str, two_classes: Path, tmp_path: Path
) -> None:
    run(tiny(two_classes, method), tmp_path / "a")
    run(tiny(two_classes, method, threads=3, cache="none"), tmp_path / "b")
    first, second = weights_of(tmp_path / "a"), weights_of(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)
    run(tiny(two_classes, method, seed=1), tmp_path / "c")
    assert any(not torch.equal(first[n], v) for n, v in weights_of(tmp_path / "c").items())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop_at", [1, 4, 9, 14])
def test_resumed_equals_uninterrupted_to_the_bit(
    method: str, stop_at: int, two_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of an epoch, at a round's first step, or in the last round."""
    config = tiny(two_classes, method, clean=str(write_classes(tmp_path / "clean", 3, seed=2)))
    run(config, tmp_path / "whole")

    class StopsAt(loop_module.StopRequest):
        steps = 0

        @property
        def requested(self) -> bool:
            self.steps += 1
            self.signal = 15
            return self.steps > stop_at

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "StopRequest", StopsAt)
        with pytest.raises(Interrupted):
            run(config, tmp_path / "parts")
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    run(config, tmp_path / "parts", resume=True)

    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert losses_of(tmp_path / "whole") == losses_of(tmp_path / "parts")
    ledgers = [pq.read_table(tmp_path / name / "ledger.parquet") for name in ("whole", "parts")]
    assert ledgers[0].equals(ledgers[1])


def test_resuming_a_finished_run_loses_nothing(two_classes: Path, tmp_path: Path) -> None:
    """Also what only decoding found out, and the figures of the last epoch."""
    victim = sorted((two_classes / "light").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:-40])
    config, out = tiny(two_classes, "ce", val_share=0.3), tmp_path / "run"
    run(config, out)
    names = ("ledger.parquet", "manifest.parquet", "metrics.jsonl")
    before = {name: (out / name).read_bytes() for name in names}
    summary = json.loads((out / "summary.json").read_text())
    again = run(config, out, resume=True)
    assert again.accuracy == summary["accuracy"], "a finished run is left as it is"
    (out / "summary.json").unlink()  # as a kill leaves it, just before the end
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"event": "epoch", "epo')
    run(config, out, resume=True)
    for name, data in before.items():
        assert (out / name).read_bytes() == data, name
    assert json.loads((out / "summary.json").read_text())["accuracy"] == summary["accuracy"]


def test_resume_refuses_other_method_options(two_classes: Path, tmp_path: Path) -> None:
    config, out = tiny(two_classes, "ce", epochs=1), tmp_path / "run"
    run(config, out)
    with pytest.raises(UserError, match=r"ce\.label_smoothing \(was 0\.0, now 0\.3\)"):
        train(config, options_of("ce", label_smoothing=0.3), out, console=QUIET, resume=True)


@pytest.mark.parametrize("kind", ["val", "clean"])
def test_measuring_and_clean_images_must_be_readable(
    kind: str, two_classes: Path, tmp_path: Path
) -> None:
    bad = write_classes(tmp_path / "bad", 2)
    for path in bad.rglob("*.png"):
        path.write_bytes(b"<html>")
    with pytest.raises(UserError, match="has no readable image: 2 files"):
        run(tiny(two_classes, "ce", **{kind: str(bad)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_that_takes_no_such_images_is_refused_at_once(
    two_classes: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="does not take images of 4 x 4 pixels"):
        run(tiny(two_classes, "ce", image_size=4), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_overwrite_deletes_neither_inputs_nor_strangers(two_classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = tiny(two_classes, "ce", epochs=1)
    run(config, out)
    again = tiny(two_classes, "ce", init_weights=str(out / "model.safetensors"))
    with pytest.raises(UserError, match="--overwrite would delete"):
        run(again, out, overwrite=True)
    (out / "my-notes.txt").write_text("keep me")
    run(config, out, overwrite=True)
    assert (out / "my-notes.txt").read_text() == "keep me"
    foreign = tmp_path / "project"
    foreign.mkdir()
    (foreign / "config.yaml").write_text("model: mine\n")
    with pytest.raises(UserError, match="holds no run of Thresher"):
        run(config, foreign, overwrite=True)


def test_small_classes_are_held_out_in_proportion(tmp_path: Path) -> None:
    """Eight images a class and 5 %: by lot, about one image in twenty over all classes."""
    picture = Image.new("RGB", (16, 16), "red")
    for label in range(60):
        for index in range(8):
            path = tmp_path / "data" / f"{label:02d}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    data = open_training_data(TrainConfig(data=str(tmp_path / "data")))
    held = 0 if data.measure is None else len(data.measure.ids)
    assert 10 <= held <= 40  # 24 expected
    assert np.bincount(data.train.labels, minlength=60).min() >= 1
    assert held + len(data.train.ids) == 480


def test_golden_loss_curve(fashion: Path, tmp_path: Path) -> None:
    """Two epochs on real images; a change here is a change of what training does."""
    config = TrainConfig(
        data=str(fashion / "train.parquet"), val=str(fashion / "test.parquet"), method="mct",
        model="small_cnn", epochs=2, batch_size=128, precision="fp32", lr=0.1,
    )  # fmt: skip
    result = train(config, options_of("mct", rounds=None), tmp_path / "run", console=QUIET)
    golden = json.loads((Path(__file__).parent / "golden.json").read_text())
    # Different processors add up in different orders; the curve moves in the third digit at most.
    for actual, expected in zip(losses_of(tmp_path / "run"), golden["loss"], strict=True):
        assert actual == pytest.approx(expected, abs=0.03)
    assert result.accuracy == pytest.approx(golden["accuracy"], abs=0.06)


def test_mutual_calibration_learns_and_finds_wrong_labels(fashion: Path, tmp_path: Path) -> None:
    """A few quick epochs: far better than chance at both."""
    config = presets.quick(fashion / "train.parquet", fashion / "test.parquet")
    result = train(config, options_of("mct", rounds=None), tmp_path / "run", console=QUIET)
    assert result.accuracy > 0.65
    ledger = pq.read_table(tmp_path / "run" / "ledger.parquet")
    truth = pq.read_table(fashion / "train-true.parquet")["label"].to_numpy()
    given = np.asarray(ledger["given_label"].combine_chunks().indices)
    clean = ledger["clean_probability"].to_numpy()
    right = given == truth[ledger["id"].to_numpy()]
    assert clean[right].mean() > clean[~right].mean() + 0.25


def test_non_finite_loss_stops_with_the_step_and_keeps_the_checkpoint(
    two_classes: Path, tmp_path: Path
) -> None:
    config = tiny(two_classes, "ce", epochs=8, checkpoint_minutes=0.0)
    good = tmp_path / "run"
    method = all_methods()["ce"]
    poisoned = tmp_path / "poison.pth"

    seen = 0
    original = method.step

    def step(self, networks, batch, history, progress):  # type: ignore[no-untyped-def]
        nonlocal seen
        seen += 1
        result = original(self, networks, batch, history, progress)
        if seen == 10:
            bad = tuple(loss * float("nan") for loss in result.loss_sums)
            return type(result)(bad, result.weight_sums, result.records)
        return result

    method.step = step
    try:
        with pytest.raises(UserError, match=r"no longer finite \(epoch 4, seen at step 10 of 24\)"):
            run(config, good)
    finally:
        method.step = original
    assert not poisoned.exists()
    saved = sorted(path.name for path in (good / "checkpoints").iterdir())
    assert saved[-1] == "000003-000000"
    run(config, good, resume=True)
    assert all(torch.isfinite(value).all() for value in weights_of(good).values())


def test_an_out_that_holds_another_run_is_left_alone(two_classes: Path, tmp_path: Path) -> None:
    config = tiny(two_classes, "ce", epochs=1)
    run(config, tmp_path / "run")
    before = weights_of(tmp_path / "run")
    with pytest.raises(UserError, match=r"already holds a run\. Add --resume to go on"):
        run(tiny(two_classes, "ce", epochs=1, seed=5), tmp_path / "run")
    after = weights_of(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)
    run(tiny(two_classes, "ce", epochs=1, seed=5), tmp_path / "run", overwrite=True)
    assert any(not torch.equal(before[n], v) for n, v in weights_of(tmp_path / "run").items())


def test_overwrite_never_deletes_what_is_no_run(two_classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "holiday"
    out.mkdir()
    (out / "photo.txt").write_text("dear")
    with pytest.raises(UserError, match="holds no run of Thresher, so it is left"):
        run(tiny(two_classes, "ce", epochs=1), out, overwrite=True)
    assert (out / "photo.txt").read_text() == "dear"


def test_resume_refuses_other_settings_and_other_data(two_classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(tiny(two_classes, "ce", epochs=1), out)
    with pytest.raises(UserError, match=r"other settings: epochs \(was 1, now 2\)"):
        run(tiny(two_classes, "ce", epochs=2), out, resume=True)
    extra = sorted((two_classes / "dark").iterdir())[0]
    shutil.copy(extra, two_classes / "light" / "extra.png")
    with pytest.raises(UserError, match="have changed since"):
        run(tiny(two_classes, "ce", epochs=1), out, resume=True)
    (two_classes / "light").rename(two_classes / "pale")
    with pytest.raises(UserError, match="trained on the classes dark, light"):
        run(tiny(two_classes, "ce", epochs=1), out, resume=True)
