from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.errors import UserError
from thresher.sources.detect import open_source
from thresher.sources.exists import find_missing
from thresher.sources.manifest import Manifest
from thresher.sources.read import Reader

from .conftest import make_image, write_tree

ROWS = [("猫/a&b <i>.jpg", "cat"), ("d 1.jpg", "dog"), ("d 2.jpg", "cat")]


@pytest.fixture
def images(tmp_path: Path) -> dict[str, bytes]:
    files = {path: make_image(i) for i, (path, _) in enumerate(ROWS)}
    write_tree(tmp_path, files)
    return files


def write_table(path: Path) -> str:
    match path.suffix:
        case ".csv":
            lines = ["extra,path,label", *(f'"x\ny",{file},{label}' for file, label in ROWS)]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
        case ".tsv":
            lines = ["path\tlabel", *(f"{file}\t{label}" for file, label in ROWS)]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        case ".jsonl":
            lines = [json.dumps({"path": file, "label": label}) for file, label in ROWS]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        case _:
            files, labels = zip(*ROWS, strict=True)
            pq.write_table(pa.table({"label": labels, "path": files}), path)
    return str(path)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_of_each_form(tmp_path: Path, images: dict[str, bytes], suffix: str) -> None:
    manifest = open_source(write_table(tmp_path / f"t.{suffix}"))
    assert manifest.kind == "files"
    assert manifest.classes == ("cat", "dog")
    assert manifest.labels.tolist() == [0, 1, 0]
    assert [manifest.key(i) for i in range(3)] == [path for path, _ in ROWS]
    reader = Reader(manifest)
    assert [reader.read(i) for i in range(3)] == list(images.values())


def open_rows(tmp_path: Path, text: str, **options: object) -> Manifest:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    return open_source(str(tmp_path / "t.csv"), **options)  # type: ignore[arg-type]


def test_columns_are_found_by_name_or_chosen(tmp_path: Path, images: dict[str, bytes]) -> None:
    text = "Filename;Category;other\nd 1.jpg;b;q\nd 2.jpg;a;r\n"
    assert open_rows(tmp_path, text).labels.tolist() == [1, 0]
    chosen = open_rows(tmp_path, text, label_column="other", path_column="Filename")
    assert chosen.classes == ("q", "r")


def test_integers_are_sorted_by_value_and_leading_zeros_kept(
    tmp_path: Path, images: dict[str, bytes]
) -> None:
    rows = "path,label\nd 1.jpg,10\nd 2.jpg,9\nd 1.jpg,-1\n"
    manifest = open_rows(tmp_path, rows)
    assert manifest.classes == ("-1", "9", "10")
    assert manifest.labels.tolist() == [2, 1, 0]
    assert manifest.options["repeated_paths"] == 1
    assert open_rows(tmp_path, "path,label\nd 1.jpg,007\nd 2.jpg,1\n").classes == ("1", "007")


def test_rows_without_label_or_path_are_marked(tmp_path: Path, images: dict[str, bytes]) -> None:
    manifest = open_rows(tmp_path, "path,label\nd 1.jpg,a\nd 2.jpg,  \n,b\n")
    assert manifest.states.tolist() == ["ok", "no label", "no path"]
    assert manifest.labels.tolist() == [0, -1, 1]


def test_null_labels_of_a_parquet_table(tmp_path: Path, images: dict[str, bytes]) -> None:
    table = pa.table({"path": ["d 1.jpg"] * 4, "label": [2.0, None, float("nan"), 1.0]})
    pq.write_table(table, tmp_path / "t.parquet")
    manifest = open_source(str(tmp_path / "t.parquet"))
    assert manifest.classes == ("1", "2")
    assert manifest.labels.tolist() == [1, -1, -1, 0]
    assert manifest.states.tolist() == ["ok", "no label", "no label", "ok"]


