from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from thresher.errors import UserError
from thresher.sources.detect import open_images, open_source
from thresher.sources.read import Reader

from .conftest import UGLY_NAMES, make_image, write_tree


def test_a_tree_gives_classes_keys_and_bytes(tmp_path: Path, two_classes: dict[str, bytes]) -> None:
    write_tree(tmp_path, two_classes | {"cat/notes.txt": b"", ".git/x.jpg": b"", "cat/.x.jpg": b""})
    manifest = open_source(str(tmp_path))

    assert manifest.kind == "files"
    assert manifest.classes == ("cat", "dog")
    assert [manifest.key(i) for i in range(8)] == [
        *sorted(f"cat/{name}" for name in UGLY_NAMES),
        *("dog/0.jpg", "dog/1.jpg", "dog/2.jpg"),
    ]
    assert manifest.labels.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert manifest.states.tolist() == ["ok"] * 8
    assert manifest.options["ignored_kinds"] == {"txt": 1}
    assert manifest.options["ignored_files"] == 1
    assert not manifest.options["refused_links"]
    reader = Reader(manifest)
    for index in range(8):
        assert reader.read(index) == two_classes[manifest.key(index)]


def test_classes_are_in_natural_order_and_nested_folders_belong_to_their_class(
    tmp_path: Path,
) -> None:
    image = make_image(0)
    write_tree(tmp_path, {f"{name}/deep/er/a.PNG": image for name in ("10", "9", "b2", "b10")})
    manifest = open_source(str(tmp_path))
    assert manifest.classes == ("9", "10", "b2", "b10")
    assert manifest.key(0) == "9/deep/er/a.PNG"


def test_ids_do_not_depend_on_the_order_of_creation(tmp_path: Path) -> None:
    names = [f"{c}/{sub}{i}.jpg" for c in "ab" for sub in ("", "s/") for i in range(20)]
    write_tree(tmp_path / "one", dict.fromkeys(names, b"x"))
    write_tree(tmp_path / "two", dict.fromkeys(reversed(names), b"x"))
    one, two = (open_source(str(tmp_path / which)) for which in ("one", "two"))
    assert one.table.equals(two.table)


