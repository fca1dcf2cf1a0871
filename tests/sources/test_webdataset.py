from __future__ import annotations

import gzip
import json
import lzma
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from thresher.errors import UserError
from thresher.sources.detect import open_source
from thresher.sources.notes import notes_of
from thresher.sources.read import Reader, ReadError

from .conftest import UGLY_NAMES, make_image, write_tar, write_tree

IMAGES = [make_image(i) for i in range(6)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_cls_labels_and_names_of_every_tar_format(tmp_path: Path, form: int) -> None:
    long = "deep/" * 18 + "n" * 60  # beyond the 100 bytes of a plain header, not the 255 of ustar
    members = {f"./{long}.jpg": IMAGES[0], f"./{long}.cls": b"10"}
    for i, name in enumerate(UGLY_NAMES, start=1):
        members |= {name: IMAGES[i], f"{Path(name).stem}.cls": f" {i + 1}\n".encode()}
    members["猫 一.txt"] = b"caption"
    path = write_tar(tmp_path / "a.tar", members, form)

    manifest = open_source(str(path))
    assert manifest.kind == "tar"
    assert manifest.classes == ("2", "3", "4", "5", "6", "10")
    assert manifest.labels.tolist() == [5, 0, 1, 2, 3, 4]
    assert [manifest.key(i) for i in range(6)] == [f"{long}.jpg", *UGLY_NAMES]
    assert manifest.options["ignored_members"] == 1
    reader = Reader(manifest)
    assert [reader.read(i) for i in range(6)] == IMAGES


def test_offsets_agree_with_tarfile(tmp_path: Path) -> None:
    members = {f"{'x' * 120}{i}.jpg": image for i, image in enumerate(IMAGES)}
    path = write_tar(tmp_path / "a.tar", members, tarfile.PAX_FORMAT)
    manifest = open_source(str(path), labelled=False)
    with tarfile.open(path) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar.getmembers()]
    found = zip(*(manifest.table[c].to_pylist() for c in ("key", "offset", "length")), strict=True)
    assert list(found) == expected


def test_json_labels_as_text_number_or_chosen_field(tmp_path: Path) -> None:
    records = [{"label": "b", "q": 1}, {"class": "a", "q": 2.0}, {"caption": "x"}, ["no"], None]
    members = {}
    for i, record in enumerate(records):
        members |= {f"{i}.jpg": IMAGES[i], f"{i}.json": json.dumps(record).encode()}
    members |= {"5.jpg": IMAGES[5], "5.json": b"{broken"}
    members |= {"6.jpg": IMAGES[5], "6.json": b'{"label": "\\ud800"}'}
    path = str(write_tar(tmp_path / "a.tar", members))
    manifest = open_source(path)
    assert manifest.classes == ("?", "a", "b")
    assert manifest.labels.tolist() == [2, 1, -1, -1, -1, -1, 0]
    assert manifest.states.tolist() == ["ok", "ok"] + ["no label"] * 4 + ["ok"]
    assert open_source(path, label_column="q").classes == ("1", "2")


def test_a_folder_and_a_brace_pattern_of_shards(tmp_path: Path) -> None:
    for shard in range(3):
        members = {"a.jpg": IMAGES[2 * shard], "a.cls": b"0"}
        members |= {"b.jpg": IMAGES[2 * shard + 1], "b.cls": b"1"}
        write_tar(tmp_path / f"shard-{shard:03}.tar", members)
    (tmp_path / "shard-000.parquet").write_bytes(b"what img2dataset writes beside a tar")
    for data in (str(tmp_path), f"{tmp_path}/shard-{{000..002}}.tar", f"{tmp_path}/*.tar"):
        manifest = open_source(data)
        assert [manifest.key(i) for i in (0, 5)] == ["shard-000.tar/a.jpg", "shard-002.tar/b.jpg"]
        assert manifest.table["shard"].to_pylist() == [0, 0, 1, 1, 2, 2]
        reader = Reader(manifest)
        assert [reader.read(i) for i in range(6)] == IMAGES
        reader.close()
    assert len(open_source(f"{tmp_path}/shard-{{000,002}}.tar")) == 4
    with pytest.raises(UserError, match=r"2 of 5 files of .* do not exist: '.*003.tar', '.*004"):
        open_source(f"{tmp_path}/shard-{{000..004}}.tar")
    with pytest.raises(UserError, match="No file matches"):
        open_source(f"{tmp_path}/none-*.tar")


