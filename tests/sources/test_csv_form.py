"""CSV files as spreadsheets, other systems and people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from thresher.cli import main
from thresher.errors import UserError
from thresher.sources.detect import open_source

from .conftest import make_image, write_tree

PLAIN = "path,label\n0.jpg,a\n1.jpg,b\n"


@pytest.fixture(autouse=True)
def images(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{i}.jpg": make_image(i) for i in range(3)})


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace(",", "|"),
        PLAIN.replace(",", ";"),
        'path,label,"a;b;c;d"\n0.jpg,a,x\n1.jpg,b,y\n',
        "\ufeff" + PLAIN.replace("\n", "\r\n"),
    ],
)
def test_delimiters(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode())
    manifest = open_source(str(tmp_path / "t.csv"))
    assert manifest.labels.tolist() == [0, 1]
    (tmp_path / "classes.yaml").write_text("x: [a]\ny: [b]\n")
    words = ["--classes", str(tmp_path / "classes.yaml"), "--out", str(tmp_path / "l.csv")]
    assert main(["label", str(tmp_path / "t.csv"), "--from", "label", *words]) == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (PLAIN.encode().partition(b"\n")[2], "no header: its first line is '0.jpg', 'a'"),
        (PLAIN.encode("utf-16-le"), "is UTF-16 text"),
        (PLAIN.replace("0", "C:\\x\\0").encode(), "They are paths of Windows"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, text: bytes, sentence: str) -> None:
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(UserError, match=sentence):
        open_source(str(tmp_path / "t.csv"))


@pytest.mark.parametrize("name", ["a.json", "a.txt", "a.xlsx"])
def test_other_lists_are_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=r"no table that is read here. \w+ .*\."):
        open_source(str(tmp_path / name))


def test_numbers_that_lost_their_type_are_whole_numbers(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path,label\n0.jpg,3.0\n1.jpg,\n2.jpg,12\n0.jpg,3\n")
    manifest = open_source(str(table))
    assert manifest.classes == ("3", "12")
    assert manifest.labels.tolist() == [0, -1, 1, 0]
    table.write_text("path,label\n0.jpg,3.0\n1.jpg,2.0b\n")
    assert open_source(str(table)).classes == ("2.0b", "3.0")
    table.write_text("path,label\n0.jpg,3.0\n")
    assert open_source(str(table), classes=["2.0", "3.0"]).labels.tolist() == [1]


def test_accents_written_in_two_ways_are_one_class(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    tree = write_tree(
        tmp_path / "tree",
        {f"{name}/{i}.jpg": make_image(i) for i, name in enumerate([composed, apart, "tea"])},
    )
    manifest = open_source(str(tree))
    assert manifest.classes == (composed, "tea")
    assert sorted(manifest.labels.tolist()) == [0, 0, 1]
    table = tmp_path / "t.csv"
    table.write_text(f"path,label\n0.jpg,{apart}\n1.jpg,tea\n", encoding="utf-8")
    assert open_source(str(table), classes=[composed, "tea"]).labels.tolist() == [0, 1]
    assert open_source(str(table), classes=[apart, "tea"]).labels.tolist() == [0, 1]
