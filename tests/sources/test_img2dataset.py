from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.errors import UserError
from thresher.sources.damage import left_out
from thresher.sources.detect import open_source
from thresher.sources.read import Reader

from .conftest import make_image, write_parquet_images, write_tar

Unprivileged = tuple[Path, Callable[[], AbstractContextManager[None]]]

FAILED = {2: ("failed_to_download", "HTTP Error 404: Not Found"), 5: ("failed_to_resize", "decode")}


def write_set(root: Path, shards: int = 2, size: int = 6) -> Path:
    """As img2dataset --output_format webdataset --save_additional_columns '["species"]'."""
    root.mkdir(exist_ok=True)
    for shard in range(shards):
        rows, members = [], dict[str, bytes]()
        for i in range(size):
            key = f"{shard:05}{i:04}"
            status, message = FAILED.get(i, ("success", None))
            row = {
                "url": f"http://host/{key}.jpg",
                "caption": f"a photo of {key}",
                "species": f"kind {i % 2}",
                "key": key,
                "status": status,
                "error_message": message,
                "width": 4,
                "height": 3,
                "original_width": 40,
                "original_height": 30,
                "exif": "{}",
                "sha256": "0" * 64,
            }
            rows.append(row)
            if status == "success":
                members[f"{key}.jpg"] = make_image(10 * shard + i)
                members[f"{key}.json"] = json.dumps(row).encode()
                members[f"{key}.txt"] = row["caption"].encode()  # type: ignore[attr-defined]
        write_tar(root / f"{shard:05}.tar", members)
        pq.write_table(pa.Table.from_pylist(rows), root / f"{shard:05}.parquet")
        counts = {"count": size, "successes": size - len(FAILED), "status_dict": {}}
        (root / f"{shard:05}_stats.json").write_text(json.dumps(counts))
    return root


@pytest.mark.parametrize("beside", [True, False])
def test_labels_from_the_parquet_file_or_from_json(tmp_path: Path, beside: bool) -> None:
    root = write_set(tmp_path / "set")
    if not beside:
        for file in root.glob("*.parquet"):
            file.unlink()
    manifest = open_source(str(root), label_column="species")
    assert manifest.classes == ("kind 0", "kind 1")
    assert manifest.labels.tolist() == [0, 1, 1, 0] * 2
    assert manifest.key(4) == "00001.tar/000010000.jpg"
    assert Reader(manifest).read(5) == make_image(11)
    if beside:
        assert manifest.options["failed_downloads"] == 4
        assert manifest.options["failed_reasons"] == {"HTTP Error 404: Not Found": 2, "decode": 2}
        assert manifest.options["missing_images"] == 0


