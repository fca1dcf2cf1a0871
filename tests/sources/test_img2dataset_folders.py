"""``img2dataset --output_format files``, as version 1.47 writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.cli import main
from thresher.errors import UserError
from thresher.scan.run import scan
from thresher.sources.detect import open_source
from thresher.sources.read import Reader

from .conftest import make_image


def write_set(root: Path) -> Path:
    """Two parts of three addresses, of which the second never came."""
    for part in range(2):
        folder = root / f"{part:05}"
        folder.mkdir(parents=True)
        rows = []
        for i in range(3):
            key = f"{part:05}{i:02}"
            good = i != 1
            row = {
                "species": ["cat", "dog", "dog"][i],
                "caption": ["my cat", "a dog", "a dog"][i],
                "url": f"http://host/{key}.jpg",
                "key": key,
                "status": "success" if good else "failed_to_download",
                "error_message": None if good else "HTTP Error 404: File not found",
                "sha256": "0" * 64 if good else None,
            }
            rows.append(row)
            if good:
                (folder / f"{key}.jpg").write_bytes(make_image(10 * part + i))
                (folder / f"{key}.json").write_text(json.dumps(row))
                (folder / f"{key}.txt").write_text(str(row["caption"]))
        pq.write_table(pa.Table.from_pylist(rows), root / f"{part:05}.parquet")
        (root / f"{part:05}_stats.json").write_text("{}")
    return root


def test_labels_are_in_the_parquet_files_and_no_class_is_named_00000(tmp_path: Path) -> None:
    root = write_set(tmp_path / "crawl")
    manifest = open_source(str(root), label_column="species")
    assert manifest.classes == ("cat", "dog")
    assert manifest.labels.tolist() == [0, 1] * 2
    assert manifest.key(3) == "00001/0000102.jpg"
    assert Reader(manifest).read(3) == make_image(12)
    with pytest.raises(UserError, match="parts of the download, not classes"):
        open_source(str(root))
    assert len(open_source(str(root), labelled=False)) == 4


def test_a_scan_tells_of_failed_downloads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_set(tmp_path / "crawl")
    (root / "00000/0000002.jpg").write_bytes(b"<html>")
    words = ["--label-column", "species", "--out", str(tmp_path / "out")]
    assert main(["scan", str(root), *words]) == 0
    said = capsys.readouterr().out
    assert "Never downloaded: 2, says img2dataset; most often: HTTP Error 404" in said
    assert (
        "Unreadable: not an image: a web page, such as servers send for images that are gone (1)"
        in said
    )
    (root / "00001/0000102.jpg").unlink()
    notes = scan(str(root), tmp_path / "out").findings.notes
    assert "Downloaded, says img2dataset, but not there: 1." in notes


def test_captions_become_labels(tmp_path: Path) -> None:
    root = write_set(tmp_path / "crawl")
    (tmp_path / "classes.yaml").write_text("dog: [dog]\ncat: [cat]\n")
    out = tmp_path / "labels.parquet"
    words = ["--classes", str(tmp_path / "classes.yaml"), "--out", str(out)]
    assert main(["label", str(root), *words]) == 0
    manifest = open_source(str(out))
    assert manifest.labels.tolist() == [0, 1] * 2
    assert Reader(manifest).read(2) == make_image(10)
