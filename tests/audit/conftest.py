"""A made-up run directory whose images are real bytes: shapes drawn with Pillow."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image, ImageDraw

SCRIPT = "<script>alert(1)</script>"
CLASSES = ("circle", "square \"big\" & 'small'", SCRIPT, "三角形")


def draw(kind: int, size: int = 28, format_: str = "PNG") -> bytes:
    image = Image.new("RGB", (size, size), (235, 235, 230))
    pen = ImageDraw.Draw(image)
    box = (size * 0.2, size * 0.2, size * 0.8, size * 0.8)
    if kind % 2:
        pen.rectangle(box, fill=(170, 60, 30))
    else:
        pen.ellipse(box, fill=(40, 90, 120))
    buffer = io.BytesIO()
    image.save(buffer, format=format_)
    return buffer.getvalue()


@dataclass
class Rows:
    """Ledger columns as lists; ``write`` makes a run directory of them."""

    classes: Sequence[str]
    given: Sequence[int]
    suggested: Sequence[int]
    clean: Sequence[float]
    confidence: Sequence[float] | None = None
    keys: Sequence[str] | None = None
    status: Sequence[str] | None = None
    ids: Sequence[int] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    epochs: int = 4

    def table(self) -> pa.Table:
        num = len(self.given)
        names = np.array(self.classes, dtype=object)
        confidence = self.confidence if self.confidence is not None else [0.9] * num
        clean = np.asarray(self.clean, dtype=np.float32)
        table = pa.table(
            {
                "id": pa.array(self.ids if self.ids is not None else range(num), pa.int64()),
                "key": pa.array(self.keys or [f"img/{i:04d}.png" for i in range(num)]),
                "given_label": _labels(names[list(self.given)]),
                "suggested_label": _labels(names[list(self.suggested)]),
                "confidence": pa.array(confidence, pa.float32()),
                "clean_probability": clean,
                "weight": clean,
                "status": pa.array(self.status or ["trusted"] * num),
            }
        )
        return table.replace_schema_metadata({"thresher.classes": json.dumps(self.classes)})

    def write(self, path: Path) -> Path:
        path.mkdir(parents=True)
        config = {
            "data": "photos/train",
            "val": None,
            "method": "mct",
            "model": "small",
            "image_size": 28,
            "epochs": self.epochs,
            "batch_size": 64,
            "lr": 0.05,
            "seed": 3,
            "precision": "32-true",
            "torch_version": "2.10.0",
        }
        (path / "config.yaml").write_text(yaml.safe_dump(config | self.config, allow_unicode=True))
        lines = [json.dumps(epoch_event(e, self.epochs)) for e in range(1, self.epochs + 1)]
        (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        pq.write_table(self.table(), path / "ledger.parquet")
        return path


def _labels(names: np.ndarray) -> pa.Array:
    return pa.array(names, pa.string()).dictionary_encode()


def epoch_event(epoch: int, epochs: int, **changes: Any) -> dict[str, Any]:
    event = {
        "event": "epoch",
        "epoch": epoch,
        "epochs": epochs,
        "loss": [2.0 / epoch, 2.1 / epoch],
        "lr": 0.05,
        "kept_share": 1.0 - 0.05 * epoch,
        "accuracy": 0.5 + 0.1 * epoch if epoch % 2 == 0 else None,
        "accuracy_against": "noisy held-out labels",
        "images_per_second": 5000.0,
        "data_wait_share": 0.02,
        "seconds": 1.5,
    }
    return event | changes


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(**columns: Any) -> Path:
        return Rows(**columns).write(tmp_path / "run")

    return make


@pytest.fixture
def nasty_run(tmp_path: Path) -> Path:
    """120 samples of 4 classes with hostile names; two are unreadable, a third is wrong."""
    rng = np.random.default_rng(5)
    num = 120
    given = rng.integers(0, 4, num)
    wrong = rng.random(num) < 0.33
    suggested = np.where(wrong, (given + 1 + rng.integers(0, 3, num)) % 4, given)
    clean = np.where(wrong, rng.uniform(0.01, 0.4, num), rng.uniform(0.7, 0.99, num))
    confidence = rng.uniform(0.5, 1.0, num)
    status = ["down-weighted" if w else "trusted" for w in wrong]
    for row, reason in ((7, "unreadable: truncated file"), (8, "unreadable: <b>not</b> an image")):
        status[row] = reason
        clean[row] = confidence[row] = np.nan
        suggested[row] = given[row]
    keys = [f"{i:03d}-{SCRIPT}/\"quoted\" & 'all' 图片 {i:03d}.png" for i in range(num)]
    return Rows(
        classes=CLASSES,
        given=given.tolist(),
        suggested=suggested.tolist(),
        clean=clean.tolist(),
        confidence=confidence.tolist(),
        keys=keys,
        status=status,
        config={"data": f"/data/{SCRIPT}"},
    ).write(tmp_path / f"run {SCRIPT.replace('/', '')}")


@pytest.fixture
def read() -> Callable[[int], bytes]:
    """Bytes by id: most are small PNGs, some larger JPEGs, some missing, some broken."""

    def read_bytes(index: int) -> bytes:
        if index % 10 == 3:
            raise FileNotFoundError("the file is <gone>")
        if index % 10 == 4:
            return b"no image at all"
        if index % 2:
            return draw(index, 200, "JPEG")
        return draw(index)

    return read_bytes
