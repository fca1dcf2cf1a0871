from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from thresher.errors import UserError
from thresher.export.weights import write_timm_config, write_weights
from thresher.models.factory import check_model_name, create_model, data_config, load_weights

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["small_cnn", "small_resnet", "resnet18"])
def test_saved_weights_load_back_through_timm(name: str, tmp_path: Path) -> None:
    model = create_model(name, 5).eval()
    classes = ("a", "b", "c", "d", "e")
    write_weights(model, tmp_path / "model.safetensors")
    write_timm_config(
        model,
        tmp_path / "config.json",
        architecture=name,
        image_size=32,
        crop_share=1.0,
        classes=classes,
    )
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    torch.testing.assert_close(loaded(IMAGES), model(IMAGES))
    assert loaded.pretrained_cfg["label_names"] == list(classes)
    by_path = timm.create_model(name, num_classes=5, checkpoint_path=tmp_path / "model.safetensors")
    torch.testing.assert_close(by_path.eval()(IMAGES), model(IMAGES))


@pytest.mark.parametrize(("name", "millions"), [("small_cnn", 0.24), ("small_resnet", 6.57)])
def test_small_networks_have_the_size_they_claim(name: str, millions: float) -> None:
    model = create_model(name, 10)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
    assert model(IMAGES).shape == (2, 10)
    assert model.forward_features(IMAGES).ndim == 4
    model.reset_classifier(3)
    assert model(IMAGES).shape == (2, 3)


def test_weights_with_another_head_give_the_body(tmp_path: Path) -> None:
    old = create_model("small_cnn", 7)
    write_weights(old, tmp_path / "m.safetensors")
    new = create_model("small_cnn", 10, weights=tmp_path / "m.safetensors")
    torch.testing.assert_close(new.features[0].weight, old.features[0].weight)
    assert new.head.out_features == 10


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(create_model("small_cnn", 7).state_dict(), tmp_path / "m.pth")
    with pytest.raises(UserError, match="weights of another network"):
        create_model("small_resnet", 7, weights=tmp_path / "m.pth")


def test_a_file_of_something_else_than_weights_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "m.pth")
    with pytest.raises(UserError, match="not a weights file"):
        create_model("small_cnn", 7, weights=tmp_path / "m.pth")


@pytest.mark.parametrize("content", [b"", b"not weights at all"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_other_files_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a weights file"):
        load_weights(create_model("small_cnn", 2), path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no weights file .*gone\.pth"):
        load_weights(create_model("small_cnn", 2), tmp_path / "gone.pth")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean resnet50"):
        check_model_name("resnet_50")
    with pytest.raises(UserError, match=r"Did you mean resnet18\."):
        check_model_name("resnet18.a1_in2k")


def test_a_network_that_timm_knows_no_data_of_gets_its_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: None)
    found = data_config("of_our_own")
    assert found["input_size"] == (3, 224, 224)
    assert len(found["mean"]) == len(found["std"]) == 3
