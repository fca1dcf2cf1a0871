from __future__ import annotations

import io
import os
import shutil
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import s3fs
from botocore.exceptions import ClientError, NoCredentialsError

from thresher.errors import UserError
from thresher.sources.detect import open_source
from thresher.sources.read import Reader, ReadError
from thresher.sources.remote import store as remote
from thresher.sources.remote.errors import Missing, NoAccess, Passing, translate

from .conftest import make_image, write_parquet_images, write_tar, write_tree
from .s3 import upload
from .test_http import save_relative
from .test_img2dataset_folders import write_set
from .test_lmdb import raw, write_lmdb

IMAGES = [make_image(i) for i in range(6)]


def test_every_kind_of_data(tmp_path: Path, bucket: Any) -> None:
    tree = {f"tree/{'ab'[i % 2]}/x {i}.jpg": image for i, image in enumerate(IMAGES)}
    rows = "".join(f"tree/{'ab'[i % 2]}/x {i}.jpg,{i % 2}\n" for i in range(6))
    write_tree(tmp_path, tree | {"t.csv": f"path,label\n{rows}".encode(), "tree/a/notes": b"x"})
    for part in range(3):
        pair = IMAGES[2 * part : 2 * part + 2]
        members = {"a.jpg": pair[0], "a.cls": b"0", "b.jpg": pair[1], "b.cls": b"1"}
        write_tar(tmp_path / "tars" / f"{part}.tar", members)
        write_parquet_images(tmp_path / "p" / f"{part}.parquet", list(pair), [0, 1])
    write_lmdb(tmp_path / "lmdb", {b"%d" % i: raw(i % 2) for i in range(6)})
    write_tree(tmp_path, {f"set/{i}.tar": (tmp_path / f"tars/{i}.tar").read_bytes() for i in "012"})
    save_relative(open_source(str(tmp_path / "set")), tmp_path / "set")
    upload(bucket, tmp_path)

    for url in ("tars", "tars/", "tars/{0..2}.tar", "tars/*.tar", "p", "p/*.parquet", "t.csv"):
        manifest = open_source(f"s3://data/{url}")
        assert manifest.labels.tolist() == [0, 1] * 3, url
        reader = Reader(manifest)
        assert [reader.read(i) for i in range(6)] == IMAGES, url
    assert open_source("s3://data/set").shards == tuple(f"s3://data/set/{i}.tar" for i in "012")
    assert len(open_source("s3://data/lmdb")) == 6

    manifest = open_source("s3://data/tree")
    assert manifest.classes == ("a", "b")
    assert [manifest.key(i) for i in (0, 5)] == ["a/x 0.jpg", "b/x 5.jpg"]
    assert manifest.options["ignored_files"] == 1
    reader = Reader(manifest)
    order = [0, 2, 4, 1, 3, 5]
    assert [reader.read(i) for i in range(6)] == [IMAGES[i] for i in order]
    bucket.put_object(Key="tree/a/x 0.jpg", Body=b"another")
    assert [reader.read(i) for i in range(6)] == [IMAGES[i] for i in order]  # from the cache
    assert Reader(open_source("s3://data/tree")).read(0) == b"another"


def test_a_file_of_a_tree_that_is_replaced(tmp_path: Path, bucket: Any) -> None:
    upload(bucket, write_tree(tmp_path, {"a/0.jpg": IMAGES[0], "b/1.jpg": IMAGES[1]}))
    reader = Reader(open_source("s3://data/"))
    bucket.put_object(Key="a/0.jpg", Body=b"x" * len(IMAGES[0]))
    bucket.put_object(Key="b/1.jpg", Body=b"x")
    for index in range(2):
        with pytest.raises(ReadError, match=r"^file changed since it was indexed$"):
            reader.read(index)


def test_a_shard_that_is_replaced(tmp_path: Path, bucket: Any) -> None:
    write_tar(tmp_path / "a.tar", {"a.jpg": IMAGES[0]})
    upload(bucket, tmp_path)
    manifest = open_source("s3://data/a.tar", labelled=False)
    bucket.upload_fileobj(io.BytesIO(b"x" * 99), "a.tar")
    with pytest.raises(ReadError, match="shard changed since it was indexed"):
        Reader(manifest).read(0)
    bucket.Object("a.tar").delete()
    with pytest.raises(ReadError, match="there is no such file"):
        Reader(manifest).read(0)


@pytest.mark.parametrize("other", ["same size", "shorter"])
def test_an_object_replaced_between_two_reads(tmp_path: Path, bucket: Any, other: str) -> None:
    monochrome = [bytes([i]) * (5 << 20) for i in range(3)]  # more than one block each
    members = {f"{i}.jpg": data for i, data in enumerate(monochrome)}
    write_tar(tmp_path / "a.tar", members)
    upload(bucket, tmp_path)
    manifest = open_source("s3://data/a.tar", labelled=False)
    shutil.rmtree(os.environ["THRESHER_CACHE_DIR"], ignore_errors=True)
    reader = Reader(manifest)
    assert reader.read(0) == monochrome[0]
    size = manifest.options["shard_sizes"][0] if other == "same size" else 5 << 20
    bucket.put_object(Key="a.tar", Body=b"x" * size)
    with pytest.raises(ReadError, match="shard changed since it was indexed"):
        reader.read(2)


