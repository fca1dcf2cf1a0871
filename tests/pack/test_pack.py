"""Packing whole data sets, and going on after a stop."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pack.helpers import encoded, hashes, names, photo, write_photos
from thresher.cli import main
from thresher.errors import UserError
from thresher.pack.index import load_index, verify
from thresher.pack.run import PackResult, pack
from thresher.pack.settings import PackSettings
from thresher.sources.detect import open_source
from thresher.sources.notes import notes_of
from thresher.sources.read import Reader

SMALL = PackSettings(short_side=32, shard_mb=0.02)


def packed(data: Path, out: Path, settings: PackSettings = SMALL, workers: int = 1) -> PackResult:
    return pack(open_source(str(data)), out, settings, workers=workers)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


def test_labels_names_and_bytes_come_back(tmp_path: Path, photos: Path) -> None:
    result = packed(photos, tmp_path / "out")
    assert (result.images, result.copied, result.unreadable) == (40, 0, 0)
    assert result.shards > 2
    source = open_source(str(photos))
    index = load_index(tmp_path / "out")
    assert index.classes == source.classes == ("cat", "dög 狗")
    assert index.labels.tolist() == source.labels.tolist()
    assert index.table["key"].to_pylist() == source.table["key"].to_pylist()
    assert index.usable.all()
    for data in ("out", "out/*.tar"):
        opened = open_source(f"{tmp_path}/{data}")
        assert opened.classes == source.classes
        assert opened.labels.tolist() == source.labels.tolist()
        by_index, by_walk = Reader(index), Reader(opened)
        assert all(by_index.read(i) == by_walk.read(i) for i in range(40))


def test_any_tar_reader_can_read_it(tmp_path: Path, photos: Path) -> None:
    packed(photos, tmp_path / "out", PackSettings(short_side=32))
    assert names(tmp_path / "out") == [".pack", "00000.tar", "index.parquet", "unreadable.csv"]
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        members = tar.getmembers()
        assert [m.name for m in members[:4]] == [
            *("000000000.jpg", "000000000.cls", "000000001.jpg", "000000001.cls")
        ]
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}
        last = tar.extractfile(members[-1])
        assert last is not None
        assert last.read().decode() == "dög 狗"


def test_workers_do_not_change_a_byte(tmp_path: Path, photos: Path) -> None:
    packed(photos, tmp_path / "one", workers=1)
    packed(photos, tmp_path / "two", workers=2)
    packed(photos, tmp_path / "many", workers=7)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two") == hashes(tmp_path / "many")


def test_tars_keep_to_their_size(tmp_path: Path, photos: Path) -> None:
    result = packed(photos, tmp_path / "out")
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("*.tar")]
    assert max(sizes) <= 20_000
    assert sum(sizes) == result.size
    alone = packed(photos, tmp_path / "alone", PackSettings(short_side=32, shard_mb=1e-4))
    assert alone.shards == 40


def test_the_unreadable_are_listed_and_keep_their_ids(tmp_path: Path, photos: Path) -> None:
    (photos / "cat" / "0 ü.jpg").write_bytes(b"")
    whole = (photos / "cat" / "5 ü.jpg").read_bytes()
    (photos / "cat" / "5 ü.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "dög 狗" / "9 ü.jpg").write_bytes(b"<html>404</html>")
    (photos / "cat" / "link.jpg").symlink_to("nowhere")
    result = packed(photos, tmp_path / "out")
    assert (result.images, result.unreadable) == (37, 4)
    with (tmp_path / "out" / "unreadable.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["key"]: row["label"] for row in rows} == {
        "cat/0 ü.jpg": "cat",
        "cat/5 ü.jpg": "cat",
        "cat/link.jpg": "cat",
        "dög 狗/9 ü.jpg": "dög 狗",
    }
    assert all(row["reason"] for row in rows)
    source, index = open_source(str(photos)), load_index(tmp_path / "out")
    assert len(index) == len(source)
    assert np.flatnonzero(~index.usable).tolist() == [int(row["id"]) for row in rows]
    assert index.states[int(rows[0]["id"])] == rows[0]["reason"]
    assert len(open_source(f"{tmp_path}/out/*.tar")) == 37


def test_classes_keep_their_order_and_samples_without_a_label_stay(tmp_path: Path) -> None:
    cells = [{"bytes": encoded(photo(i)), "path": f"../{i}.jpg"} for i in range(4)]
    feature = '{"info": {"features": {"label": {"names": ["z", "unused", "a"]}}}}'
    table = pa.table({"image": cells, "label": [2, 0, -1, 2]})
    pq.write_table(table.replace_schema_metadata({"huggingface": feature}), tmp_path / "t.parquet")
    packed(tmp_path / "t.parquet", tmp_path / "out")
    index = load_index(tmp_path / "out")
    assert index.classes == ("z", "unused", "a")
    assert index.labels.tolist() == [2, 0, -1, 2]
    assert index.states.tolist() == ["ok", "ok", "no label", "ok"]
    assert (tmp_path / "out" / "unreadable.csv").read_text() == "id,key,label,reason\n"


def test_the_folder_can_be_moved(tmp_path: Path, photos: Path) -> None:
    packed(photos, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    assert Reader(load_index(tmp_path / "moved")).read(3)
    verify(tmp_path / "moved")


def test_a_rerun_keeps_everything(tmp_path: Path, photos: Path) -> None:
    first = packed(photos, tmp_path / "out")
    before = hashes(tmp_path / "out")
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").glob("*.tar"))]
    again = packed(photos, tmp_path / "out")
    assert again.kept == again.shards == first.shards
    assert hashes(tmp_path / "out") == before
    assert times == [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").glob("*.tar"))]


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_harmed_tar_is_found_and_made_again(tmp_path: Path, photos: Path, harm: str) -> None:
    result = packed(photos, tmp_path / "out")
    before = hashes(tmp_path / "out")
    tar = tmp_path / "out" / "00001.tar"
    data = bytearray(tar.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
        tar.write_bytes(data)
    elif harm == "cut":
        tar.write_bytes(data[:-1])
    else:
        tar.unlink()
    with pytest.raises(UserError, match=r"1 of \d+ tars in .*'00001\.tar'"):
        verify(tmp_path / "out")
    again = packed(photos, tmp_path / "out")
    assert again.kept == result.shards - 1
    assert hashes(tmp_path / "out") == before


def start(photos: Path, out: Path) -> subprocess.Popen[bytes]:
    words = ["pack", str(photos), str(out), "--shard-mb", "0.05", "--short-side", "48"]
    return subprocess.Popen([sys.executable, "-m", "thresher", *words, "--workers", "2"])


@pytest.mark.parametrize("tars", [0, 2])
def test_kill_9_and_go_on(tmp_path: Path, tars: int) -> None:
    photos = write_photos(tmp_path / "photos", per_class=150, size=(640, 480), distinct=4)
    settings = PackSettings(short_side=48, shard_mb=0.05)
    packed(photos, tmp_path / "whole", settings)
    out = tmp_path / "out"
    process = start(photos, out)
    try:
        while process.poll() is None:
            finished = len(list(out.glob("*.tar")))
            if finished >= tars and any(out.glob(".*.tar.tmp")):
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "index.parquet").exists()
    done = len(list(out.glob("*.tar")))
    if done:
        # What is finished can be used even so.
        assert len(open_source(str(out), labelled=False)) > 0
    result = packed(photos, out, settings, workers=2)
    assert result.kept >= done - 1  # a tar whose record was not yet written is made again
    assert hashes(out) == hashes(tmp_path / "whole")
    assert names(out) == names(tmp_path / "whole")


def test_ctrl_c_leaves_an_index_of_what_is_finished(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", per_class=150, size=(640, 480), distinct=4)
    out = tmp_path / "out"
    process = start(photos, out)
    try:
        while process.poll() is None and len(list((out / ".pack").glob("*.parquet"))) < 2:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
    assert not list(out.glob(".*.tmp"))
    index = verify(out)
    assert 0 < len(index) < 300
    assert not index.options["complete"]
    (note,) = [one for one in notes_of(open_source(str(out))) if "Packing" in one]
    assert f"only the first {len(index)} samples are here" in note
    assert Reader(index).read(len(index) - 1)


def test_two_at_once_are_refused(tmp_path: Path, photos: Path) -> None:
    import fcntl

    packed(photos, tmp_path / "out")
    with (tmp_path / "out" / ".pack" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another process is packing"):
            packed(photos, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--quality", "80"], "begun with --quality 90, not 80"),
        (["--short-side", "64"], "begun with --short-side 32, not 64"),
        (["--subsampling", "4:4:4"], "begun with --subsampling 4:2:0"),
        (["--shard-mb", "1"], "begun with --shard-mb 0.02"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path,
    photos: Path,
    options: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["pack", str(photos), str(tmp_path / "out"), "--short-side", "32", "--shard-mb", "0.02"]
    assert main(words) == 0
    assert "40 images in" in capsys.readouterr().out
    assert main([*words, *options]) == 2
    assert says in capsys.readouterr().err


def test_other_data_are_refused(tmp_path: Path, photos: Path) -> None:
    packed(photos, tmp_path / "out")
    (photos / "cat" / "0 ü.jpg").rename(photos / "dög 狗" / "new.jpg")
    with pytest.raises(UserError, match="begun from other data"):
        packed(photos, tmp_path / "out")


def test_the_same_data_may_have_moved(tmp_path: Path, photos: Path) -> None:
    packed(photos, tmp_path / "out")
    shutil.move(photos, tmp_path / "elsewhere")
    assert packed(tmp_path / "elsewhere", tmp_path / "out").kept > 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pack", "photos"], "Name the folder for the tars"),
        (["pack", "photos", "photos/packed"], "lies inside"),
        (["pack", "photos", "photos"], "lies inside"),
        (["pack", "photos", "full"], "not empty"),
        (["pack", "photos", "photos/cat/0 ü.jpg/x"], "lies inside"),
        (["pack", "photos", "file"], "Cannot write"),
        (["pack", "photos", "out", "--quality", "101"], "--quality takes 1 to 100"),
        (["pack", "photos", "out", "--short-side", "0"], "--short-side takes"),
        (["pack", "photos", "out", "--shard-mb", "0"], "--shard-mb takes"),
        (["pack", "photos", "out", "--shard-mb", "nan"], "--shard-mb takes"),
        (["pack", "photos", "out", "--workers", "0"], "--workers takes"),
        (["pack", "photos", "out", "--subsampling", "4:1:1"], "subsampling"),
        (["pack", "--verify", "full"], "There is no index.parquet"),
        (["pack", "none", "out"], "There is no file or folder none"),
        (["pack", "broken", "out"], "No image of broken can be read"),
    ],
)
def test_mistakes_are_told(
    tmp_path: Path,
    photos: Path,
    words: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("a", "b"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "1.jpg").write_bytes(b"no")
    assert main(words) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.glob("*/*.tar"))
    assert (tmp_path / "full" / "thesis.doc").read_text() == "mine"


def test_verify_from_the_command_line(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    packed(photos, out)
    assert main(["pack", "--verify", str(out)]) == 0
    assert "with 40 samples are as they were written" in capsys.readouterr().out
    data = bytearray((out / "00000.tar").read_bytes())
    data[700] ^= 0x10
    (out / "00000.tar").write_bytes(data)
    assert main(["pack", "--verify", str(out)]) == 2
    assert "'00000.tar'" in capsys.readouterr().err
