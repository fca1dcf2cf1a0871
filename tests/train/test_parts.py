"""Schedule, meter, resolving and checkpoints, each by itself."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
from pathlib import Path

import pytest
import torch

from thresher import presets
from thresher.config import TrainConfig
from thresher.dist.runtime import Runtime
from thresher.errors import UserError
from thresher.train.checkpoint import find_newest, load_part
from thresher.train.progress import duration
from thresher.train.resolve import Facts, best_precision, resolve
from thresher.train.saver import Saver
from thresher.train.schedule import triangle


def test_triangle_by_hand() -> None:
    # Nine steps divide the round into ten: 0.1 ... 0.9, rising to 0.2.
    values = [triangle(step, 9, 0.2) for step in range(9)]
    assert values == pytest.approx([0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            Facts(2000, 28, "cpu"),
            {"image_size": 28, "model": "small_cnn", "batch_size": 128, "lr": 0.1},
        ),
        (Facts(50_000, 32, "cuda"), {"image_size": 32, "model": "small_resnet", "batch_size": 512}),
        (Facts(10**6, 375, "cuda"), {"image_size": 224, "model": "resnet50", "epochs": 10}),
        (Facts(10**6, 375, "cuda"), {"augment": "photo", "batch_size": 256, "lr": 0.1}),
        (Facts(5000, 100, "cpu"), {"image_size": 128, "model": "resnet50", "batch_size": 32}),
    ],
)
def test_defaults_follow_from_the_data(facts: Facts, expected: dict[str, object]) -> None:
    resolved = dataclasses.asdict(resolve(TrainConfig(data="x"), facts))
    assert {name: resolved[name] for name in expected} == expected
    optional = {"val", "clean", "init_weights", "path_column", "label_column", "image_column"}
    assert all(value is not None for name, value in resolved.items() if name not in optional)


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"),
    [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")],
)
def test_precision_follows_from_the_processor(
    avx512_bf16: bool, amx: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert best_precision("cpu") == expected


def test_what_the_user_chose_stays() -> None:
    config = TrainConfig(data="x", model="vit_tiny_patch16_224", weight_decay=0.0, lr=0.3)
    resolved = resolve(config, Facts(5000, 300, "cpu"))
    assert (resolved.model, resolved.weight_decay, resolved.lr) == (config.model, 0.0, 0.3)
    assert resolved.optimizer == "adamw"


@pytest.mark.parametrize("preset", [presets.demo, presets.quick])
def test_every_preset_resolves(preset: object) -> None:
    config = preset(Path("a"), Path("b"), "mct")
    assert resolve(config, Facts(2000, 28, "cpu")).model == "small_cnn"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "--epochs is 0; it must be at least 1"),
        ({"batch_size": -1}, "--batch-size is -1"),
        ({"lr": 0.0}, None),
        ({"lr": -1.0}, "--lr is -1.0; it must be above 0"),
        ({"val_share": 1.0}, "--val-share is 1.0"),
        ({"min_crop_area": 0.0}, "--min-crop-area is 0.0; it must be above 0"),
        ({"min_crop_area": 1.5}, "--min-crop-area is 1.5"),
        ({"ema_decay": 1.0}, "--ema-decay is 1.0"),
        ({"warmup_share": 0.0}, "--warmup-share is 0.0"),
        ({"seed": -1}, "--seed is -1"),
        ({"weight_decay": -1.0}, "--weight-decay is -1.0"),
        ({"optimizer": "sdg"}, "Unknown optimizer 'sdg'. Did you mean"),
        ({"model": "resnt50"}, "Unknown model 'resnt50'. Did you mean resnet50"),
    ],
)
def test_impossible_values_are_refused(change: dict[str, object], sentence: str | None) -> None:
    config = dataclasses.replace(TrainConfig(data="x"), **change)
    with pytest.raises(UserError, match=sentence and sentence.replace("?", r"\?")):
        resolve(config, Facts(2000, 28, "cpu"))


def parts(value: float) -> dict[str, object]:
    return {"network-0": {"x": torch.tensor([value])}, "ledger-0": {"y": 1}}


def save(
    folder: Path, epoch: int, step: int = 0, *, keep: int = 2, accuracy: float | None = None
) -> None:
    saver = Saver(folder, Runtime("cpu", "fp32"), keep, token=f"t{epoch}")
    saver.save(epoch, step, parts(epoch), {"model": "m", "accuracy": accuracy})
    saver.finish()


def test_newest_checkpoint_comes_back_and_old_ones_go(tmp_path: Path) -> None:
    for epoch in range(4):
        save(tmp_path, epoch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000002-000000", "000003-000000"]
    found = find_newest(tmp_path)
    assert found is not None
    path, meta = found
    assert (meta["epoch"], meta["model"]) == (3, "m")
    assert load_part(path, "network-0")["x"].item() == 3.0


def test_the_best_checkpoint_stays_beside_the_newest(tmp_path: Path) -> None:
    for epoch, accuracy in enumerate([0.5, 0.9, 0.7, None, 0.6]):
        save(tmp_path, epoch, accuracy=accuracy)
    assert sorted(path.name[:6] for path in tmp_path.iterdir()) == ["000001", "000003", "000004"]


def test_what_is_saved_is_the_state_of_the_moment(tmp_path: Path) -> None:
    """Training goes on while the disk is written."""
    saver = Saver(tmp_path, Runtime("cpu", "fp32"), 2, token="t")
    weights = torch.zeros(1_000_000)
    saver.save(1, 0, {"network-0": {"x": weights}}, {})
    weights += 1
    saver.finish()
    assert not load_part(tmp_path / "000001-000000", "network-0")["x"].any()


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "meta", "digit"])
def test_damaged_checkpoints_are_passed_over(tmp_path: Path, damage: str) -> None:
    for epoch in (1, 2):
        save(tmp_path, epoch, 5, keep=3)
    victim = (
        tmp_path
        / "000002-000005"
        / ("meta.json" if damage in ("meta", "digit") else "network-0.pt")
    )
    data = bytearray(victim.read_bytes())
    if damage == "delete":
        victim.unlink()
    elif damage == "digit":  # still JSON, and of another step
        assert data.count(b'"step": 5') == 1
        victim.write_bytes(data.replace(b'"step": 5', b'"step": 7'))
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    else:
        victim.write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match="000002-000005 is damaged"):
        found = find_newest(tmp_path)
    assert found is not None
    assert found[1]["epoch"] == 1


def test_damaged_checkpoints_do_not_push_out_good_ones(tmp_path: Path) -> None:
    for epoch in (8, 10):
        save(tmp_path, epoch)
    (tmp_path / "000010-000000" / "network-0.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="000010-000000 is damaged"):
        assert find_newest(tmp_path)[1]["epoch"] == 8  # type: ignore[index]
    save(tmp_path, 9, keep=1)
    assert find_newest(tmp_path)[1]["epoch"] == 9  # type: ignore[index]


def test_nothing_whole_is_said_and_not_hidden(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "000001-000000" / "meta.json").write_bytes(b"\xff\xfe")
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(UserError, match="None of the 1 checkpoints"),
    ):
        find_newest(tmp_path)


def test_half_written_checkpoints_do_not_count(tmp_path: Path) -> None:
    (tmp_path / ".000007-000000.abc.tmp").mkdir()
    assert find_newest(tmp_path) is None
    assert find_newest(tmp_path / "absent") is None
    save(tmp_path, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["000008-000000"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_a_sentence_and_keeps_the_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False)
    if mounted.returncode != 0:
        pytest.skip("no right to mount a file system here")
    try:
        save(small, 1)
        saver = Saver(small, Runtime("cpu", "fp32"), 2, token="t")
        saver.save(2, 0, {"network-0": {"x": torch.zeros(10**6)}}, {})
        saver.wait()
        said = capsys.readouterr().err
        assert "no checkpoint was written, training goes on: No space left to write" in said
        with pytest.raises(UserError, match="No space left to write"):
            saver.finish()
        assert [path.name for path in small.iterdir()] == ["000001-000000"]
        assert find_newest(small)[1]["epoch"] == 1  # type: ignore[index]
    finally:
        subprocess.run(["umount", small], check=True)


def test_errno_is_what_we_think_it_is() -> None:
    assert os.strerror(errno.ENOSPC) == "No space left on device"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59, "59s"), (200, "3m20s"), (7500, "2h05m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
