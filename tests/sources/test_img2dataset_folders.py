"""``img2dataset --output_format files``, as version 1.47 writes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import fsspec
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


def harm(file: Path, how: str) -> None:
    data = file.read_bytes()
    if how == "empty":
        file.write_bytes(b"")
    elif how == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:  # bytes that are no text, where the footer is good
        table = pq.read_table(file)
        pq.write_table(table, file, compression="none", use_dictionary=False)
        data = file.read_bytes()
        key = table["key"][0].as_py().encode()
        stored = len(key).to_bytes(4, "little") + key
        assert stored in data
        file.write_bytes(data.replace(stored, stored[:4] + b"\xff" + key[1:], 1))


@pytest.mark.parametrize("how", ["empty", "cut", "no text"])
@pytest.mark.parametrize("part", [0, 1])
def test_a_damaged_report_is_refused_or_left_out(tmp_path: Path, part: int, how: str) -> None:
    root = write_set(tmp_path / "crawl")
    report = root / f"{part:05}.parquet"
    harm(report, how)
    for column in ("species", None):
        with pytest.raises(UserError) as caught:
            open_source(str(root), label_column=column)
        said = str(caught.value)
        assert said.startswith(f"{report} ")
        assert f"labels of the folder {part:05}: download that part again" in said
        assert said.endswith("or take the rest with --allow-damaged.")
    manifest = open_source(str(root), label_column="species", allow_damaged=True)
    assert manifest.classes == ("cat", "dog")
    lost = [-1, -1]
    assert manifest.labels.tolist() == ([*lost, 0, 1] if part == 0 else [0, 1, *lost])
    assert manifest.count_states() == {"ok": 2, "no label": 2}
    assert list(manifest.options["damaged_shards"]) == [str(report)]
    assert manifest.options["missing_images"] == 0
    (root / f"{1 - part:05}" / f"{1 - part:05}02.jpg").unlink()
    manifest = open_source(str(root), labelled=False, allow_damaged=True)
    assert manifest.options["missing_images"] == 1  # of the part that has a report


def test_where_all_reports_are_damaged_there_are_no_labels(tmp_path: Path) -> None:
    root = write_set(tmp_path / "crawl")
    for part in range(2):
        harm(root / f"{part:05}.parquet", "cut")
    with pytest.raises(UserError, match=r"00000.parquet is not a readable .*download that part"):
        open_source(str(root))
    with pytest.raises(UserError, match=r"00000.parquet .* No other part of .* can be used"):
        open_source(str(root), allow_damaged=True)


def test_a_damaged_table_beside_a_class_makes_no_crawl_of_a_tree(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(make_image(1))
    (tmp_path / "cat.parquet").write_bytes(b"PAR1 cut")
    assert open_source(str(tmp_path)).classes == ("cat", "dog")
    # Numbers may be classes too: what can be read decides.
    (tmp_path / "cat.parquet").rename(tmp_path / "0.parquet")
    (tmp_path / "cat").rename(tmp_path / "0")
    pq.write_table(pa.table({"feature": [1.0]}), tmp_path / "dog.parquet")
    assert open_source(str(tmp_path)).classes == ("0", "dog")


def test_folders_without_the_right_to_read_them(
    unprivileged: tuple[Path, Callable[[], AbstractContextManager[None]]],
) -> None:
    folder, drop = unprivileged
    root = write_set(folder / "crawl")
    (root / "00001").chmod(0o000)
    with drop():
        with pytest.raises(UserError, match=r"No right to read .*/00001"):
            open_source(str(root), label_column="species")
        manifest = open_source(str(root), label_column="species", allow_damaged=True)
    assert manifest.labels.tolist() == [0, 1]
    assert manifest.options["closed_folders"] == ["00001"]


def test_a_damaged_first_report_at_a_url(tmp_path: Path) -> None:
    root = write_set(tmp_path / "crawl")
    harm(root / "00000.parquet", "cut")
    files = fsspec.filesystem("memory")
    files.put(str(root), "/damaged-crawl", recursive=True)
    try:
        data = "memory://damaged-crawl"
        with pytest.raises(UserError, match=r"00000.parquet is not a readable .*that part again"):
            open_source(data)
        manifest = open_source(data, label_column="species", allow_damaged=True)
        assert manifest.labels.tolist() == [-1, -1, 0, 1]
        assert list(manifest.options["damaged_shards"]) == [f"{data}/00000.parquet"]
    finally:
        files.rm("/damaged-crawl", recursive=True)