def test_what_belongs_to_a_sample(tmp_path: Path) -> None:
    members = {
        "a.jpg": IMAGES[0],
        "a.mask.png": b"mask",  # goes with a.jpg
        "a.cls": b"0",
        "v.1.jpg": IMAGES[1],  # dots in the names of independent samples
        "v.1.cls": b"1",
        "v.2.jpg": IMAGES[2],
        "v.2.cls": b"0",
        "l.left.jpg": IMAGES[3],  # takes the label of its sample
        "l.cls": b"1",
        "._a.jpg": b"litter",
        "d/a.jpg": IMAGES[4],  # another folder, another sample, and no label
    }
    manifest = open_source(str(write_tar(tmp_path / "a.tar", members)))
    keys = [manifest.key(i) for i in range(len(manifest))]
    assert keys == ["a.jpg", "v.1.jpg", "v.2.jpg", "l.left.jpg", "d/a.jpg"]
    assert manifest.labels.tolist() == [0, 1, 0, 1, -1]
    assert manifest.options["ignored_members"] == 2


def test_labels_in_members_named_otherwise_than_the_image(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for i in range(3):
        members[f"{i}.input.jpg"] = make_image(i)
        members[f"{i}.output.cls"] = str(i % 2).encode()
        members[f"{i}.txt"] = f"kind {i}".encode()
    tar = str(write_tar(tmp_path / "a.tar", members))
    assert open_source(tar).labels.tolist() == [0, 1, 0]
    assert open_source(tar, label_column="output.cls").labels.tolist() == [0, 1, 0]
    assert open_source(tar, label_column="txt").classes == ("kind 0", "kind 1", "kind 2")
    # With two of them the user has to choose; what belongs to another image is nobody else's.
    more = members | {f"{i}.fine.cls": str(i).encode() for i in range(3)}
    tar = str(write_tar(tmp_path / "b.tar", more))
    with pytest.raises(UserError, match="or a member by its ending"):
        open_source(tar)
    assert open_source(tar, label_column="fine.cls").labels.tolist() == [0, 1, 2]
    dotted = {f"v1.{i}.jpg": make_image(i) for i in range(3)}
    dotted |= {"v1.1.cls": b"a", "v1.2.cls": b"b"}
    tar = str(write_tar(tmp_path / "c.tar", dotted))
    assert open_source(tar).labels.tolist() == [-1, 0, 1]


def test_of_a_member_written_twice_the_later_counts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i, name in enumerate(["a.jpg", "b.jpg", "a.jpg"]):
            (tmp_path / "x").write_bytes(IMAGES[i])
            tar.add(tmp_path / "x", name)
    manifest = open_source(str(tmp_path / "a.tar"), labelled=False)
    assert [manifest.key(i) for i in range(len(manifest))] == ["a.jpg", "b.jpg"]
    assert Reader(manifest).read(0) == IMAGES[2]


def test_a_link_reads_its_target(tmp_path: Path) -> None:
    write_tree(tmp_path / "t", {"a.jpg": IMAGES[0]})
    (tmp_path / "t" / "b.jpg").hardlink_to(tmp_path / "t" / "a.jpg")
    (tmp_path / "t" / "c.jpg").symlink_to("./a.jpg")
    (tmp_path / "t" / "d.jpg").symlink_to("../a.jpg")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
            tar.add(tmp_path / "t" / name, name)
    manifest = open_source(str(tmp_path / "a.tar"), labelled=False)
    assert [manifest.key(i) for i in range(len(manifest))] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [Reader(manifest).read(i) for i in range(3)] == [IMAGES[0]] * 3
    (note,) = notes_of(manifest)
    assert note.startswith("1 image in tars left out, as links to what is not there")
    assert "'d.jpg'" in note


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_a_file_that_is_stored_sparse_is_named(tmp_path: Path, form: str) -> None:
    with (tmp_path / "1.jpg").open("wb") as file:
        for number in range(12):  # pieces: more than a header has room for
            file.seek(number << 16)
            file.write(IMAGES[1])
    for name, data in (("0.jpg", IMAGES[0]), ("2.jpg", IMAGES[2])):
        (tmp_path / name).write_bytes(data)
    words = ["tar", "--sparse", f"--format={form}", "-cf", "a.tar", "0.jpg", "1.jpg", "2.jpg"]
    subprocess.run(words, cwd=tmp_path, check=True)
    manifest = open_source(str(tmp_path / "a.tar"), labelled=False)
    assert [Reader(manifest).read(i) for i in range(2)] == [IMAGES[0], IMAGES[2]]
    assert manifest.options["first_lost"] == "1.jpg"
    subprocess.run([*words[:-3], "1.jpg"], cwd=tmp_path, check=True)
    with pytest.raises(UserError, match=r"no images but such as '1.jpg', .* without --sparse"):
        open_source(str(tmp_path / "a.tar"), labelled=False)


def test_archives_that_were_joined_are_read_as_one(tmp_path: Path) -> None:
    parts = [write_tar(tmp_path / f"{i}.tar", {f"{i}.jpg": IMAGES[i]}) for i in range(3)]
    joined = b"".join(part.read_bytes() for part in parts)
    (tmp_path / "a.tar").write_bytes(joined + b"\0" * 5000 + b"a remark")
    manifest = open_source(str(tmp_path / "a.tar"), labelled=False)
    assert [Reader(manifest).read(i) for i in range(3)] == IMAGES[:3]


def test_a_header_of_zeros_in_the_middle_is_no_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {f"{i}.jpg": IMAGES[i] for i in range(3)})
    data = bytearray(path.read_bytes())
    start = data.index(b"1.jpg\0")
    data[start : start + 512] = bytes(512)
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"the header at byte {start} is damaged.*'0\.jpg'"):
        open_source(str(path), labelled=False)
    assert len(open_source(str(path), labelled=False, allow_damaged=True)) == 1


