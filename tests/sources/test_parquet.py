from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.errors import UserError
from thresher.sources.detect import open_source
from thresher.sources.read import Reader, ReadError

from .conftest import make_image, write_parquet_images

IMAGES: list[bytes | None] = [make_image(i) for i in range(7)]


@pytest.mark.parametrize("plain", [False, True])
def test_integer_labels_get_the_names_of_the_metadata(tmp_path: Path, plain: bool) -> None:
    labels: list[object] = [2, 0, 1, 1, None, 0, -1]
    names = ["zebra", "ant", "猫"]
    path = write_parquet_images(tmp_path / "a.parquet", IMAGES, labels, names=names, plain=plain)
    manifest = open_source(str(path))
    assert manifest.kind == "parquet"
    assert manifest.classes == ("zebra", "ant", "猫")
    assert manifest.labels.tolist() == [2, 0, 1, 1, -1, 0, -1]
    assert manifest.states.tolist() == ["ok"] * 4 + ["no label", "ok", "no label"]
    assert [manifest.key(i) for i in (0, 6)] == ["a.parquet:0", "a.parquet:6"]
    reader = Reader(manifest)
    assert [reader.read(i) for i in (6, 0, 3, 1, 2, 5, 4)] == [
        IMAGES[i] for i in (6, 0, 3, 1, 2, 5, 4)
    ]


def test_given_classes_are_mapped_onto_by_name_not_by_number(tmp_path: Path) -> None:
    path = write_parquet_images(tmp_path / "a.parquet", IMAGES[:3], [0, 1, 0], names=["x", "y"])
    manifest = open_source(str(path), classes=["y", "q", "x"])
    assert manifest.classes == ("y", "q", "x")
    assert manifest.labels.tolist() == [2, 0, 2]
    with pytest.raises(UserError, match="that training does not know: 'y'"):
        open_source(str(path), classes=["x", "z"])


def test_a_folder_or_a_pattern_of_files(tmp_path: Path) -> None:
    for part in range(3):
        chunk = IMAGES[2 * part : 2 * part + 2]
        where: list[str | None] = [f"{part}-{i}.jpg" for i in range(2)]
        write_parquet_images(
            tmp_path / f"train-{part}.parquet", chunk, ["b", "a"], paths=where, row_group_size=1
        )
    for data in (str(tmp_path), f"{tmp_path}/train-*.parquet"):
        manifest = open_source(data)
        assert [manifest.key(i) for i in (0, 3)] == ["0-0.jpg", "1-1.jpg"]
        assert manifest.labels.tolist() == [1, 0] * 3
        assert manifest.table["shard"].to_pylist() == [0, 0, 1, 1, 2, 2]
        assert manifest.table["offset"].to_pylist() == [0, 1] * 3
        reader = Reader(manifest)
        assert [reader.read(i) for i in range(6)] == IMAGES[:6]


def test_paths_that_repeat_are_not_keys(tmp_path: Path) -> None:
    path = write_parquet_images(
        tmp_path / "a.parquet", IMAGES[:2], [0, 1], paths=["same.jpg", "same.jpg"]
    )
    manifest = open_source(str(path))
    assert [manifest.key(i) for i in range(2)] == ["a.parquet:0", "a.parquet:1"]


def test_the_only_named_label_column_is_taken(tmp_path: Path) -> None:
    path = write_parquet_images(
        tmp_path / "a.parquet", IMAGES[:2], [1, 0], names=["p", "q"], label_column="species"
    )
    assert open_source(str(path)).classes == ("p", "q")


def test_columns_of_any_name_by_option(tmp_path: Path) -> None:
    table = pa.table({"one": [b"1", b"2"], "two": [b"3", b"4"], "kind": ["p", "q"]})
    pq.write_table(table, tmp_path / "a.parquet")
    manifest = open_source(str(tmp_path / "a.parquet"), image_column="two", label_column="kind")
    assert [Reader(manifest).read(i) for i in range(2)] == [b"3", b"4"]
    with pytest.raises(UserError, match=r"Several columns of .* hold bytes: 'one', 'two'"):
        open_source(str(tmp_path / "a.parquet"), label_column="kind")
    with pytest.raises(UserError, match=r"no column 'kind' of image bytes. .*: 'one', 'two'"):
        open_source(str(tmp_path / "a.parquet"), image_column="kind")
    with pytest.raises(UserError, match=r"hold the label. Its columns: 'one', 'two', 'kind'"):
        open_source(str(tmp_path / "a.parquet"), image_column="one")


def test_without_labels(tmp_path: Path) -> None:
    path = write_parquet_images(tmp_path / "a.parquet", IMAGES[:2], None)
    manifest = open_source(str(path), labelled=False)
    assert manifest.states.tolist() == ["ok", "ok"]
    assert Reader(manifest).read(1) == IMAGES[1]