def test_absolute_paths(tmp_path: Path, images: dict[str, bytes]) -> None:
    (tmp_path / "sub").mkdir()
    text = f"path,label\n{tmp_path}/d 1.jpg,a\n../d 2.jpg,b\n"
    manifest = open_rows(tmp_path / "sub", text)
    assert Reader(manifest).read(0) == images["d 1.jpg"]
    assert Reader(manifest).read(1) == images["d 2.jpg"]


def test_without_labels_only_paths_are_needed(tmp_path: Path, images: dict[str, bytes]) -> None:
    manifest = open_rows(tmp_path, "path\nd 1.jpg\n", labelled=False)
    assert manifest.states.tolist() == ["ok"]
    assert manifest.labels.tolist() == [-1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "{} is empty: it lists no images."),
        (b"\n\n", "{} is empty: it lists no images."),
        (b"path,label\n", "{} is empty: it lists no images."),
        (
            b"where,what\nx,y\n",
            "{} has no column that is known to hold the path. Its columns: 'where', 'what'. "
            "Choose the path column with --path-column.",
        ),
        (
            b"path,what\nx,y\n",
            "{} has no column that is known to hold the label. Its columns: 'path', 'what'. "
            "Choose the label column with --label-column.",
        ),
        (b"path,label\nd 1.jpg,caf\xe9\n", "{} is not UTF-8 text"),
        (b"p\xe9th,label\nd 1.jpg,a\n", "{} is not UTF-8 text"),
        ("path,label\nd 1.jpg,a\n".encode("utf-16"), "{} is UTF-16 text. Save it as UTF-8."),
        (b"path,label\nd 1.jpg,a\nd 2.jpg,b,c\n", "{} cannot be read as a table: "),
        (b"path,label\nd 1.jpg,a\nd 2.jpg,a\n", "{} has only one class, 'a'."),
        (b"path,label\nd 1.jpg,\nd 2.jpg,\n", "No sample of {} has a label."),
        (
            b"path,label\nd 1.jpg,a\nx.jpg,b\ny.jpg,b\nz.jpg,b\nw.jpg,b\n",
            "4 of 5 files listed in {} do not exist, the first: "
            "'x.jpg', 'y.jpg', 'z.jpg'. Relative paths are relative to the table's folder,",
        ),
        (b"path,label\nfile:///a/b.jpg,a\nfile:///a/c.jpg,b\n", "cannot be read from a table"),
    ],
)
def test_a_csv_that_cannot_be_used(
    tmp_path: Path, images: dict[str, bytes], text: bytes, sentence: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text)
    with pytest.raises(UserError) as caught:
        open_source(str(path))
    assert sentence.replace("{}", str(path)) in str(caught.value)


def test_a_chosen_column_that_does_not_exist(tmp_path: Path, images: dict[str, bytes]) -> None:
    with pytest.raises(UserError, match=r"has no column 'lable'. Its columns: 'path', 'label'"):
        open_rows(tmp_path, "path,label\nd 1.jpg,a\n", label_column="lable")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "is empty"),
        (b'{"path": "d 1.jpg"', "cannot be read as a table"),
        (b'{"path": "d 1.jpg", "label": [1]}\n', "is of type list"),
        (b'{"path": 5, "label": 1}\n', "is of type int64; paths are text"),
        (b'{"path": "d 1.jpg", "label": 0.5}\n', "holds fractions"),
        (b'{"path": "d 1.jpg", "label": "\xe9"}\n', "is not UTF-8 text"),
    ],
)
def test_json_lines_that_cannot_be_used(
    tmp_path: Path, images: dict[str, bytes], text: bytes, sentence: str
) -> None:
    (tmp_path / "t.jsonl").write_bytes(text)
    with pytest.raises(UserError, match=sentence):
        open_source(str(tmp_path / "t.jsonl"))


def test_missing_files_are_marked_by_option(tmp_path: Path, images: dict[str, bytes]) -> None:
    text = "path,label\nd 1.jpg,a\nx.jpg,b\n"
    manifest = open_rows(tmp_path, text, allow_damaged=True)
    assert manifest.states.tolist() == ["ok", "file not found"]


