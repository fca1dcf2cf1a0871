"""A scan from end to end, on files with one of each fault."""

from __future__ import annotations

import errno
import json
import os
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from thresher.cli import main
from thresher.errors import UserError
from thresher.scan import explore
from thresher.scan.look import VERSION
from thresher.scan.run import scan
from thresher.sources.manifest import Manifest

from .conftest import HOSTILE, cut, encode, jpeg, picture, write_tree


def keys(found: Mapping[str, object], kind: str) -> list[list[str]]:
    """The file names of a finding's groups."""
    listed = found["findings"][kind]["list"]  # type: ignore[index]
    return [sorted(image["key"] for image in group) for group in listed]


def summary(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / "findings.json").read_text())
    return found


def test_every_planted_fault_is_found_and_nothing_else(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = scan(str(collection), out, workers=2)
    found = summary(out)
    num = len(list(collection.rglob("*.*")))
    assert (found["images"], result.touched) == (num, num)
    assert keys(found, "exact") == [
        ["cat/01.jpg", f"cat/{HOSTILE}.jpg", "cat/copy-of-01.jpg"],
        ["cat/03.jpg", "dog/same-as-03.jpg"],
    ]
    assert keys(found, "near") == [
        ["cat/05-smaller.webp", "cat/05-worse.jpg", "cat/05.jpg"],
        ["cat/07.jpg", "dog/07-cut.png"],
    ]
    assert keys(found, "exact_labels") == [["cat/03.jpg", "dog/same-as-03.jpg"]]
    assert keys(found, "near_labels") == [["cat/07.jpg", "dog/07-cut.png"]]
    assert keys(found, "blank") == [["cat/blank.png"]]
    assert keys(found, "tiny") == [["cat/tiny.png"]]
    assert keys(found, "long") == [["dog/long.jpg"]]
    assert keys(found, "animated") == [["dog/moving.gif"]]
    assert keys(found, "exact_leaks") == keys(found, "near_leaks") == []
    assert found["states"] == {
        "ok": num - 4,
        "empty file": 1,
        "not an image: a web page, such as servers send for images that are gone": 1,
        "too many pixels: it may be a decompression bomb": 1,
        "truncated image": 1,
    }
    assert found["classes"] == {"cat": 14, "dog": 12}
    assert found["formats"] == {"JPEG": 22, "PNG": 3, "GIF": 1, "WEBP": 1}


def test_the_manifest_carries_the_states_and_the_lists_are_full(
    collection: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scan(str(collection), out)
    manifest = Manifest.load(out / "manifest.parquet")
    by_key = dict(zip(manifest.table["key"].to_pylist(), manifest.states, strict=True))
    assert by_key["dog/short.jpg"] == "truncated image"
    assert by_key["dog/00.jpg"] == "ok"
    rows = pq.read_table(out / "scan.parquet")
    assert len(rows) == len(manifest)
    assert rows["bytes"].to_pylist() == [
        os.path.getsize(collection / key)  # noqa: PTH202
        for key in manifest.table["key"].to_pylist()
    ]
    lists = pq.read_table(out / "findings.parquet")
    assert lists.filter(pa.compute.equal(lists["finding"], "exact"))["group"].to_pylist() == [
        *(0, 0, 0),
        *(1, 1),
    ]
    assert not (out / "parts").exists()


def test_test_images_inside_the_data(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", {f"{i % 2}/{i}.jpg": jpeg(i) for i in range(10)})
    test = write_tree(
        tmp_path / "test",
        {
            "0/same.jpg": jpeg(4),
            "1/alike.png": encode(cut(picture(7)), "PNG"),
            "1/other.jpg": jpeg(99),
        },
    )
    scan(str(data), tmp_path / "out", against=str(test))
    found = summary(tmp_path / "out")
    assert found["against_images"] == 3
    assert keys(found, "exact_leaks") == [["0/4.jpg", "0/same.jpg"]]
    assert keys(found, "near_leaks") == [["1/7.jpg", "1/alike.png"]]
    assert keys(found, "near") == []  # the data alone hold each once
    sources = [i["source"] for i in found["findings"]["near_leaks"]["list"][0]]  # type: ignore[index]
    assert sources == ["against", "data"]


def test_only_what_is_new_or_changed_is_read_again(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", {f"{i % 2}/{i}.jpg": jpeg(i) for i in range(20)})
    out = tmp_path / "out"
    assert scan(str(data), out).touched == 20
    first = pq.read_table(out / "scan.parquet")
    assert scan(str(data), out).touched == 0
    assert pq.read_table(out / "scan.parquet").equals(first)
    (data / "0/4.jpg").write_bytes(jpeg(40))  # changed
    (data / "0/100.jpg").write_bytes(jpeg(3))  # new, before others in the order of the ids
    (data / "1/5.jpg").unlink()
    assert scan(str(data), out).touched == 2
    rows = pq.read_table(out / "scan.parquet").drop_columns("stamp").to_pylist()
    assert len(rows) == 20
    fresh = tmp_path / "fresh"
    scan(str(data), fresh)
    assert pq.read_table(fresh / "scan.parquet").drop_columns("stamp").to_pylist() == rows
    assert (fresh / "findings.json").read_text() == (out / "findings.json").read_text()
    os.utime(data / "0/6.jpg", (1, 1))  # same size, other time
    assert scan(str(data), out).touched == 1


def test_results_of_another_version_are_not_reused(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", {f"{i % 2}/{i}.jpg": jpeg(i) for i in range(4)})
    out = tmp_path / "out"
    scan(str(data), out)
    table = pq.read_table(out / "scan.parquet")
    assert table.schema.metadata[b"thresher.look_version"] == str(VERSION).encode()
    older = table.replace_schema_metadata({"thresher.look_version": "0"})
    pq.write_table(older, out / "scan.parquet")
    assert scan(str(data), out).touched == 4


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tree(path.parent / "members", {})
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            source = path.parent / "member"
            source.write_bytes(data)
            tar.add(source, name)
            source.unlink()
    return path


def samples(start: int, stop: int) -> dict[str, bytes]:
    made = {}
    for i in range(start, stop):
        made[f"{i}.jpg"] = jpeg(i)
        made[f"{i}.cls"] = b"%d" % (i % 2)
    return made


def test_tars_and_a_shard_that_was_added(tmp_path: Path) -> None:
    folder, out = tmp_path / "tars", tmp_path / "out"
    write_tar(folder / "a-1.tar", samples(0, 6))
    pickled = {"6.jpg": jpeg(6), "6.pkl": pickle.dumps(1), "7.pth": b"PK\3\4 weights"}
    write_tar(folder / "a-2.tar", samples(6, 9) | pickled | {"9.jpg": jpeg(0)})
    first = scan(str(folder), out)
    assert first.touched == 10
    found = summary(out)
    assert found["refused"] == {"files": 2, "list": ["a-2.tar/6.pkl", "a-2.tar/7.pth"]}
    assert keys(found, "exact") == [["a-1.tar/0.jpg", "a-2.tar/9.jpg"]]
    write_tar(folder / "a-0.tar", samples(20, 23))
    assert scan(str(folder), out).touched == 3
    assert summary(out)["images"] == 13


def test_parquet_images_and_a_table_with_missing_files(tmp_path: Path) -> None:
    images = [jpeg(i) for i in range(6)] + [b"junk"]
    cells = pa.array([{"bytes": image, "path": None} for image in images])
    table = pa.table({"image": cells, "label": [0, 1, 0, 1, 0, 1, 0]})
    pq.write_table(table, tmp_path / "images.parquet", row_group_size=2)
    scan(str(tmp_path / "images.parquet"), tmp_path / "out")
    assert summary(tmp_path / "out")["readable"] == 6

    write_tree(tmp_path / "files", {f"{i}.jpg": jpeg(i) for i in range(3)})
    rows = "\n".join(f"files/{i}.jpg,{i % 2},x" for i in range(4))
    (tmp_path / "table.csv").write_text(f"where,what,else\n{rows}\n")
    words = ["--path-column", "where", "--label-column", "what", "--out", str(tmp_path / "out2")]
    assert main(["scan", str(tmp_path / "table.csv"), *words]) == 0
    assert summary(tmp_path / "out2")["states"] == {"ok": 3, "file not found": 1}


def test_images_without_labels_and_empty_classes(tmp_path: Path) -> None:
    flat = write_tree(tmp_path / "flat", {f"{i}.jpg": jpeg(i) for i in range(3)})
    result = scan(str(flat), tmp_path / "out")
    assert "No label was read" in result.findings.notes[0]
    assert summary(tmp_path / "out")["unlabelled"] == 3
    tree = write_tree(tmp_path / "tree", {f"a/{i}.jpg": jpeg(i) for i in range(3)})
    (tree / "b").mkdir()
    scan(str(tree), tmp_path / "out2")
    assert summary(tmp_path / "out2")["classes"] == {"a": 3, "b": 0}


def test_pickles_beside_images_are_listed_and_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    trap = pickle.dumps(Trap())
    data = write_tree(
        tmp_path / "data",
        {f"{i % 2}/{i}.jpg": jpeg(i) for i in range(4)}
        | {"0/a.pkl": trap, "1/b.pt": trap, "1/c.jpg": trap, "0/plain.npy": b""},
    )
    np.save(data / "0" / "plain.npy", np.zeros(3))
    np.save(data / "0" / "objects.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    scan(str(data), tmp_path / "out")
    found = summary(tmp_path / "out")
    assert found["refused"] == {"files": 3, "list": ["0/a.pkl", "0/objects.npy", "1/b.pt"]}
    lists = pq.read_table(tmp_path / "out" / "findings.parquet").to_pylist()
    assert [row["key"] for row in lists if row["finding"] == "refused"] == found["refused"]["list"]  # type: ignore[index]
    assert found["states"]["refused: a pickle, which runs code when loaded"] == 1  # type: ignore[index]
    with pytest.raises(UserError, match="runs code when loaded"):
        scan(str(data / "0" / "a.pkl"), tmp_path / "out2")
    assert not (tmp_path / "trapped").exists()


def test_links_in_circles_are_not_followed(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "data", {f"{i % 2}/{i}.jpg": jpeg(i) for i in range(4)})
    (data / "0" / "up").symlink_to(data)
    (data / "1" / "gone.jpg").symlink_to(data / "1" / "nowhere.jpg")
    result = scan(str(data), tmp_path / "out")
    found = summary(tmp_path / "out")
    assert found["images"] == 5
    assert found["states"] == {"ok": 4, "broken link": 1}
    assert "not followed" in result.findings.notes[0]


def test_bad_input_is_a_sentence_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_tree(tmp_path / "data", {f"{i % 2}/{i}.jpg": jpeg(i) for i in range(2)})
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    other = write_tree(tmp_path / "other", {"notes.txt": b"mine"})
    outside = write_tar(
        tmp_path / "outside.tar", {"../../etc/a.jpg": jpeg(0), "../../etc/a.cls": b"0"}
    )
    cases = {
        "no file or folder": [str(tmp_path / "nowhere")],
        "holds no images": [str(tmp_path / "empty")],
        "points outside the archive": [str(outside)],
        "same as the data": [str(data), "--against", f"{data}/../data"],
        "lies inside": [str(data), "--against", str(data / "0")],
        "is a file": [str(data), "--out", str(tmp_path / "file")],
        "something else": [str(data), "--out", str(other)],
        "lies inside the data": [str(data), "--out", str(data / "out")],
        "Not a directory": [str(data), "--out", str(tmp_path / "file" / "below")],
        "at least one process": [str(data), "--workers", "0"],
        "0 to 16": [str(data), "--near", "40"],
        "Unknown option": [str(data), "--agianst", "x"],
    }
    for sentence, words in cases.items():
        if "--out" not in words:
            words = [*words, "--out", str(tmp_path / "out")]
        assert main(["scan", *words]) == 2, sentence
        said = capsys.readouterr().err
        assert sentence in said
        assert said.startswith("thresher: ")
        assert said.count("\n") == 1
    assert sorted(path.name for path in other.iterdir()) == ["notes.txt"]


def test_an_out_of_other_data_is_left_alone(tmp_path: Path) -> None:
    trees = [
        write_tree(tmp_path / name, {f"{i % 2}/{i}.jpg": jpeg(i) for i in range(2)})
        for name in ("one", "two")
    ]
    scan(str(trees[0]), tmp_path / "out")
    with pytest.raises(UserError, match=r"holds the scan of .*one"):
        scan(str(trees[1]), tmp_path / "out")


def test_a_disk_that_is_full_as_a_scan_begins_keeps_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path / "data", {"a/1.jpg": jpeg(1), "b/2.jpg": jpeg(2)})

    def fill_the_disk(manifest: Manifest, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(explore, "save_locations", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        scan(str(tmp_path / "data"), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.locations"))
    monkeypatch.undo()
    scan(str(tmp_path / "data"), tmp_path / "out")
    assert summary(tmp_path / "out")


def test_a_test_set_without_any_copy_in_the_data(tmp_path: Path) -> None:
    """The good case: nothing leaks, exactly or nearly."""
    rng = np.random.default_rng(0)
    for name, side in (("data/a/1", 40), ("data/b/1", 44), ("test/a/1", 48), ("test/b/1", 52)):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((side, side)).save(path)
    scan(str(tmp_path / "data"), tmp_path / "out", against=str(tmp_path / "test"))
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert found["against_images"] == 2


def test_what_may_be_meant_otherwise_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["Dog", "dog", ".bird"]
    files = {
        f"{name}/{i}.jpg": jpeg(2 * place + i) for place, name in enumerate(names) for i in (0, 1)
    }
    write_tree(tmp_path / "data", files | {"dog/x.heic": b"x", "loose.jpg": jpeg(9)})
    assert main(["scan", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    page = (tmp_path / "out" / "scan.html").read_text()
    for note in (
        "Classes that differ only in case or spaces count as different ones",
        "1 image without a label: not trained on.",
        "begin with a dot are not looked into",
        ".heic (1).",
    ):
        assert note in said
        assert note in page
        assert any(note in other for other in summary(tmp_path / "out")["notes"])
