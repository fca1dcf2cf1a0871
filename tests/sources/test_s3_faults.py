"""The S3 source against a real S3 server whose answers are spoilt on the way."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import be_quick
from thresher.errors import UserError
from thresher.sources.detect import open_source
from thresher.sources.read import Reader, ReadError
from thresher.sources.remote.retry import Patience

from .conftest import make_image, write_parquet_images, write_tar, write_tree
from .faulty import Fault, FaultyProxy, cut, garble, reset, short, stall, stall_in_the_body, status
from .s3 import upload
from .test_lmdb import raw, write_lmdb

IMAGES = [make_image(i) for i in range(6)]
PATIENCE = Patience(
    tries=4,
    first_pause=0.01,
    longest_pause=0.05,
    total_seconds=20,
    read_seconds=10,
    most_failures=5,
)
FAULTS: dict[str, Fault] = {
    "500": status(500),
    "503": status(503, "SlowDown"),
    "stall": stall(3),
    "stall in the body": stall_in_the_body(3),
    "cut": cut,
    "short": short,
    "garble": garble,
    "reset": reset,
}


@pytest.fixture(autouse=True)
def _patience(
    request: pytest.FixtureRequest, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A short one for stalls alone: else a busy machine, which serves all of this itself, may hold
    # an answer up for as long and so add a fault.
    stalls = "stall" in request.node.name
    be_quick(monkeypatch, replace(PATIENCE, read_seconds=1) if stalls else PATIENCE)


def put_tars(root: Path) -> str:
    for part in range(3):
        pair = IMAGES[2 * part : 2 * part + 2]
        members = {"a.jpg": pair[0], "a.cls": b"0", "b.jpg": pair[1], "b.cls": b"1"}
        write_tar(root / "tars" / f"{part}.tar", members)
    return "tars"


def put_parquet(root: Path) -> str:
    write_parquet_images(root / "p" / "0.parquet", list(IMAGES), [0, 1] * 3)
    return "p"


def put_tree(root: Path) -> str:
    write_tree(root, {f"tree/{'ab'[i // 3]}/x {i}.jpg": image for i, image in enumerate(IMAGES)})
    return "tree"


def put_table(root: Path) -> str:
    rows = "".join(f"i/{i}.jpg,{i % 2}\n" for i in range(6))
    write_tree(root, {f"t/i/{i}.jpg": image for i, image in enumerate(IMAGES)})
    write_tree(root, {"t/t.csv": f"path,label\n{rows}".encode()})
    return "t/t.csv"


def put_lmdb(root: Path) -> str:
    write_lmdb(root / "lmdb", {b"%d" % i: raw(i % 2) for i in range(6)})
    return "lmdb"


PUT = {"tar": put_tars, "parquet": put_parquet, "tree": put_tree, "table": put_table}

# A table says nothing of sizes, so that nobody could tell; stalls take their time.
WHERE_AND_WHAT = [
    (kind, name)
    for kind in PUT
    for name in FAULTS
    if (kind, name) != ("table", "short") and not ("stall" in name and kind in ("table", "parquet"))
]


def forget(cache_folder: Path) -> None:
    for folder in cache_folder.iterdir():
        shutil.rmtree(folder)


@pytest.mark.parametrize(("kind", "name"), WHERE_AND_WHAT)
def test_a_fault_that_passes_leaves_no_trace(
    kind: str, name: str, tmp_path: Path, bucket: Any, proxy: FaultyProxy, cache_folder: Path
) -> None:
    data = PUT[kind](tmp_path)
    upload(bucket, tmp_path)
    stalls = "stall" in name
    if name in ("short", "garble"):  # of a listing nobody could tell
        proxy.fail("GET /data/", *[FAULTS[name]] * 2)
    else:
        proxy.fail("GET /data", *[FAULTS[name]] * (1 if stalls else 2))
    manifest = open_source(f"s3://data/{data}")
    assert manifest.usable.all()
    assert manifest.options.get("damaged_shards", {}) == {}
    assert kind == "tree" or proxy.faults == []
    forget(cache_folder)
    proxy.faults.clear()
    proxy.fail("GET /data/", *[FAULTS[name]] * (1 if stalls else 3))
    reader = Reader(manifest)
    assert [reader.read(i) for i in range(6)] == IMAGES
    assert proxy.faults == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_whole_copy_is_made_again(
    name: str, tmp_path: Path, bucket: Any, proxy: FaultyProxy
) -> None:
    put_lmdb(tmp_path)
    upload(bucket, tmp_path)
    proxy.fail("GET /data/lmdb/data.mdb", FAULTS[name])
    manifest = open_source("s3://data/lmdb")
    assert proxy.faults == []
    assert len(manifest) == 6
    assert Reader(manifest).read(3).startswith(b"P6 4 5 255\n")


@pytest.mark.parametrize("name", ["500", "stall", "cut", "reset"])
def test_listings_and_look_ups_are_tried_again(
    name: str, tmp_path: Path, bucket: Any, proxy: FaultyProxy
) -> None:
    data = put_tree(tmp_path)
    put_tars(tmp_path)
    upload(bucket, tmp_path)
    proxy.fail("GET /data?list-type=2", FAULTS[name])
    assert open_source(f"s3://data/{data}").labels.tolist() == [0] * 3 + [1] * 3
    proxy.fail("HEAD /data/tars/1.tar", FAULTS["500" if name in ("cut", "reset") else name])
    assert open_source("s3://data/tars/{0..2}.tar").labels.tolist() == [0, 1] * 3
    assert proxy.faults == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("500", r"HTTP 500, 4 times"),
        ("503", r"HTTP 503, 4 times"),
        ("stall", r"no answer in time, 4 times"),
        ("short", r"\d+ of \d+ bytes came, 4 times"),
        ("garble", r"what came is not what the server sent, 4 times"),
        ("cut", r"(connection failed \(.*\)|\d+ of \d+ bytes came), 4 times"),
        ("reset", r"connection failed \(.*\), 4 times"),
    ],
)
def test_a_fault_that_stays_ends_in_a_sentence_and_in_time(
    name: str, reason: str, tmp_path: Path, bucket: Any, proxy: FaultyProxy
) -> None:
    put_tars(tmp_path)
    upload(bucket, tmp_path)
    proxy.fail("GET /data/tars/1.tar", *[FAULTS[name]] * 8)
    start = time.monotonic()
    with pytest.raises(UserError, match=rf"s3://data/tars/1\.tar cannot be read: {reason}\. Down"):
        open_source("s3://data/tars/{0..2}.tar")
    manifest = open_source("s3://data/tars/{0..2}.tar", allow_damaged=True)
    assert time.monotonic() - start < 15
    assert proxy.faults == []
    assert len(manifest) == 4
    (problem,) = manifest.options["damaged_shards"].values()
    assert re.search(reason, problem)


def test_an_image_that_cannot_be_had_says_why_and_is_there_again_later(
    tmp_path: Path, bucket: Any, proxy: FaultyProxy
) -> None:
    data = put_tree(tmp_path)
    upload(bucket, tmp_path)
    reader = Reader(open_source(f"s3://data/{data}"))
    proxy.fail("GET /data/tree/b/x 4.jpg", *[status(500)] * 4)
    assert reader.read(3) == IMAGES[3]
    with pytest.raises(ReadError, match="HTTP 500, 4 times"):
        reader.read(4)
    assert reader.read(4) == IMAGES[4]


def test_an_outage_ends_the_run_instead_of_marking_every_image(
    tmp_path: Path, bucket: Any, proxy: FaultyProxy
) -> None:
    data = put_tree(tmp_path)
    upload(bucket, tmp_path)
    reader = Reader(open_source(f"s3://data/{data}"))
    proxy.fail("GET /data/tree/", *[status(500)] * 100)
    for index in range(4):
        with pytest.raises(ReadError, match="HTTP 500, 4 times"):
            reader.read(index)
    with pytest.raises(UserError, match="5 reads in a row failed, the last of s3://data/tree/b/x"):
        reader.read(4)


def test_random_reads_are_exact_whatever_comes(
    tmp_path: Path, bucket: Any, proxy: FaultyProxy, cache_folder: Path
) -> None:
    rng = np.random.default_rng(0)
    images = {f"{i:03}.jpg": rng.bytes(int(rng.integers(1, 600_000))) for i in range(40)}
    write_tar(tmp_path / "a.tar", images)
    upload(bucket, tmp_path)
    manifest = open_source("s3://data/a.tar", labelled=False)
    forget(cache_folder)
    spoil: list[Callable[..., None]] = [status(500), cut, short, reset]
    proxy.fail("GET /data/a.tar", *[spoil[i] for i in rng.integers(0, 4, 8)])
    reader = Reader(manifest)
    names = sorted(images)
    for index in rng.permutation(40).tolist():
        for _ in range(3):  # several faults may meet in one read
            try:
                data = reader.read(index)
                break
            except ReadError as error:
                assert "4 times" in str(error)  # noqa: PT017
        assert data == images[names[index]]
    assert proxy.faults == []