@pytest.mark.parametrize(("pack", "kind"), [(gzip.compress, "gzip"), (lzma.compress, "xz")])
def test_a_compressed_tar_without_the_ending_for_it(
    tmp_path: Path, pack: Callable[[bytes], bytes], kind: str
) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.jpg": IMAGES[0]})
    path.write_bytes(pack(path.read_bytes()))
    with pytest.raises(UserError, match=f"it is not a tar file but one of {kind}; unpack it"):
        open_source(str(path), labelled=False)


def test_labels_that_are_not_utf8_stay_apart(tmp_path: Path) -> None:
    labels = ["h\xe4nd".encode("latin-1"), "h\xfcnd".encode("latin-1")]
    members = {f"{i}.{e}": d for i in (0, 1) for e, d in (("jpg", IMAGES[i]), ("cls", labels[i]))}
    manifest = open_source(str(write_tar(tmp_path / "a.tar", members)))
    assert manifest.classes == (r"h\xe4nd", r"h\xfcnd")


@pytest.mark.parametrize("name", ["../up.jpg", "/abs.jpg", "a/../../b.jpg"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / "a.tar", {"ok.jpg": IMAGES[0], name: IMAGES[1]})
    with pytest.raises(UserError, match=f"The member '{name}' of {path} points outside"):
        open_source(str(path), labelled=False, allow_damaged=True)


@pytest.mark.parametrize(
    ("keep", "reason", "last"),
    [
        (1536 + 512 + 100, "it ends in the middle of a file", "a.cls"),
        (1536 + 512 - 100, "it ends in the middle of a header", "a.jpg"),
        (512 + 20, "it ends in the middle of a file", None),
    ],
)
def test_a_truncated_tar(tmp_path: Path, keep: int, reason: str, last: str | None) -> None:
    """Layout: a.jpg at 0 (header 512, content below 1024), then a.cls, b.jpg and b.cls."""
    members = {"a.jpg": b"x" * 700, "a.cls": b"0", "b.jpg": b"y" * 700, "b.cls": b"1"}
    path = write_tar(tmp_path / "a.tar", members)
    keep += 1024 if last == "a.cls" else 0
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError) as caught:
        open_source(str(path), labelled=False)
    good = f"The last good member is '{last}'" if last else "It has no good member"
    assert str(caught.value) == (
        f"{path} is damaged: {reason}. {good}. Download or write it again, or take the rest "
        "with --allow-damaged."
    )
    if last:
        manifest = open_source(str(path), labelled=False, allow_damaged=True)
        assert Reader(manifest).read(0) == b"x" * 700
        assert list(manifest.options["damaged_shards"]) == [str(path)]