def test_missing_files_are_found_in_small_and_large_folders(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"big/{i}.jpg": b"" for i in range(0, 40, 2)} | {"one/a.jpg": b""})
    (tmp_path / "big" / "39.jpg").mkdir()
    paths = [f"big/{i}.jpg" for i in range(40)] + ["one/a.jpg", "one/b.jpg", "none/a.jpg"]
    absolute = [f"{tmp_path}/big/{i}.jpg" for i in (0, 1)]
    missing = find_missing(str(tmp_path), pa.chunked_array([paths, absolute]))
    assert missing.tolist() == [bool(i % 2) for i in range(40)] + [False, True, True, False, True]


def test_paths_that_cannot_exist(tmp_path: Path, images: dict[str, bytes]) -> None:
    lines = [f"{'x' * 300}/{i}\0{i}.jpg,b" for i in range(20)] + ["d 1.jpg,a"]
    lines += [f"nul\0/{i}.jpg,b" for i in range(20)]
    with pytest.raises(UserError, match="40 of 41 files listed"):
        open_rows(tmp_path, "path,label\n" + "\n".join(lines))


def test_a_large_table_opens_fast(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"f{i}/x.jpg": b"" for i in range(20)})
    lines = [f"f{i % 20}/x.jpg,{i % 1000}\n" for i in range(200_000)]
    start = time.perf_counter()
    manifest = open_rows(tmp_path, "path,label\n" + "".join(lines))
    seconds = time.perf_counter() - start
    assert len(manifest) == 200_000
    assert manifest.classes == tuple(str(i) for i in range(1000))
    assert manifest.labels[:3].tolist() == [0, 1, 2]
    assert seconds < 5  # 0.2 s on two cores; a Python loop over the rows would be seen


def test_a_quotation_mark_that_is_not_closed_does_not_swallow_rows(
    tmp_path: Path, images: dict[str, bytes]
) -> None:
    rows = "".join(f'{file},"{label}\n' for file, label in ROWS[:2])
    (tmp_path / "t.csv").write_text(f"path,label\n{rows}", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"Labels of .* reach over several lines \(1\), the first: 'cat"
    ):
        open_source(str(tmp_path / "t.csv"), allow_damaged=True)


def test_two_columns_of_one_name_are_not_chosen_between(
    tmp_path: Path, images: dict[str, bytes]
) -> None:
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["path", "label", "label"])
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("path,label,label\na,b,c\n")
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(UserError, match=rf"{name} has 2 columns named 'label'. Give those"):
            open_source(str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[{"path": "a", "label": 1}]', "one JSON object a line, not one list of all"),
        ('{"path":"a","label":1}\n{"path":"b","label":"x"}\n', "as numbers, or all as text"),
        ("# a remark\npath,label\na,b\n", "The first line has to name the columns"),
        ("path,label\na\n", "and each line to have as many"),
    ],
)
def test_what_to_do_about_a_table_that_cannot_be_parsed(
    tmp_path: Path, text: str, sentence: str
) -> None:
    file = tmp_path / ("t.csv" if "path,label" in text else "t.jsonl")
    file.write_text(text)
    with pytest.raises(UserError, match=f"cannot be read as a table: .*{sentence}"):
        open_source(str(file))


@pytest.mark.parametrize(
    ("there", "listed", "sentence"),
    [
        ("e\u0301.jpg", "\u00e9.jpg", "written otherwise in Unicode"),
        ("\u00e9.jpg", "e\u0301.jpg", "written otherwise in Unicode"),
        ("a.jpg", " a.jpg ", "without the spaces around their names"),
    ],
)
def test_files_that_are_there_under_nearly_that_name(
    tmp_path: Path, there: str, listed: str, sentence: str
) -> None:
    write_tree(tmp_path, {there: make_image(0)})
    (tmp_path / "t.csv").write_text(f"path,label\n{listed},x\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"1 of 1 files .* do not exist.*{sentence}"):
        open_source(str(tmp_path / "t.csv"), labelled=False)
