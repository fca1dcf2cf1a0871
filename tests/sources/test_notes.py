"""What is said of data that can be used, but perhaps not as they are meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.errors import UserError
from thresher.sources.detect import open_source
from thresher.sources.notes import notes_of

from .conftest import make_image, write_tree

LABELS = ["cat", "dog", "nan", " cat", "Dog", "None", None, ""]
NUMBERS = ["0", "1", "nan", "1", "0", "1", None, ""]


def tree(root: Path, *folders: str) -> Path:
    images = {f"{name}/{i}.jpg": make_image(i) for name in folders for i in range(2)}
    return write_tree(root, images)


def write_table(root: Path, ending: str, labels: list[str | None]) -> str:
    write_tree(root, {f"{i}.jpg": make_image(i) for i in range(len(labels))})
    rows = [{"path": f"{i}.jpg", "label": label} for i, label in enumerate(labels)]
    table = root / f"t.{ending}"
    if ending == "csv":
        lines = "".join(f"{row['path']},{row['label'] or ''}\n" for row in rows)
        table.write_text("path,label\n" + lines)
    elif ending == "jsonl":
        table.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), table)
    return str(table)


@pytest.mark.parametrize("names", [("Dog", "dog"), ("dog", "dog "), ("hot dog", "hotDog")])
def test_classes_that_look_alike_are_kept_apart_and_named(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    manifest = open_source(str(tree(tmp_path, *names, "cat")))
    assert set(manifest.classes) == {*names, "cat"}
    (note,) = notes_of(manifest)
    assert note.startswith("Classes that differ only in case or spaces count as different ones")
    assert all(f"'{name}' (2 images)" in note for name in names)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_texts_that_may_mean_nothing_are_classes_and_named(tmp_path: Path, ending: str) -> None:
    manifest = open_source(write_table(tmp_path, ending, LABELS))
    assert manifest.classes == ("cat", "Dog", "dog", "nan", "None")
    assert manifest.labels.tolist() == [0, 2, 3, 0, 1, 4, -1, -1]
    said = " ".join(notes_of(manifest))
    assert "'nan' counts as a class (1 image)" in said
    assert "'None' counts as a class (1 image)" in said
    assert "'Dog' (1 image) and 'dog' (1 image)" in said
    assert (
        "Spaces around labels do not count, so that these are the same as without: ' cat'" in said
    )
    assert "2 images without a label: not trained on." in said


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_among_numbers_nan_is_no_label(tmp_path: Path, ending: str) -> None:
    manifest = open_source(write_table(tmp_path, ending, NUMBERS))
    assert manifest.classes == ("0", "1")
    assert manifest.labels.tolist() == [0, 1, -1, 1, 0, 1, -1, -1]
    assert notes_of(manifest) == ["3 images without a label: not trained on."]


def test_a_class_that_many_programs_take_for_no_label(tmp_path: Path) -> None:
    manifest = open_source(write_table(tmp_path, "csv", ["0", "1", "-1", "0"]))
    (note,) = notes_of(manifest)
    assert note.startswith("'-1' counts as a class (1 image). If it means that there is no label")


def test_a_validation_set_that_spells_a_class_otherwise(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'Dog' differs from 'dog' only in case or spaces"):
        open_source(str(tree(tmp_path, "Dog", "cat")), classes=["cat", "dog"])


def test_files_and_folders_that_are_passed_over(tmp_path: Path) -> None:
    root = tree(tmp_path, "cat", "dog", ".bird", "dog/.ipynb_checkpoints", "cat/.more")
    write_tree(root, {"cat/a.heic": b"x", "dog/b": b"x", "dog/1.txt": b"x", ".git/config": b"x"})
    manifest = open_source(str(root))
    assert len(manifest) == 4
    hidden, passed = notes_of(manifest)
    assert "not looked into: '.bird', 'cat/.more'. Rename" in hidden
    assert passed.startswith("2 files passed over, by their names no images that are read here")
    assert passed.endswith(": no ending (1), .heic (1).")
    assert ".txt (1)" in notes_of(manifest, all_files=True)[1]


def test_folders_that_may_not_be_read(
    unprivileged: tuple[Path, Callable[[], AbstractContextManager[None]]],
) -> None:
    folder, drop = unprivileged
    tree(folder, "cat", "dog", "bird", "dog/old")
    for name in ("bird", "dog/old"):
        (folder / name).chmod(0o000)
    with drop():
        with pytest.raises(UserError, match=r"No right to read .*/bird"):
            open_source(str(folder))
        manifest = open_source(str(folder), allow_damaged=True)
    assert manifest.classes == ("cat", "dog")
    assert len(manifest) == 4
    (note,) = notes_of(manifest)
    assert "no right to read them: the folders 'bird', 'dog/old'. Change" in note


def test_folders_below_the_first(tmp_path: Path) -> None:
    manifest = open_source(str(tree(tmp_path / "deep", "a/b", "a/c", "d/e", "d/f")))
    (note,) = notes_of(manifest)
    assert "those below, such as 'a/b', are not told apart" in note
    # As Tiny ImageNet has it: one folder in each class.
    assert not notes_of(open_source(str(tree(tmp_path / "one", "a/images", "b/images"))))


def test_a_folder_around_the_classes(tmp_path: Path) -> None:
    tree(tmp_path, "images/cat", "images/dog")
    with pytest.raises(UserError, match=r"the folders 'cat', 'dog' in it.*name .*/images\."):
        open_source(str(tmp_path))


def test_nothing_is_said_of_plain_data(tmp_path: Path) -> None:
    assert notes_of(open_source(str(tree(tmp_path, "cat", "dog"))), all_files=True) == []
