"""The embedded data are what they claim to be."""

from __future__ import annotations

import importlib.metadata
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

SOURCE = Path("/usr/share/datasets/fashion-mnist")
GROUPS = ((0, 2, 3, 4, 6), (5, 7, 9))


def labels(fashion: Path) -> tuple[np.ndarray, np.ndarray]:
    noisy = pq.read_table(fashion / "train.parquet")["label"].to_numpy()
    true = pq.read_table(fashion / "train-true.parquet")["label"].to_numpy()
    return noisy, true


def test_sizes_and_balance(fashion: Path) -> None:
    noisy, true = labels(fashion)
    assert np.bincount(true).tolist() == [200] * 10
    test = pq.read_table(fashion / "test.parquet")["label"].to_numpy()
    assert np.bincount(test).tolist() == [100] * 10
    assert sum(path.stat().st_size for path in fashion.glob("*.parquet")) < 4 * 2**20
    assert len(noisy) == 2000


def test_two_fifths_of_each_class_are_wrong_mostly_within_groups(fashion: Path) -> None:
    noisy, true = labels(fashion)
    wrong = noisy != true
    assert [int(wrong[true == c].sum()) for c in range(10)] == [80] * 10
    for group in GROUPS:
        of_group = wrong & np.isin(true, group)
        inside = np.isin(noisy[of_group], group).mean()
        # 75 % by design, and a uniform label may fall into the group too.
        assert 0.75 < inside < 0.92


def test_images_are_png_and_carry_class_names(fashion: Path) -> None:
    table = pq.read_table(fashion / "train.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"]["names"][9] == "ankle boot"
    for cell in table["image"].to_pylist()[::400]:
        image = Image.open(io.BytesIO(cell["bytes"]))
        assert (image.format, image.size, image.mode) == ("PNG", (28, 28), "L")


@pytest.mark.skipif(not SOURCE.exists(), reason="needs Debian's dataset-fashion-mnist")
def test_the_script_makes_them_again(fashion: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, fashion / "make.py", "--out", tmp_path], check=True)
    source = (fashion / "make.py").read_text()
    same_versions = all(
        f'"{name}": "{importlib.metadata.version(name)}"' in source
        for name in ("pyarrow", "pillow", "numpy")
    )
    for name in ("train", "test", "train-true"):
        made, kept = tmp_path / f"{name}.parquet", fashion / f"{name}.parquet"
        assert pq.read_table(made).equals(pq.read_table(kept)) or not same_versions
        if same_versions:
            assert made.read_bytes() == kept.read_bytes()
        else:
            labels = [pq.read_table(path)["label"] for path in (made, kept)]
            assert labels[0].equals(labels[1])
