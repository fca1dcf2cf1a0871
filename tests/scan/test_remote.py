"""Scans of data at URLs: what was replaced is looked at again, and no secret is kept or shown."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.sources.faulty import FaultyProxy, cut, reset, short, status
from tests.sources.s3 import upload
from tests.sources.test_http import save_relative
from tests.sources.test_lmdb import raw, write_lmdb
from tests.sources.web import WebServer
from thresher.cli import main
from thresher.errors import UserError
from thresher.scan.run import scan
from thresher.sources.detect import open_source

from .conftest import encode, jpeg, picture, write_tree
from .test_scan import summary, write_tar


def plain_jpeg(colour: int) -> bytes:
    """As long as those of other colours."""
    data = encode(picture(1, (64, 64)))
    return data[:-2] + bytes([colour]) * 8 + data[-2:]


def hashes(out: Path) -> list[int]:
    found: list[int] = pq.read_table(out / "scan.parquet")["hash"].to_pylist()
    return found


def put(kind: str, root: Path, first: int) -> str:
    """Data whose sizes are the same whatever ``first`` is; what to open below the root."""
    images = [plain_jpeg(first), plain_jpeg(100)]
    if kind == "table":
        files = {f"{i}.jpg": image for i, image in enumerate(images)}
        write_tree(root, files | {"t.csv": b"path,label\n0.jpg,a\n1.jpg,b\n"})
        return "t.csv"
    if kind == "parquet":
        from tests.sources.conftest import write_parquet_images

        write_parquet_images(root / "p.parquet", images, [0, 1])
        return "p.parquet"
    members = {
        f"{i}.{e}": d for i, x in enumerate(images) for e, d in (("jpg", x), ("cls", b"%d" % i))
    }
    (root / "set").mkdir(exist_ok=True)
    write_tar(root / "set" / "0.tar", members)
    if kind == "packed":
        save_relative(open_source(str(root / "set")), root / "set")
        return "set/index.parquet"
    return "set/0.tar"


@pytest.mark.parametrize("kind", ["tar", "packed", "parquet", "table"])
def test_what_was_replaced_at_a_url_is_looked_at_again(
    web: WebServer, tmp_path: Path, kind: str
) -> None:
    out, url = tmp_path / "out", f"{web.url}/{put(kind, web.root, 1)}"
    assert scan(url, out, workers=1).touched == 2
    before = hashes(out)
    assert scan(url, out, workers=1).touched == 0
    put(kind, web.root, 2)
    if kind == "table":
        os.utime(web.root / "1.jpg", ns=(0, 0))
        scan(url, out, workers=1)
        put(kind, web.root, 3)
    assert scan(url, out, workers=1).touched == 2
    assert hashes(out)[0] != before[0]
    assert hashes(out)[1] == before[1]
    assert scan(url, out, workers=1).touched == 0


def test_an_lmdb_that_was_replaced(web: WebServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_lmdb(web.root / "lmdb", {b"%d" % i: raw(i % 2) for i in range(4)})
    url = f"{web.url}/lmdb/data.mdb"
    assert scan(url, out, workers=1).touched == 4
    assert scan(url, out, workers=1).touched == 0
    os.utime(web.root / "lmdb/data.mdb", ns=(0, 0))
    assert scan(url, out, workers=1).touched == 4


def test_a_server_that_tells_no_version_is_believed_nothing(web: WebServer, tmp_path: Path) -> None:
    web.etags = False
    out, url = tmp_path / "out", f"{web.url}/{put('tar', web.root, 1)}"
    scan(url, out, workers=1)
    before = hashes(out)
    put("tar", web.root, 2)
    assert scan(url, out, workers=1).touched == 2
    assert hashes(out)[0] != before[0]


def test_of_a_tree_in_an_object_store_only_news_is_looked_at(tmp_path: Path, bucket: Any) -> None:
    files = {f"tree/{'ab'[i % 2]}/{i}.jpg": plain_jpeg(i) for i in range(6)}
    upload(bucket, write_tree(tmp_path / "up", files))
    out = tmp_path / "out"
    assert scan("s3://data/tree", out, workers=1).touched == 6
    before = hashes(out)
    assert scan("s3://data/tree", out, workers=1).touched == 0
    bucket.put_object(Key="tree/a/0.jpg", Body=plain_jpeg(9))  # of the same size
    assert scan("s3://data/tree", out, workers=1).touched == 1
    assert hashes(out)[0] != before[0]
    assert hashes(out)[1:] == before[1:]
    bucket.put_object(Key="tree/b/7.jpg", Body=plain_jpeg(10))
    bucket.Object("tree/a/2.jpg").delete()
    assert scan("s3://data/tree", out, workers=1).touched == 1
    assert len(hashes(out)) == 6


def test_faults_that_pass_spoil_no_scan(tmp_path: Path, bucket: Any, proxy: FaultyProxy) -> None:
    files = {f"tree/{'ab'[i % 2]}/{i}.jpg": plain_jpeg(i) for i in range(6)}
    upload(bucket, write_tree(tmp_path / "up", files))
    out = tmp_path / "out"
    proxy.fail("GET /data?list-type=2", status(500))
    proxy.fail("GET /data/tree/", status(503, "SlowDown"), cut, short, reset)
    assert scan("s3://data/tree", out, workers=1).touched == 6
    assert proxy.faults == []
    assert pq.read_table(out / "scan.parquet")["state"].to_pylist() == ["ok"] * 6
    assert scan("s3://data/tree", out, workers=1).touched == 0


def test_of_a_table_on_a_web_server_only_news_is_looked_at(web: WebServer, tmp_path: Path) -> None:
    out, url = tmp_path / "out", f"{web.url}/{put('table', web.root, 1)}"
    assert scan(url, out, workers=1).touched == 2
    (web.root / "1.jpg").write_bytes(plain_jpeg(7))
    assert scan(url, out, workers=1).touched == 1


def test_a_url_is_the_same_from_everywhere_and_its_secret_stays_one(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, url = tmp_path / "out", f"{web.url}/{put('tar', web.root, 1)}"
    scan(f"{url}?sig=s3cret", out, workers=1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert scan(f"{url}?sig=an0ther", out, workers=1).touched == 0
    for name in ("scan.json", "findings.json", "scan.html", "findings.parquet"):
        text = (out / name).read_bytes()
        assert b"s3cret" not in text, name
        assert b"an0ther" not in text, name
    assert summary(out)["data"] == url
    other = tmp_path / "www" / "b.tar"
    shutil.copy(web.root / "set/0.tar", other)
    with pytest.raises(UserError, match="holds the scan of http") as error:
        scan(f"{web.url}/b.tar?sig=s3cret", out, workers=1)
    assert "sig=" not in str(error.value)


def test_no_secret_gets_into_the_name_of_the_default_directory(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"{web.url}/{put('tar', web.root, 1)}?sig=s3cret/and.s3cret"
    assert main(["scan", url, "--workers", "1"]) == 0
    assert [path.name for path in (tmp_path / "scans").iterdir()] == ["0"]


def test_what_an_earlier_version_kept_is_not_printed(web: WebServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    kept = {"thresher": "scan", "data": "/home/me/https:/user:pw@host/a.tar?sig=s3cret"}
    (out / "scan.json").write_text(json.dumps(kept))
    with pytest.raises(UserError, match=r"holds the scan of /home/me/https:/host/a\.tar") as error:
        scan(f"{web.url}/{put('tar', web.root, 1)}", out, workers=1)
    assert "s3cret" not in str(error.value)


def test_queries_of_listed_addresses_are_not_shown(web: WebServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_tree(web.root, {"0.jpg": jpeg(1), "1.jpg": jpeg(1)})
    rows = "".join(f"{web.url}/{i}.jpg?sig=s3cret,a\n" for i in range(2))
    write_tree(tmp_path, {"t.csv": f"path,label\n{rows}".encode()})
    scan(str(tmp_path / "t.csv"), out, workers=1)
    assert summary(out)["findings"]["exact"]["groups"] == 1  # type: ignore[index]
    for name in ("findings.json", "scan.html"):
        assert "s3cret" not in (out / name).read_text()
    assert "s3cret" not in str(pq.read_table(out / "findings.parquet").to_pydict())
    assert np.all(pq.read_table(out / "scan.parquet")["state"].to_numpy() == "ok")


def test_addresses_that_differ_in_their_query_are_two_images(
    web: WebServer, tmp_path: Path
) -> None:
    web.etags = False
    (web.root / "i").write_bytes(jpeg(1))
    rows = "".join(f"{web.url}/i?id={i},{'ab'[i]}\n" for i in range(2))
    write_tree(tmp_path, {"t.csv": f"path,label\n{rows}".encode()})
    scan(str(tmp_path / "t.csv"), tmp_path / "out", workers=1)
    assert len(set(pq.read_table(tmp_path / "out/scan.parquet")["stamp"].to_pylist())) == 2
