"""Parquet as ``Dataset.to_parquet`` of Hugging Face writes it: paths where bytes would be."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.errors import UserError
from thresher.sources.detect import open_source
from thresher.sources.read import Reader

from .conftest import make_image, write_parquet_images, write_tree

NAMES = ["zebra", "ant"]


def write_set(root: Path, where: str) -> list[Path]:
    """Two files of datasets 5.2 for five images below ``root``, named by ``where``."""
    write_tree(root, {f"photos/{i}.jpg": make_image(i) for i in range(5)})
    places: list[str | None] = [where.format(root=root, i=i) for i in range(5)]
    return [
        write_parquet_images(
            root / f"train-0000{part}-of-00002.parquet",
            [None] * len(rows),
            [i % 2 for i in rows],
            names=NAMES,
            paths=[places[i] for i in rows],
        )
        for part, rows in enumerate([range(3), range(3, 5)])
    ]


@pytest.mark.parametrize("where", ["{root}/photos/{i}.jpg", "photos/{i}.jpg"])
def test_images_are_read_where_the_paths_lead(tmp_path: Path, where: str) -> None:
    write_set(tmp_path, where)
    manifest = open_source(f"{tmp_path}/train-*.parquet")
    assert manifest.classes == ("zebra", "ant")
    assert manifest.labels.tolist() == [0, 1, 0, 1, 0]
    reader = Reader(manifest)
    assert [reader.read(i) for i in range(5)] == [make_image(i) for i in range(5)]


def test_images_that_are_elsewhere_are_told_with_the_way_out(tmp_path: Path) -> None:
    write_set(tmp_path, "photos/{i}.jpg")
    (tmp_path / "photos/4.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 5 files .* 'photos/4.jpg'.* save_to_disk first"):
        open_source(f"{tmp_path}/train-*.parquet")
    manifest = open_source(f"{tmp_path}/train-*.parquet", allow_damaged=True)
    assert manifest.count_states() == {"ok": 4, "file not found": 1}


def test_a_table_of_paths_knows_the_names_of_its_classes(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{i}.jpg": make_image(i) for i in range(3)})
    features = {"label": {"names": NAMES, "_type": "ClassLabel"}}
    table = pa.table({"path": ["0.jpg", "1.jpg", "2.jpg"], "label": [1, 0, -1]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    manifest = open_source(str(tmp_path / "a.parquet"))
    assert manifest.classes == ("zebra", "ant")
    assert manifest.labels.tolist() == [1, 0, -1]
