"""``thresher label`` of images that are not files below one folder of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.conftest import make_image, write_parquet_images, write_tar, write_tree
from tests.sources.web import WebServer
from thresher.cli import main
from thresher.sources.detect import open_source
from thresher.sources.read import Reader

NAMES = ["dog", "cat"]
IMAGES = [make_image(i) for i in range(8)]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THRESHER_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "classes.yaml").write_text("dog: [dog]\ncat: [cat]\n")
    write_tree(tmp_path / "data", {f"img/{i}.jpg": data for i, data in enumerate(IMAGES)})
    return tmp_path / "data"


@pytest.fixture
def web(place: Path) -> Iterator[WebServer]:
    server = WebServer(place)
    yield server
    server.close()


def write_path_only(place: Path, captions: bool = True) -> None:
    for part in range(2):
        rows = range(4 * part, 4 * part + 4)
        file = place / f"train-{part}.parquet"
        paths: list[str | None] = [f"img/{i}.jpg" for i in rows]
        write_parquet_images(file, [None] * 4, [0, 1] * 2, paths=paths)
        if captions:
            texts = [f"my {NAMES[i % 2]}" for i in rows]
            pq.write_table(pq.read_table(file).append_column("caption", [texts]), file)


def label(source: str, *more: str) -> None:
    words = ["label", source, "--classes", "classes.yaml", "--out", "l.parquet", *more]
    assert main(words) == 0
    manifest = open_source("l.parquet")
    assert [manifest.classes[i] for i in manifest.labels] == NAMES * 4
    reader = Reader(manifest)
    assert [reader.read(i) for i in range(8)] == IMAGES


def test_parquet_that_holds_only_paths(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_path_only(place)
    label(f"{place}/train-*.parquet")
    assert "text looked in: 'caption'" in capsys.readouterr().out


def test_parquet_without_texts_says_what_there_is(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_path_only(place, captions=False)
    words = ["label", f"{place}/train-*.parquet", "--classes", "classes.yaml"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "No phrase was found in 'filename'" in said
    assert "choose others with --from; there are 'label'." in said


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("absolute", [False, True])
def test_tables_at_urls(web: WebServer, place: Path, ending: str, absolute: bool) -> None:
    root = f"{web.url}/" if absolute else ""
    rows = [{"path": f"{root}img/{i}.jpg", "caption": f"a {NAMES[i % 2]}"} for i in range(8)]
    table = place / f"t.{ending}"
    if ending == "csv":
        lines = [",".join(row.values()) for row in rows]
        table.write_text("path,caption\n" + "\n".join(lines))
    elif ending == "jsonl":
        table.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), table)
    label(f"{web.url}/t.{ending}")
    if absolute:
        label(str(table))


def test_parquet_with_paths_at_a_url(web: WebServer, place: Path) -> None:
    write_path_only(place)
    label(f"{web.url}/train-{{0..1}}.parquet")


@pytest.mark.parametrize("asked", ["class.txt", "title", "text"])
def test_tars_whose_members_are_named_otherwise(place: Path, asked: str) -> None:
    members: dict[str, bytes] = {}
    for i, data in enumerate(IMAGES):
        members[f"{i}.img.jpg"] = data
        members[f"{i}.class.txt"] = NAMES[i % 2].encode()
        members[f"{i}.meta.json"] = json.dumps({"title": f"a {NAMES[i % 2]}"}).encode()
        members[f"{i}.json"] = json.dumps({"text": f"the {NAMES[i % 2]}"}).encode()
    write_tar(place / "a.tar", members)
    label(f"{place}/a.tar", "--from", asked)