def test_images_in_the_root_beside_classes_have_no_label(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/1.jpg": b"x", "b/1.jpg": b"x", "loose.jpg": b"x"})
    manifest = open_source(str(tmp_path))
    assert manifest.states.tolist() == ["ok", "ok", "no label"]
    assert manifest.labels.tolist() == [0, 1, -1]
    assert manifest.usable.tolist() == [True, True, False]


def test_links_that_go_round_are_refused_and_others_followed_once(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", {"a/1.jpg": b"x", "b/1.jpg": b"x"})
    write_tree(tmp_path / "elsewhere", {"2.jpg": b"x"})
    data = tmp_path / "data"
    (data / "a" / "up").symlink_to(data)
    (data / "a" / "self").symlink_to(data / "a")
    (data / "a" / "top").symlink_to(tmp_path)
    (data / "loop").symlink_to(data)
    (data / "b" / "more").symlink_to(tmp_path / "elsewhere")
    (data / "b" / "same").symlink_to(tmp_path / "elsewhere")
    (data / "b" / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    manifest = open_source(str(data))
    assert [manifest.key(i) for i in range(len(manifest))] == [
        *("a/1.jpg", "b/1.jpg", "b/gone.jpg", "b/more/2.jpg")
    ]
    assert manifest.states.tolist() == ["ok", "ok", "broken link", "ok"]
    assert manifest.options["refused_links"] == 5  # up, self, top, loop, and same as a repetition


def test_a_name_that_is_not_utf8_is_kept_and_marked(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/1.jpg": b"x", "b/1.jpg": b"x"})
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/\xb0\xa1.jpg")).write_bytes(b"x")
    manifest = open_source(str(tmp_path))
    assert manifest.states.tolist() == ["ok", "file name is not UTF-8", "ok"]
    assert manifest.key(1) == r"a/\udcb0\udca1.jpg"


def test_given_classes_are_mapped_onto_by_name(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/1.jpg": b"x", "c/1.jpg": b"x", "c/2.jpg": b"x"})
    (tmp_path / "b").mkdir()  # an empty class does not matter here
    manifest = open_source(str(tmp_path), classes=["c", "b", "a"])
    assert manifest.classes == ("c", "b", "a")
    assert manifest.labels.tolist() == [2, 0, 0]


def test_labels_unknown_to_training_are_named(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{name}/1.jpg": b"x" for name in ("a", "v", "w", "x", "y")})
    with pytest.raises(UserError) as caught:
        open_source(str(tmp_path), classes=["a", "b"])
    assert str(caught.value) == (
        f"Labels in {tmp_path} that training does not know: 'v', 'w', 'x', ... (4 in all). "
        "It knows 'a', 'b'."
    )


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "{} holds no images, in no sub-folder either."),
        ({"a/readme.txt": b""}, "{} holds no images"),
        ({"1.jpg": b"x", "2.jpg": b"x"}, "{} has 2 images but no class sub-folders."),
        ({"a/1.jpg": b"x"}, "{} has only one class, 'a'. A classifier needs at least two."),
        (
            {"a/1.jpg": b"x", "b/1.jpg": b"x", "c/x.txt": b""},
            "No image file in 1 class folder of {}: 'c'.",
        ),
        (
            {"train/a/1.jpg": b"x", "val/a/1.jpg": b"x"},
            "The sub-folders of {} are splits, not classes: 'train', 'val'. "
            "Name one of them, as in {}/train.",
        ),
        ({"1.jpg": b"x", "labels.csv": b""}, "It holds the table labels.csv; to use that, name it"),
        ({"data/a.parquet": b""}, "Its folder data holds tars or Parquet files"),
    ],
)
def test_a_folder_that_cannot_be_trained_on(
    tmp_path: Path, files: dict[str, bytes], sentence: str
) -> None:
    write_tree(tmp_path, files)
    with pytest.raises(UserError) as caught:
        open_source(str(tmp_path))
    assert sentence.replace("{}", str(tmp_path)) in str(caught.value)


def test_a_class_name_that_is_not_utf8(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/1.jpg": b"x", "b/1.jpg": b"x"})
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xb0\xa1"))
    write_tree(folder, {"1.jpg": b"x"})
    with pytest.raises(UserError, match="is not UTF-8"):
        open_source(str(tmp_path))


def test_no_such_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no file or folder .*/gone"):
        open_source(str(tmp_path / "gone"))


def test_no_right_to_read(unprivileged) -> None:  # type: ignore[no-untyped-def]
    folder, drop = unprivileged
    write_tree(folder, {"a/1.jpg": b"x", "b/1.jpg": b"x", "t.csv": b"path,label\n"})
    (folder / "b").chmod(0)
    (folder / "t.csv").chmod(0)
    with drop(), pytest.raises(UserError, match=f"No right to read {folder}/b"):
        open_source(str(folder))
    with drop(), pytest.raises(UserError, match=f"No right to read {folder}/t.csv"):
        open_source(str(folder / "t.csv"))


def test_images_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"x/b.jpg": b"1", "x/sub/a.png": b"2", "one.bin": b"3", "two.jpg": b"4"}
    write_tree(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    manifest = open_images(["two.jpg", "x", "one.bin"])
    monkeypatch.chdir("/")
    reader = Reader(manifest)
    assert [manifest.key(i) for i in range(4)] == ["two.jpg", "x/b.jpg", "x/sub/a.png", "one.bin"]
    assert [reader.read(i) for i in range(4)] == [b"4", b"1", b"2", b"3"]
    assert manifest.labels.tolist() == [-1] * 4
    assert manifest.states.tolist() == ["ok"] * 4
    assert manifest.classes == ()


def test_a_folder_of_images_or_one_image_for_prediction(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a.jpg": b"1", "s/b.jpg": b"2"})
    manifest = open_source(str(tmp_path), labelled=False, classes=["x", "y"])
    assert [manifest.key(i) for i in range(2)] == ["a.jpg", "s/b.jpg"]
    assert manifest.classes == ("x", "y")
    assert np.array_equal(manifest.labels, [-1, -1])
    assert len(open_images([str(tmp_path)])) == 2
    single = open_images([str(tmp_path / "a.jpg")])
    assert Reader(single).read(0) == b"1"


def test_prediction_on_what_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="There is no file or folder"):
        open_images([str(tmp_path / "a.jpg")])
    with pytest.raises(UserError, match=r"There is no file or folder .*b\.jpg"):
        open_images([str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")][::-1])
    with pytest.raises(UserError, match="holds no images"):
        open_images([str(tmp_path / "empty"), str(tmp_path / "empty")])
    with pytest.raises(UserError, match="No images given"):
        open_images([])


def test_a_single_image_is_not_training_data(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a.jpg": b"1"})
    with pytest.raises(UserError, match="is a single image; name the folder"):
        open_source(str(tmp_path / "a.jpg"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("data.xyz", "is of no known kind. Known: "), ("data.tar.gz", "is compressed")],
)
def test_a_file_of_an_unknown_kind(tmp_path: Path, name: str, sentence: str) -> None:
    write_tree(tmp_path, {name: b"1"})
    with pytest.raises(UserError, match=sentence):
        open_source(str(tmp_path / name))


def test_a_link_to_itself_is_a_broken_image_not_the_end(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/1.jpg": make_image(1), "b/1.jpg": make_image(2)})
    (tmp_path / "a" / "self.jpg").symlink_to(tmp_path / "a" / "self.jpg")
    manifest = open_source(str(tmp_path))
    assert {manifest.key(i): str(s) for i, s in enumerate(manifest.states)} == {
        "a/1.jpg": "ok",
        "a/self.jpg": "broken link",
        "b/1.jpg": "ok",
    }