def test_a_row_without_bytes_and_a_file_that_changed(tmp_path: Path) -> None:
    path = write_parquet_images(tmp_path / "a.parquet", [IMAGES[0], None], [0, 1])
    manifest = open_source(str(path))
    reader = Reader(manifest)
    assert reader.read(0) == IMAGES[0]
    with pytest.raises(ReadError, match="no image bytes in this row"):
        reader.read(1)
    write_parquet_images(path, IMAGES, list(range(7)))
    with pytest.raises(ReadError, match="shard changed since it was indexed"):
        Reader(manifest).read(0)
    path.unlink()
    with pytest.raises(ReadError, match="file vanished"):
        Reader(manifest).read(0)


def test_a_damaged_row_group_is_the_reason_of_its_samples_only(tmp_path: Path) -> None:
    path = write_parquet_images(tmp_path / "a.parquet", IMAGES, list(range(7)))
    manifest = open_source(str(path))
    second = pq.read_metadata(path).row_group(1).column(0)
    raw = bytearray(path.read_bytes())
    start = second.dictionary_page_offset or second.data_page_offset
    raw[start : start + second.total_compressed_size] = b"\xff" * second.total_compressed_size
    path.write_bytes(raw)
    reader = Reader(manifest)
    assert reader.read(0) == IMAGES[0]
    with pytest.raises(ReadError, match="row group 1 is damaged"):
        reader.read(3)
    assert reader.read(6) == IMAGES[6]


def test_parquet_that_cannot_be_used(tmp_path: Path) -> None:
    def refused(name: str) -> str:
        with pytest.raises(UserError) as caught:
            open_source(str(tmp_path / name))
        return str(caught.value)

    pq.write_table(pa.table({"caption": ["x"], "n": [1]}), tmp_path / "captions.parquet")
    assert "has no image column. Its columns: 'caption', 'n'." in refused("captions.parquet")

    write_parquet_images(tmp_path / "beyond.parquet", IMAGES[:2], [0, 3], names=["x", "y"])
    assert "has the label 3, but it names only 2 classes (0 to 1)" in refused("beyond.parquet")

    write_parquet_images(tmp_path / "one.parquet", IMAGES[:2], [0, 0], names=["x", "y"])
    assert "has only one class, 'x'" in refused("one.parquet")

    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
    pq.write_table(schema.empty_table(), tmp_path / "empty.parquet")
    assert "has no rows" in refused("empty.parquet")

    whole = write_parquet_images(tmp_path / "cut.parquet", IMAGES[:2], [0, 1]).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    assert "cut.parquet is not a readable Parquet file" in refused("cut.parquet")


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    write_parquet_images(tmp_path / "x" / "train-0.parquet", IMAGES[:2], [0, 1])
    write_parquet_images(tmp_path / "x" / "test-0.parquet", IMAGES[:2], [0, 1])
    with pytest.raises(UserError, match=r"several splits: 'test', 'train'. Name one, as in '.*\*"):
        open_source(str(tmp_path / "x"))
    write_parquet_images(tmp_path / "y" / "0.parquet", IMAGES[:2], [0, 1])
    write_parquet_images(tmp_path / "y" / "1.parquet", IMAGES[:2], ["a", "b"])
    with pytest.raises(UserError, match=r"1.parquet has no column 'label' of the same type"):
        open_source(str(tmp_path / "y"))
    write_parquet_images(tmp_path / "z" / "0.parquet", IMAGES[:2], [0, 1], names=["a", "b"])
    write_parquet_images(tmp_path / "z" / "1.parquet", IMAGES[:2], [0, 1], names=["b", "a"])
    with pytest.raises(UserError, match=r"1.parquet names other classes"):
        open_source(str(tmp_path / "z"))


def test_two_columns_of_one_name_and_lists_of_images(tmp_path: Path) -> None:
    labels = [pa.array([0, 1]), pa.array([1, 0])]
    table = pa.Table.from_arrays([pa.array(IMAGES[:2]), *labels], names=["image", "label", "label"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has 2 columns named 'label'"):
        open_source(str(tmp_path / "a.parquet"))
    assert len(open_source(str(tmp_path / "a.parquet"), labelled=False)) == 2
    lists = pa.table({"image": [IMAGES[:2], IMAGES[2:4]], "label": [0, 1]})
    pq.write_table(lists, tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"more than one image or path\. Write a row for each"):
        open_source(str(tmp_path / "b.parquet"))


def test_rows_without_an_image(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": IMAGES[0], "path": "a"}, None, {"bytes": IMAGES[2], "path": None}]
    table = pa.table({"image": pa.array(cells, kind), "label": [0, 1, 1]})
    pq.write_table(table, tmp_path / "a.parquet")
    reader = Reader(open_source(str(tmp_path / "a.parquet")))
    assert [reader.read(i) for i in (0, 2)] == [IMAGES[0], IMAGES[2]]
    with pytest.raises(ReadError, match="no image bytes in this row"):
        reader.read(1)
