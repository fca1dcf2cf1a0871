"""The part of the report on how the network was trained: facts, final accuracy and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thresher.audit.charts import Chart, line_chart
from thresher.audit.load import Epoch, Run
from thresher.audit.words import count, duration, percent

METHODS = {"mct": "mutual calibration (mct)", "ce": "cross-entropy (ce)"}
# Configuration keys worth a line of their own, in this order; the rest is folded away.
_FACTS = {
    "data": "Training data",
    "val": "Validation data",
    "clean": "Clean subset",
    "method": "Method",
    "model": "Network",
    "image_size": "Image size",
    "epochs": "Epochs",
    "batch_size": "Batch size",
    "lr": "Learning rate",
    "precision": "Precision",
    "seed": "Seed",
}
MAX_ROWS = 60


@dataclass(frozen=True)
class FinalAccuracy:
    """The last accuracy that was measured, and on what."""

    accuracy: float
    against: str
    epoch: int
    is_last: bool


def facts(run: Run) -> list[tuple[str, str]]:
    """What was trained, as (term, value) pairs in words."""
    out = []
    for key, term in _FACTS.items():
        value = run.config.get(key)
        if value is None or value == "":
            continue
        if key == "method":
            text = METHODS.get(str(value), str(value))
        elif key == "image_size" and isinstance(value, int):
            text = f"{value} × {value} pixels"
        else:
            text = _text(value)
        out.append((term, text))
    seconds = [e.seconds for e in run.epochs if e.seconds is not None]
    if seconds:
        out.append(("Training time", duration(sum(seconds))))
    rates = sorted(e.images_per_second for e in run.epochs if e.images_per_second is not None)
    if rates:
        out.append(("Images per second", f"{count(rates[len(rates) // 2])} (median epoch)"))
    out += [(f"{name} version", text) for name, text in _versions(run.config)]
    return out


def other_settings(run: Run) -> list[tuple[str, str]]:
    """The rest of the configuration."""
    return [(k, _text(v)) for k, v in run.config.items() if k not in _FACTS]


def final_accuracy(epochs: tuple[Epoch, ...]) -> FinalAccuracy | None:
    """The accuracy of the last epoch that has one: the last, never the best."""
    for epoch in reversed(epochs):
        if epoch.accuracy is not None:
            return FinalAccuracy(
                epoch.accuracy,
                epoch.accuracy_against or "labels of unknown origin",
                epoch.epoch,
                epoch is epochs[-1],
            )
    return None


def curves(epochs: tuple[Epoch, ...]) -> list[Chart]:
    """Charts of loss, accuracy and kept share, as far as they were measured."""
    if not epochs:
        return []
    numbers = [e.epoch for e in epochs]
    networks = max(len(e.loss) for e in epochs)
    losses = [
        (
            f"network {n + 1}" if networks > 1 else "",
            [e.loss[n] if n < len(e.loss) else math.nan for e in epochs],
        )
        for n in range(networks)
    ]
    final = final_accuracy(epochs)
    charts = (
        line_chart(
            "Training loss",
            "mean per image, each network" if networks > 1 else "mean per image",
            numbers,
            losses,
            lambda v: f"{v:.3g}",
            floor=0.0,
        ),
        line_chart(
            "Accuracy",
            f"measured against {final.against}" if final else "",
            numbers,
            [("", [e.accuracy for e in epochs])],
            lambda v: percent(v, 0 if abs(100 * v - round(100 * v)) < 1e-6 else 1),
            ceiling=1.0,
        ),
        line_chart(
            "Kept share",
            "how much of the training labels counted",
            numbers,
            [("", [e.kept_share for e in epochs])],
            lambda v: percent(v, 0 if abs(100 * v - round(100 * v)) < 1e-6 else 1),
            floor=0.0,
            ceiling=1.0,
        ),
    )
    return [chart for chart in charts if chart is not None]


def epoch_rows(epochs: tuple[Epoch, ...]) -> list[list[str]]:
    """The curves as a table: at most about ``MAX_ROWS`` epochs, evenly chosen, with the last."""
    step = max(1, math.ceil(len(epochs) / MAX_ROWS))
    chosen = list(epochs[::-step])[::-1]
    return [
        [
            str(e.epoch),
            " / ".join(f"{loss:.4f}" for loss in e.loss),
            percent(e.accuracy, 1),
            percent(e.kept_share, 1),
        ]
        for e in chosen
    ]


def _versions(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Versions, whether listed under ``versions`` or as ``torch_version`` and the like."""
    nested = config.get("versions")
    found = dict(nested) if isinstance(nested, Mapping) else {}
    for key, value in config.items():
        if key.endswith("_version") and value is not None:
            found[key.removesuffix("_version")] = value
    return [(str(name), _text(value)) for name, value in found.items()]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    return "–" if value is None else str(value)
