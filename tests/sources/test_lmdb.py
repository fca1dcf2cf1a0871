from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from thresher.errors import UserError
from thresher.sources.caffe_lmdb import NOT_A_DATUM
from thresher.sources.datum import NotADatum, image_of, parse_datum
from thresher.sources.detect import open_source
from thresher.sources.read import Reader, ReadError

from .conftest import make_image

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)  # RGB


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def datum(
    data: bytes, label: int, size: Sequence[int] = (), *, encoded: bool = False, more: bytes = b""
) -> bytes:
    """As protobuf writes it: fields in the order of their numbers."""
    head = b"".join(field(number, side) for number, side in enumerate(size, start=1))
    tail = field(5, label) + more + (field(7, 1) if encoded else b"")
    return head + (field(4, data) if data else b"") + tail


def raw(label: int, pixels: np.ndarray = PIXELS) -> bytes:
    """What convert_imageset writes: channels in the order blue, green, red, before rows."""
    planes = pixels[..., ::-1].transpose(2, 0, 1)
    return datum(planes.tobytes(), label, planes.shape)


def write_lmdb(
    path: Path, records: dict[bytes, bytes], size: int = 1 << 22, *, subdir: bool = True
) -> Path:
    with lmdb.open(str(path), map_size=size, subdir=subdir) as env, env.begin(write=True) as txn:
        for key, value in records.items():
            txn.put(key, value)
    return path


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_encoded_and_raw_records(tmp_path: Path) -> None:
    images = [make_image(i) for i in range(3)]
    records = {
        f"{i:08}_猫 {i}.jpg".encode(): datum(image, i % 2, encoded=True)
        for i, image in enumerate(images)
    }
    records[b"00000003_raw"] = raw(1)
    records[b"00000004_\xb0\xa1"] = raw(0)
    manifest = open_source(str(write_lmdb(tmp_path / "train_lmdb", records)))
    assert manifest.kind == "lmdb"
    assert manifest.classes == ("0", "1")
    assert manifest.labels.tolist() == [0, 1, 0, 1, 0]
    assert [manifest.key(i) for i in (0, 4)] == ["00000000_猫 0.jpg", r"00000004_\udcb0\udca1"]
    reader = Reader(manifest)
    assert [reader.read(i) for i in range(3)] == images
    assert np.array_equal(pixels_of(reader.read(3)), PIXELS)
    assert np.array_equal(pixels_of(reader.read(4)), PIXELS)
    again = pickle.loads(pickle.dumps(reader))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(again.read, [0, 1, 2] * 100)) == images * 100
    assert len(open_source(str(tmp_path / "train_lmdb" / "data.mdb"), labelled=False)) == 5


def test_grey_and_float_records() -> None:
    grey = PIXELS[..., 0]
    record = datum(grey.tobytes(), 0, (1, *grey.shape))
    assert np.array_equal(pixels_of(image_of(parse_datum(memoryview(record)))), grey)
    values = [0.0, 255.0, 127.6, 3.2]
    packed = field(6, struct.pack("<4f", *values))
    single = b"".join(varint(6 << 3 | 5) + struct.pack("<f", value) for value in values)
    for floats in (packed, single):
        record = datum(b"", 0, (1, 2, 2), more=floats)
        image = pixels_of(image_of(parse_datum(memoryview(record))))
        assert image.tolist() == [[0, 255], [128, 3]]


def test_a_label_may_be_negative_or_left_out() -> None:
    assert parse_datum(memoryview(datum(b"x", -1))).label == -1
    assert parse_datum(memoryview(field(4, b"x"))).label is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "no data"),
        (b"plain text, not a message", "not a Datum"),
        (field(4, b"x" * 100)[:50], "cut short"),
        (field(1, b"x"), "not a Datum"),
        (b"\xff" * 30, "not a Datum"),
        (datum(b"xy", 0, (3, 2, 2)), "2 bytes are no 3 x 2 x 2 pixels"),
        (datum(b"x" * 8, 0, (2, 2, 2)), "2 x 2 x 2 values are no image"),
        (datum(b"", 0, (1, 1, 1), more=field(6, struct.pack("<f", -3))), "features, not pixels"),
    ],
)
def test_what_is_no_image(record: bytes, reason: str) -> None:
    with pytest.raises(NotADatum, match=reason):
        image_of(parse_datum(memoryview(record)))


def test_random_bytes_never_give_another_error() -> None:
    rng = np.random.default_rng(0)
    whole = raw(1)
    for _ in range(2000):
        record = bytearray(whole[: rng.integers(1, len(whole))])
        for position in rng.integers(0, len(record), 4):
            record[position] = rng.integers(256)
        with contextlib.suppress(NotADatum):
            image_of(parse_datum(memoryview(record)))


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_names_of_classes(tmp_path: Path, place: str) -> None:
    path = write_lmdb(tmp_path / "db", {b"0": raw(1), b"1": raw(0)})
    folder = path if place == "inside" else tmp_path
    (folder / "labels.txt").write_text("cat\ndog\nnever seen\n")
    manifest = open_source(str(path))
    assert manifest.classes == ("cat", "dog", "never seen")
    assert manifest.labels.tolist() == [1, 0]
    (folder / "labels.txt").write_text("only\n")  # it belongs to something else
    assert open_source(str(path)).classes == ("0", "1")


