"""``thresher label`` from each kind of source to something that can be opened for training."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from thresher.cli import main
from thresher.sources.detect import open_source
from thresher.sources.manifest import Manifest
from thresher.sources.read import Reader

CAPTIONS = (
    "a dog",
    "Hot-Dog stand",
    "dogs & cat",
    "一只猫",
    "category",
    None,
    "my cat",
    "hot dog, dog",
)
LABELS_DROPPED = ["dog", "food", None, "cat", None, None, "cat", None]
LABELS_FIRST = ["dog", "food", "dog", "cat", None, None, "cat", "food"]


def image(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (number * 20, 9, 9)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a classes file and images."""
    monkeypatch.chdir(tmp_path)
    classes = "dog: [dog, dogs]\ncat: [cat, 猫]\nfood: [hot dog]\n"
    (tmp_path / "classes.yaml").write_text(classes, encoding="utf-8")
    folder = tmp_path / "crawl" / "img"
    folder.mkdir(parents=True)
    for number in range(len(CAPTIONS)):
        (folder / f"{number}.jpg").write_bytes(image(number))
    return tmp_path


def write_table(place: Path, suffix: str, extra: Sequence[str] = ()) -> str:
    paths = [f"img/{number}.jpg" for number in range(len(CAPTIONS))] + list(extra)
    captions = [*CAPTIONS, *["dog"] * len(extra)]
    table = pa.table({"path": paths, "width": [1] * len(paths), "caption": captions})
    out = place / "crawl" / f"meta{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, out)
    elif suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in table.to_pylist()]
        out.write_text("\n".join(lines), encoding="utf-8")
    else:
        options = pa.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ",")
        pa.csv.write_csv(table, out, options)
    return str(out)


def labels_of(manifest: Manifest) -> list[str | None]:
    return [manifest.classes[i] if i >= 0 else None for i in manifest.labels.tolist()]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("out", ["labels.csv", "crawl/labels.parquet"])