def test_tars_that_cannot_be_used(tmp_path: Path) -> None:
    def refused(name: str) -> str:
        with pytest.raises(UserError) as caught:
            open_source(str(tmp_path / name))
        return str(caught.value)

    (tmp_path / "text.tar").write_bytes(b"this is no archive" * 100)
    assert "is damaged: it is not a tar file" in refused("text.tar")
    (tmp_path / "squeezed.tar").write_bytes(gzip.compress(b"x" * 2000) * 100)
    assert "is damaged: it is not a tar file" in refused("squeezed.tar")
    (tmp_path / "nothing.tar").write_bytes(b"")
    assert "is damaged: it is empty. It has no good member" in refused("nothing.tar")
    write_tar(tmp_path / "text-only.tar", {"a.txt": b"x"})
    assert "holds no images" in refused("text-only.tar")
    write_tar(tmp_path / "unlabelled.tar", {"a.jpg": b"x", "a.json": b'{"caption": "x"}'})
    assert "has a label: neither a .cls member nor" in refused("unlabelled.tar")
    whole = write_tar(tmp_path / "flipped.tar", {"a.jpg": b"x", "b.jpg": b"y"})
    raw = bytearray(whole.read_bytes())
    raw[1024 + 10] ^= 0xFF  # in the name of the second member
    whole.write_bytes(raw)
    assert "the header at byte 1024 is damaged. The last good member is 'a.jpg'" in refused(
        "flipped.tar"
    )


def test_a_shard_that_changed_or_vanished(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.jpg": IMAGES[0], "b.jpg": IMAGES[1]})
    manifest = open_source(str(path), labelled=False)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ReadError, match="shard changed since it was indexed"):
        Reader(manifest).read(1)
    path.unlink()
    with pytest.raises(ReadError, match="file vanished"):
        Reader(manifest).read(0)


def test_a_class_tree_beside_its_own_tar_is_the_tree(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/1.jpg": b"x", "b/1.jpg": b"x", "all.tar": b"x", "m.parquet": b"x"})
    assert open_source(str(tmp_path)).classes == ("a", "b")


def test_a_hostile_size_ends_the_walk(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.jpg": b"x", "b.jpg": b"y"})
    raw = bytearray(path.read_bytes())
    raw[1024 + 124 : 1024 + 136] = b"-0000001000\0"  # back to this very header
    raw[1024 + 148 : 1024 + 156] = b" " * 8
    raw[1024 + 148 : 1024 + 156] = f"{sum(raw[1024:1536]):06o}\0 ".encode()
    path.write_bytes(raw)
    with pytest.raises(UserError, match="a header is damaged"):
        open_source(str(path), labelled=False)


def test_no_random_damage_gives_anything_but_a_sentence(tmp_path: Path) -> None:
    members = {f"{'n' * 110}{i}.jpg": IMAGES[i] for i in range(4)}
    whole = write_tar(tmp_path / "a.tar", members, tarfile.PAX_FORMAT).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        raw = bytearray(whole)
        for position in rng.integers(0, len(raw), size=30):
            raw[position] = rng.integers(256)
        (tmp_path / "a.tar").write_bytes(raw[: rng.integers(1, len(raw))])
        try:
            open_source(str(tmp_path / "a.tar"), labelled=False)
        except UserError:
            refused += 1
    assert refused > 200
