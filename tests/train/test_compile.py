"""``--compile``: PyTorch's compiler, without what turns its result into machine code."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from thresher.config import TrainConfig
from thresher.errors import UserError
from thresher.methods import all_methods
from thresher.train.run import train

QUIET = Console(quiet=True)


def run(data: Path, out: Path, **more: Any) -> dict[str, torch.Tensor]:
    config = TrainConfig(
        data=str(data), method="mct", model="small_cnn", epochs=3, batch_size=8, precision="fp32",
        threads=1, image_size=16, val_share=0.25, **more,
    )  # fmt: skip
    train(config, all_methods()["mct"].Options(), out, console=QUIET)
    return load_file(out / "model.safetensors")


def backend(monkeypatch: pytest.MonkeyPatch, name: Any) -> None:
    monkeypatch.setattr(
        torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=name)
    )
    torch.compiler.reset()


def test_a_compiled_network_learns_the_same_and_is_saved_as_ever(
    two_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(two_classes, tmp_path / "plain")
    compiled_graphs = []

    def count(graph: Any, example_inputs: Any) -> Any:
        compiled_graphs.append(graph)
        return graph.forward

    backend(monkeypatch, count)
    compiled = run(two_classes, tmp_path / "compiled", compile=True)
    # Students in training and teachers when they record; no measuring of accuracy.
    assert 1 <= len(compiled_graphs) <= 2
    assert plain.keys() == compiled.keys()
    for name, values in plain.items():
        torch.testing.assert_close(compiled[name], values, atol=1e-4, rtol=1e-3, msg=name)


def test_a_compiler_that_fails_is_said_in_words(
    two_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(graph: Any, example_inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler here")

    backend(monkeypatch, fail)
    with pytest.raises(UserError, match=r"--compile: PyTorch cannot compile small_cnn here \(.*"):
        run(two_classes, tmp_path / "run", compile=True)