def test_a_bad_record_among_good_ones_is_marked(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "db", {b"0": raw(1), b"1": b"text", b"2": raw(0)})
    manifest = open_source(str(path))
    assert manifest.states.tolist() == ["ok", NOT_A_DATUM, "ok"]
    assert manifest.options["damaged_records"] == 1


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        open_source(str(path))
    return str(caught.value)


def test_databases_that_cannot_be_used(tmp_path: Path) -> None:
    other = write_lmdb(tmp_path / "other", {b"num-samples": b"3", b"image-1": make_image(0)})
    assert "is an LMDB, but not of Caffe's Datum records: its first record" in refused(other)
    assert "is an LMDB without records" in refused(write_lmdb(tmp_path / "empty", {}))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "data.mdb").write_bytes(b"no database" * 2000)
    assert "cannot be opened as LMDB" in refused(tmp_path / "text")
    records = {b"%04d" % i: raw(i % 2) * 1 for i in range(500)}
    whole = write_lmdb(tmp_path / "cut", records)
    file = whole / "data.mdb"
    size = file.stat().st_size
    for keep in (size - 5000, size // 2, 8192, 100, 0):
        os.truncate(file, keep)
        assert "data.mdb is cut short: " in refused(whole)


def test_a_cut_database_is_usable_as_far_as_it_goes(tmp_path: Path) -> None:
    """Values on pages of their own, values among the keys, and from a key on none at all."""
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 30, 3), dtype=np.uint8)
    records = {b"%04d" % i: raw(i % 2, pixels) for i, pixels in enumerate(noise)}
    records |= {b"%04d" % i: raw(i % 2) for i in range(40, 700)}
    path = write_lmdb(tmp_path / "db", records)
    whole = Reader(open_source(str(path)))
    good = {i: whole.read(i) for i in range(700)}
    file = path / "data.mdb"
    found = []
    for keep in (file.stat().st_size - 4096, file.stat().st_size // 2):
        os.truncate(file, keep)
        manifest = open_source(str(path), allow_damaged=True)
        reader = Reader(manifest)
        assert manifest.labels.tolist() == [int(manifest.key(i)) % 2 for i in range(len(manifest))]
        for row in range(len(manifest)):
            assert reader.read(row) == good[int(manifest.key(row))]
        (problem,) = manifest.options["damaged_shards"].values()
        assert "data.mdb is cut short: it has" in problem
        found.append(len(manifest))
    assert 700 >= found[0] > found[1] > 20
    assert "or take the rest with --allow-damaged" in refused(path)
    os.truncate(file, 8192)
    with pytest.raises(UserError, match=r"data\.mdb is cut short: .*Download or write it again"):
        open_source(str(path), allow_damaged=True)


def test_a_database_that_is_replaced_or_cut_while_open(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "db", {b"%04d" % i: raw(i % 2) for i in range(200)})
    manifest = open_source(str(path))
    reader = Reader(manifest)
    assert np.array_equal(pixels_of(reader.read(7)), PIXELS)
    os.truncate(path / "data.mdb", 12288)
    with pytest.raises(ReadError, match="shard changed since it was indexed"):
        reader.read(150)
    with pytest.raises(ReadError, match="shard changed since it was indexed"):
        Reader(manifest).read(150)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lmdb(tmp_path / "db", {b"0": raw(1), b"1": raw(0)})
    monkeypatch.setitem(sys.modules, "lmdb", None)
    assert "needs the package lmdb. Install it: pip install 'thresher[lmdb]'" in refused(path)


def test_a_reader_survives_a_fork(
    tmp_path: Path, fork: Callable[[Callable[[], bytes]], bytes]
) -> None:
    reader = Reader(open_source(str(write_lmdb(tmp_path / "db", {b"0": raw(1), b"1": raw(0)}))))
    assert fork(lambda: reader.read(1)) == reader.read(1)


def test_records_behind_a_broken_page_are_found_all_the_same(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "lmdb", {b"%03d" % i: raw(i % 2) for i in range(400)})
    file = Path(path) / "data.mdb"
    data = bytearray(file.read_bytes())
    data[5 * 4096 : 5 * 4096 + 64] = b"\xff" * 64
    file.write_bytes(data)
    with pytest.raises(
        UserError, match=r"data\.mdb is damaged: .* Copy it again, or take the rest"
    ):
        open_source(str(path))
    manifest = open_source(str(path), allow_damaged=True)
    keys = [manifest.key(i) for i in range(len(manifest))]
    assert len(keys) == len(set(keys)) > 350
    assert [int(key) % 2 for key in keys] == manifest.labels.tolist()
    reader = Reader(manifest)
    assert {reader.read(i)[:11] for i in range(len(keys))} == {b"P6 4 5 255\n"}