def refused(url: str) -> str:
    with pytest.raises(UserError) as caught:
        open_source(url)
    return str(caught.value)


def test_what_is_not_there(bucket: Any) -> None:
    assert "There is no file s3://data/a.tar" in refused("s3://data/a.tar")
    assert "No file matches s3://data/*.tar" in refused("s3://data/*.tar")
    assert "There is no file or folder s3://data/nothing." in refused("s3://data/nothing")
    assert "There is no" in refused("s3://other/a/")


def test_no_credentials(tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(remote, "_stores", {})
    assert "There are no credentials for s3://data. Set AWS_ACCESS" in refused("s3://data/a.tar")


@pytest.mark.parametrize(
    ("code", "status", "sentence"),
    [
        ("ExpiredToken", 400, "The credentials for s3://data have expired. Renew them"),
        ("RequestExpired", 403, "have expired. Renew them"),
        ("InvalidAccessKeyId", 403, "are wrong (InvalidAccessKeyId). Check AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, "are wrong (SignatureDoesNotMatch)"),
    ],
)
def test_what_s3_says_of_credentials(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, code: str, status: int, sentence: str
) -> None:
    metadata = {"HTTPStatusCode": status}
    answer = {"Error": {"Code": code, "Message": "x"}, "ResponseMetadata": metadata}
    store = remote.store_for("s3://data/a.tar")

    async def fail(*_: object, **__: object) -> None:
        raise ClientError(answer, "GetObject")  # type: ignore[arg-type]

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", fail)
    assert store is remote.store_for("s3://data/b.tar")
    assert sentence in refused("s3://data/a.tar")
    with pytest.raises(UserError):
        open_source("s3://data/a.tar", allow_damaged=True)


def test_errors_are_sorted() -> None:
    def sort(code: str, status: int) -> Exception:
        answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return translate(ClientError(answer, "GetObject"), "s3://b/k")

    assert isinstance(sort("SlowDown", 503), Passing)
    assert isinstance(sort("InternalError", 500), Passing)
    assert isinstance(sort("NoSuchKey", 404), Missing)
    assert isinstance(translate(NoCredentialsError(), "s3://b/k"), NoAccess)
    assert isinstance(translate(TimeoutError(), "s3://b/k"), Passing)
    assert isinstance(translate(ZeroDivisionError(), "s3://b/k"), ZeroDivisionError)


def test_nobody_listens(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{held.getsockname()[1]}")
        monkeypatch.setattr(remote, "_stores", {})
        assert "cannot be read: connection failed" in refused("s3://data/a.tar")


def test_a_key_that_the_server_does_not_know(
    endpoint: str, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    monkeypatch.setattr(remote, "_stores", {})
    set_unchecked_actions(endpoint, 0)
    try:
        assert "for s3://data are wrong (InvalidAccessKeyId). Check" in refused("s3://data/tars/")
        # A HEAD answer has no body, and so no reason.
        assert "access denied: these credentials may not" in refused("s3://data/a.tar")
    finally:
        set_unchecked_actions(endpoint, 10**9)


def set_unchecked_actions(endpoint: str, number: int) -> None:
    """Moto checks no rights until so many requests were answered."""
    body = str(number).encode()
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", data=body, method="POST")
    request.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(request, timeout=10).close()


class Cut:
    """The body of an answer that ended early."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self) -> bytes:
        return self.data

    def close(self) -> None:
        """Nothing is open."""


def test_faults_that_pass(tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "a.tar", {f"{i}.jpg": image for i, image in enumerate(IMAGES)})
    upload(bucket, tmp_path)
    busy: Any = {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}
    faults: list[object] = [ClientError(busy, "GetObject"), b"short", ConnectionResetError(), b""]
    original = s3fs.S3FileSystem._call_s3

    async def call_s3(self: Any, method: str, *given: Any, **options: Any) -> Any:
        if method != "get_object":
            return await original(self, method, *given, **options)
        fault = faults.pop(0) if faults and len(faults) % 3 else None
        if fault is None and faults:
            faults.pop(0)
        if isinstance(fault, Exception):
            raise fault
        answer = await original(self, method, *given, **options)
        if isinstance(fault, bytes):
            answer["Body"].close()
            answer["Body"] = Cut(fault)
        return answer

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", call_s3)
    reader = Reader(open_source("s3://data/a.tar", labelled=False))
    assert [reader.read(i) for i in range(6)] == IMAGES
    assert len(faults) < 4


def test_folders_of_img2dataset(tmp_path: Path, bucket: Any) -> None:
    upload(bucket, write_set(tmp_path))
    manifest = open_source("s3://data/", label_column="species")
    assert manifest.classes == ("cat", "dog")
    assert manifest.labels.tolist() == [0, 1] * 2
    assert manifest.key(3) == "00001/0000102.jpg"
    assert manifest.options["failed_downloads"] == 2
    assert Reader(manifest).read(3) == make_image(12)
    assert "Name the tars, or the folder" in refused("s3://data/{00000..00001}.parquet")