def test_a_table(place: Path, suffix: str, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_table(place, suffix)
    assert main(["label", source, "--classes", "classes.yaml", "--out", out]) == 0
    manifest = open_source(out)
    assert manifest.classes == ("cat", "dog", "food")
    assert labels_of(manifest) == LABELS_DROPPED
    assert Reader(manifest).read(3) == image(3)
    said = capsys.readouterr().out
    assert "text looked in: 'caption', chosen by its name" in said
    assert "8 images: 4 labelled, 2 without a match (25.0%), 2 with several" in said
    assert "cat + dog 1, dog + food 1" in said
    assert "guesses" in said


def test_the_columns_of_the_result(place: Path) -> None:
    source = write_table(place, ".csv")
    main(["label", source, "--classes", "classes.yaml", "--several", "first"])
    table = pq.read_table("labels.parquet").to_pydict()
    assert table["label"] == LABELS_FIRST
    assert table["phrase"] == ["dog", "hot dog", "dogs", "猫", None, None, "cat", "hot dog"]
    assert table["text_column"] == ["caption" if label else None for label in LABELS_FIRST]
    assert table["classes"][2] == ["dog", "cat"]
    assert table["classes"][4] == []


def test_columns_after_one_another_and_by_usual_names(place: Path) -> None:
    paths = pa.array([f"crawl/img/{i}.jpg" for i in range(3)])
    table = pa.table({"file": paths, "ALT_TEXT": ["a cat", "", None], "Query": ["dog"] * 3})
    pq.write_table(table, "t.parquet")
    main(["label", "t.parquet", "--classes", "classes.yaml", "--from", "alt,query"])
    found = pq.read_table("labels.parquet")
    assert found["label"].to_pylist() == ["cat", "dog", "dog"]
    assert found["text_column"].to_pylist() == ["ALT_TEXT", "Query", "Query"]


def test_rows_without_a_file_are_left_out_and_counted(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_table(place, ".csv", extra=["img/gone.jpg", ""])
    assert main(["label", source, "--classes", "classes.yaml"]) == 0
    said = capsys.readouterr().out
    assert "1 left out: file not found" in said
    assert "1 left out: no path" in said
    assert len(open_source("labels.parquet")) == len(CAPTIONS)


def test_a_tree_by_its_names(place: Path) -> None:
    tree = place / "tree"
    for name in ("cats/1.jpg", "x/cat001.jpg", "hot/dog.jpg", "hot_dog/ü 1.jpg", "狗/1.jpg"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(image(1))
    assert main(["label", "tree", "--classes", "classes.yaml"]) == 0
    table = pq.read_table("labels.parquet").to_pydict()
    found = {
        os.path.relpath(p, tree): n for p, n in zip(table["path"], table["label"], strict=True)
    }
    assert found == {
        "cats/1.jpg": None,
        "x/cat001.jpg": "cat",
        "hot/dog.jpg": "dog",
        "hot_dog/ü 1.jpg": "food",
        "狗/1.jpg": None,
    }
    assert Reader(open_source("labels.parquet")).read(0) == image(1)


def test_absolute_paths_are_read_below_what_they_share(place: Path) -> None:
    folder = place / "cat"
    for name in ("dog/1.jpg", "food/hot dog.jpg", "food/2.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image(1))
    paths = [str(folder / name) for name in ("dog/1.jpg", "food/hot dog.jpg", "food/2.jpg")]
    pq.write_table(pa.table({"path": paths}), "t.parquet")
    main(["label", "t.parquet", "--classes", "classes.yaml"])
    assert pq.read_table("labels.parquet")["label"].to_pylist() == ["dog", "food", None]


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("num_tars", [1, 2])
def test_tars_of_img2dataset(place: Path, beside: bool, num_tars: int) -> None:
    folder = place / "tars"
    folder.mkdir()
    size = len(CAPTIONS) // num_tars
    for shard in range(num_tars):
        rows = range(shard * size, (shard + 1) * size)
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for row in rows:
                record = {"key": f"{row:09d}", "url": "http://a", "caption": CAPTIONS[row]}
                members = {"jpg": image(row), "json": json.dumps(record).encode()}
                if CAPTIONS[row] is not None:
                    members["txt"] = str(CAPTIONS[row]).encode()
                for kind, data in members.items():
                    info = tarfile.TarInfo(f"{row:09d}.{kind}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        if beside:
            keys = [f"{row:09d}" for row in rows]
            failed = pa.table(
                {
                    "key": [*keys, "999999999"],
                    "caption": [*(CAPTIONS[row] for row in rows), "dog"],
                    "status": [*["success"] * size, "failed_to_download"],
                }
            )
            pq.write_table(failed, folder / f"{shard:05d}.parquet")
    assert main(["label", "tars", "--classes", "classes.yaml", "--out", "l.parquet"]) == 0
    manifest = Manifest.load(place / "l.parquet")
    assert manifest.classes == ("cat", "dog", "food")
    assert labels_of(manifest) == LABELS_DROPPED
    assert manifest.usable.tolist() == [label is not None for label in LABELS_DROPPED]
    assert Reader(manifest).read(6) == image(6)
    found = pq.read_table("l-found.parquet").to_pydict()
    assert found["label"] == LABELS_DROPPED
    assert found["key"] == manifest.table["key"].to_pylist()


@pytest.mark.parametrize("source", ["images", "images/1.parquet"])
def test_parquet_images_with_a_column_of_texts(place: Path, source: str) -> None:
    (place / "images").mkdir()
    for part in range(2):
        cells = [{"bytes": image(row), "path": None} for row in range(len(CAPTIONS))]
        table = pa.table({"image": cells, "caption": pa.array(CAPTIONS)})
        pq.write_table(table, place / "images" / f"{part}.parquet")
    assert main(["label", source, "--classes", "classes.yaml", "--out", "l.parquet"]) == 0
    manifest = open_source("l.parquet")
    assert labels_of(manifest) == LABELS_DROPPED * (1 if source.endswith("t") else 2)
    assert Reader(manifest).read(6) == image(6)


@pytest.mark.parametrize("lost", ["a web page", "closed"])
def test_texts_are_found_where_the_first_tar_is_left_out(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    for shard in range(2):
        with tarfile.open(f"{shard}.tar", "w") as tar:
            for row, caption in enumerate(("a dog", "my cat")):
                for name, data in ((f"{row}.jpg", image(row)), (f"{row}.txt", caption.encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    if lost == "closed":
        opened = os.open

        def refuse(path: str, *given: int, **options: int) -> int:
            if str(path).endswith("0.tar"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return opened(path, *given, **options)

        monkeypatch.setattr(os, "open", refuse)
    else:
        Path("0.tar").write_bytes(b"<html>" * 200)
    words = ["label", "*.tar", "--classes", "classes.yaml", "--out", "l.parquet"]
    assert main(words) == 2
    assert main([*words, "--allow-damaged"]) == 0
    assert "note: 1 damaged file is left out, wholly or in part: '0.tar'" in capsys.readouterr().err
    manifest = open_source("l.parquet", allow_damaged=True)
    assert [manifest.classes[label] for label in manifest.labels] == ["dog", "cat"]


def test_tars_need_a_parquet_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open("a.tar", "w") as tar:
        tar.add(place / "crawl" / "img" / "0.jpg", "dog.jpg")
    words = ["label", "a.tar", "--classes", "classes.yaml", "--out", "l.csv"]
    assert main(words) == 2
    assert "takes a .parquet file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Name the words of each class"),
        (["--classes", "classes.yaml", "--from", "title"], "no text column 'title'"),
        (["--classes", "classes.yaml", "--from", "width"], "No phrase was found in 'width'"),
        (["--classes", "other.yaml"], "No phrase was found"),
        (["--classes", "one.yaml"], "only images of 'dog'"),
        (["--classes", "classes.yaml", "--out", "labels.txt"], "ends in .csv or .parquet"),
        (["--classes", "classes.yaml", "--path-column", "p"], "no column 'p'"),
        (["--classes", "classes.yaml", "--several", "last"], "several"),
    ],
)
def test_mistakes_are_told(
    place: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "other.yaml").write_text("a: [zebra]\nb: [lion]")
    (place / "one.yaml").write_text("dog: [dog]\nb: [lion]")
    source = write_table(place, ".csv")
    assert main(["label", source, *words]) == 2
    assert says in capsys.readouterr().err
    assert not (place / "labels.parquet").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.csv", None, "There is no"),
        ("empty.csv", b"", "is empty"),
        ("bad.parquet", b"PAR1 nonsense", "cannot be read"),
        ("bad.jsonl", b"{not json", "cannot be read"),
        ("latin.csv", b"path,caption\ncrawl/img/0.jpg,caf\xe9 dog\n", "cannot be read|UTF"),
        ("utf16.csv", "path,caption\n".encode("utf-16"), "UTF-16"),
        ("gone.csv", b"path,caption\na.jpg,dog\n", "No file listed"),
    ],
)
def test_bad_tables_are_told(
    name: str, content: bytes | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    assert main(["label", name, "--classes", "classes.yaml"]) == 2
    said = capsys.readouterr().err
    assert any(part in said for part in says.split("|")), said


@pytest.mark.parametrize("spelled", ["labels.parquet", "./crawl/../labels.parquet", "file:{}"])
def test_what_is_labelled_is_not_overwritten(
    place: Path, spelled: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """``labels.parquet`` is also what is written if nothing else is said."""
    paths = [f"crawl/img/{number}.jpg" for number in range(len(CAPTIONS))]
    pq.write_table(pa.table({"path": paths, "caption": CAPTIONS}), "labels.parquet")
    before = (place / "labels.parquet").read_bytes()
    source = spelled.format(place / "labels.parquet")
    assert main(["label", source, "--classes", "classes.yaml"]) == 2
    assert "would overwrite what is labelled" in capsys.readouterr().err
    assert (place / "labels.parquet").read_bytes() == before
    assert main(["label", source, "--classes", "classes.yaml", "--out", "other.parquet"]) == 0
    assert pq.read_table(place / "other.parquet")["label"].to_pylist() == LABELS_DROPPED


def test_texts_beside_tars_and_in_parts_are_not_overwritten(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open("0.tar", "w") as tar:
        for index in range(3):
            member = tarfile.TarInfo(f"{index}.jpg")
            member.size = len(image(index))
            tar.addfile(member, io.BytesIO(image(index)))
    rows = {"key": ["0", "1", "2"], "caption": ["dog", "cat", "dog"], "status": ["success"] * 3}
    pq.write_table(pa.table({**rows, "error_message": [""] * 3}), "0.parquet")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for part, text in enumerate(("dog", "cat")):
        picture = pa.array([{"bytes": None, "path": str(place / f"crawl/img/{part}.jpg")}], kind)
        pq.write_table(pa.table({"image": picture, "caption": [text]}), f"train-{part}.parquet")
    for source, out in (("0.tar", "0.parquet"), ("train-*.parquet", "train-1.parquet")):
        before = Path(out).read_bytes()
        assert main(["label", source, "--classes", "classes.yaml", "--out", out]) == 2
        assert "would overwrite what is labelled" in capsys.readouterr().err
        assert Path(out).read_bytes() == before
        assert main(["label", source, "--classes", "classes.yaml", "--out", "new.parquet"]) == 0


def test_a_damaged_page_of_texts_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The paths can be read, and the file opens; the texts are met only when labels are made."""
    paths = [f"crawl/img/{index}.jpg" for index in range(len(CAPTIONS))]
    table = pa.table({"path": paths, "caption": [f"{text} dog" for text in CAPTIONS]})
    pq.write_table(table, "t.parquet", compression="zstd", use_dictionary=False)
    column = pq.ParquetFile("t.parquet").metadata.row_group(0).column(1)
    data = bytearray(Path("t.parquet").read_bytes())
    start = column.data_page_offset
    data[start + 40 : start + column.total_compressed_size] = bytes(
        column.total_compressed_size - 40
    )
    Path("t.parquet").write_bytes(data)
    assert main(["label", "t.parquet", "--classes", "classes.yaml"]) == 2
    assert "Cannot read t.parquet: ZSTD" in capsys.readouterr().err
    assert not (place / "labels.parquet").exists()


def test_cut_tars_and_several_columns_of_images_can_be_labelled(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"a": image(index), "b": image(index), "caption": "my dog"} for index in range(3)]
    pq.write_table(pa.Table.from_pylist([*rows, {**rows[0], "caption": "cat"}]), "images.parquet")
    words = ["--classes", "classes.yaml", "--out", "out.parquet"]
    assert main(["label", "images.parquet", *words]) == 2
    assert "--image-column" in capsys.readouterr().err
    assert main(["label", "images.parquet", *words, "--image-column", "b"]) == 0
    assert Reader(open_source("out.parquet")).read(1) == image(1)

    with tarfile.open("cut.tar", "w") as tar:
        for index in range(6):
            for ending, data in (("jpg", image(index)), ("txt", b"my dog" if index else b"cat")):
                member = tarfile.TarInfo(f"{index}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    cut = Path("cut.tar").read_bytes()
    Path("cut.tar").write_bytes(cut[: 1536 * 7])
    assert main(["label", "cut.tar", *words]) == 2
    assert "--allow-damaged" in capsys.readouterr().err
    assert main(["label", "cut.tar", *words, "--allow-damaged"]) == 0
    assert "1 damaged file is left out, wholly or in part: 'cut.tar'" in capsys.readouterr().err
    assert 0 < len(open_source("out.parquet")) < 6


def test_examples_are_a_function_of_the_seed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_table(place, ".csv")
    said = []
    for seed in ("1", "1"):
        main(["label", source, "--classes", "classes.yaml", "--seed", seed, "--examples", "1"])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "img/0.jpg (dog): a dog" in said[0]
    assert "img/1.jpg (hot dog): Hot-Dog stand" in said[0]