def test_a_label_column_of_the_usual_name_needs_no_option(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    for file in root.glob("*.parquet"):
        table = pq.read_table(file)
        numbers = pa.array([i % 3 for i in range(table.num_rows)])
        pq.write_table(table.append_column("label", numbers), file)
    assert open_source(str(root)).labels.tolist() == [0, 1, 0, 1] * 2


def test_without_labels_the_user_is_told_where_they_may_be(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    with pytest.raises(UserError, match=r"beside the tar .* Choose a field with --label-column"):
        open_source(str(root))
    assert len(open_source(str(root), labelled=False)) == 8


def test_a_damaged_parquet_file_matters_only_where_its_labels_are_asked_for(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    (root / "00001.parquet").write_bytes(b"PAR1 cut")
    assert len(open_source(str(root), labelled=False)) == 8
    with pytest.raises(UserError, match=r"00001.parquet is not a readable Parquet file"):
        open_source(str(root), label_column="species")
    manifest = open_source(str(root), label_column="species", allow_damaged=True)
    assert manifest.labels.tolist() == [0, 1, 1, 0] * 2  # those of the second tar from .json
    assert list(manifest.options["damaged_shards"]) == [str(root / "00001.tar")]


def test_images_that_a_tar_should_have_are_counted(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    tar = root / "00001.tar"
    tar.write_bytes(tar.read_bytes()[: 2048 * 3])
    manifest = open_source(str(root), label_column="species", allow_damaged=True)
    assert manifest.options["missing_images"] == 8 - len(manifest) > 0


def test_a_packed_set_is_opened_by_its_index(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    manifest = open_source(str(root), label_column="species")
    names = tuple(Path(shard).name for shard in manifest.shards)
    replace(manifest, shards=names).save(root / "index.parquet")
    moved = root.rename(tmp_path / "moved")
    for data in (moved, moved / "index.parquet"):
        again = open_source(str(data))
        assert again.table.equals(manifest.table)
        assert again.shards == (f"{moved}/00000.tar", f"{moved}/00001.tar")
        assert Reader(again).read(5) == make_image(11)
    unlabelled = open_source(str(moved), labelled=False)
    assert unlabelled.labels.tolist() == [-1] * 8
    mapped = open_source(str(moved), classes=["kind 1", "kind 0", "kind 2"])
    assert mapped.labels.tolist() == [1, 0, 0, 1] * 2
    with pytest.raises(UserError, match="that training does not know: 'kind 0'"):
        open_source(str(moved), classes=["kind 1", "x"])


def test_shards_that_changed_since_the_scan(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    open_source(str(root), label_column="species").save(tmp_path / "manifest.parquet")
    tar = root / "00001.tar"
    size = tar.stat().st_size
    tar.write_bytes(tar.read_bytes() + b"\0" * 512)
    data = str(tmp_path / "manifest.parquet")
    with pytest.raises(UserError) as caught:
        open_source(data)
    assert str(caught.value) == (
        f"{tar} changed size since the scan, from {size:,} to {size + 512:,} bytes. Scan or pack "
        "the data again, or take the rest with --allow-damaged."
    )
    manifest = open_source(data, allow_damaged=True)
    assert manifest.count_states() == {"ok": 4, "shard changed since it was indexed": 4}
    assert list(manifest.options["damaged_shards"]) == [str(tar)]
    tar.unlink()
    with pytest.raises(UserError, match=f"There is no file {tar}. Put it there"):
        open_source(data)
    (root / "00000.tar").unlink()
    with pytest.raises(UserError, match=r"No other part of .* can be used either"):
        open_source(data, allow_damaged=True)


@pytest.mark.parametrize("folders", [False, True])
def test_a_parquet_file_that_may_not_be_read(unprivileged: Unprivileged, folders: bool) -> None:
    from .test_img2dataset_folders import write_set as write_folders

    folder, drop = unprivileged
    root = (write_folders if folders else write_set)(folder / "crawl")
    closed = root / "00001.parquet"
    closed.chmod(0o000)
    with drop():
        with pytest.raises(
            UserError, match=r"no right to read .*/00001\.parquet\. Change.*--allow"
        ):
            open_source(str(root), label_column="species")
        manifest = open_source(str(root), label_column="species", allow_damaged=True)
    assert list(manifest.options["damaged_shards"].values()) == [
        f"There is no right to read {closed}."
    ]
    if folders:  # where nothing else tells the labels
        assert manifest.labels.tolist() == [0, 1, -1, -1]
    else:
        assert manifest.labels.tolist() == [0, 1, 1, 0] * 2
    assert "There is no right to read" in (left_out(manifest.options) or "")


def test_labels_that_only_a_closed_parquet_file_tells_are_not_lost_in_silence(
    unprivileged: Unprivileged,
) -> None:
    folder, drop = unprivileged
    root = write_set(folder / "crawl")
    for number in range(2):
        rows = pq.read_table(root / f"{number:05}.parquet").rename_columns({"species": "label"})
        pq.write_table(rows, root / f"{number:05}.parquet")
        keys = [f"{number:05}{i:04}.jpg" for i in (0, 1, 3, 4)]
        write_tar(root / f"{number:05}.tar", {key: make_image(1) for key in keys})
    (root / "00001.parquet").chmod(0o000)
    with drop():
        with pytest.raises(UserError, match=r"no right to read .*/00001\.parquet"):
            open_source(str(root))
        manifest = open_source(str(root), allow_damaged=True)
    assert manifest.labels.tolist() == [0, 1, 1, 0, -1, -1, -1, -1]
    assert list(manifest.options["damaged_shards"]) == [str(root / "00001.tar")]


@pytest.mark.parametrize("ending", ["tar", "parquet"])
def test_a_shard_that_may_not_be_read_is_left_out(unprivileged: Unprivileged, ending: str) -> None:
    folder, drop = unprivileged
    for number in range(2):
        images = {f"{i}.jpg": make_image(i) for i in range(2)}
        if ending == "tar":
            write_tar(folder / f"{number}.tar", images | {"0.cls": b"0", "1.cls": b"1"})
        else:
            write_parquet_images(folder / f"{number}.parquet", list(images.values()), [0, 1])
    closed = folder / f"0.{ending}"
    closed.chmod(0o000)
    with drop():
        with pytest.raises(UserError, match=rf"[Nn]o right to read {closed}"):
            open_source(f"{folder}/*.{ending}")
        manifest = open_source(f"{folder}/*.{ending}", allow_damaged=True)
        reader = Reader(manifest)
        usable = manifest.usable.nonzero()[0].tolist()
        assert [reader.read(index) for index in usable] == [make_image(0), make_image(1)]
    assert manifest.options["damaged_shards"] == {
        str(closed): f"There is no right to read {closed}."
    }
