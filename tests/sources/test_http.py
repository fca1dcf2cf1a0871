from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from thresher.errors import UserError
from thresher.sources.detect import open_images, open_source
from thresher.sources.manifest import make_manifest
from thresher.sources.read import Reader, ReadError
from thresher.sources.remote.shard import BLOCK, open_remote

from .conftest import make_image, write_parquet_images, write_tar, write_tree
from .test_lmdb import raw, write_lmdb
from .web import WebServer, hang_up, short, stall, status

IMAGES = [make_image(i) for i in range(6)]


def write_shards(root: Path, num: int = 3) -> list[Path]:
    return [
        write_tar(
            root / f"{shard:05}.tar",
            {
                "a.jpg": IMAGES[2 * shard],
                "a.cls": b"0",
                "b c#?.jpg": IMAGES[2 * shard + 1],
                "b c#?.cls": b"1",
            },
        )
        for shard in range(num)
    ]


def test_tars_by_a_brace_pattern(web: WebServer) -> None:
    write_shards(web.root)
    manifest = open_source(f"{web.url}/{{00000..00002}}.tar")
    assert manifest.labels.tolist() == [0, 1] * 3
    assert [manifest.key(i) for i in (0, 5)] == ["00000.tar/a.jpg", "00002.tar/b c#?.jpg"]
    reader = Reader(manifest)
    assert [reader.read(i) for i in range(6)] == IMAGES
    before = web.requests.total()
    assert [reader.read(i) for i in range(6)] == IMAGES
    assert web.requests.total() == before  # the cache has it all


def test_every_kind_of_data(web: WebServer) -> None:
    write_parquet_images(web.root / "p" / "a.parquet", list(IMAGES), [0, 1] * 3)
    files = {f"t/d 1/{i}#.jpg": image for i, image in enumerate(IMAGES)}
    rows = "".join(f"d 1/{i}#.jpg,{i % 2}\n" for i in range(6))
    write_tree(web.root, files | {"t/labels.csv": f"path,label\n{rows}".encode()})
    write_lmdb(web.root / "l", {b"%d" % i: raw(i % 2) for i in range(6)})
    packed = [f"{web.url}/p/a.parquet", f"{web.url}/t/labels.csv", f"{web.url}/l/data.mdb"]
    for url in packed:
        manifest = open_source(url)
        assert manifest.labels.tolist() == [0, 1] * 3, url
        reader = Reader(manifest)
        if "data.mdb" not in url:
            assert [reader.read(i) for i in range(6)] == IMAGES
        else:
            assert reader.read(3).startswith(b"P6 4 5 255\n")
    single = open_images([f"{web.url}/t/d%201/2%23.jpg"])
    assert Reader(single).read(0) == IMAGES[2]


def test_a_packed_set_is_found_in_a_folder_of_a_web_server(web: WebServer) -> None:
    write_shards(web.root / "set")
    manifest = open_source(f"{web.root}/set")
    save_relative(manifest, web.root / "set")
    found = open_source(f"{web.url}/set/")
    assert found.shards[1] == f"{web.url}/set/00001.tar"
    reader = Reader(found)
    assert [reader.read(i) for i in range(6)] == IMAGES
    again = open_source(f"{web.url}/set/index.parquet", classes=["1", "x", "0"])
    assert again.labels.tolist() == [2, 0] * 3


def save_relative(manifest, folder: Path) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    names = tuple(Path(shard).name for shard in manifest.shards)
    replace(manifest, shards=names).save(folder / "index.parquet")


def test_errors_that_pass_are_passed_over(web: WebServer) -> None:
    write_shards(web.root)
    web.fail("00000", status(500), status(503), short, hang_up, short, stall(1.5))
    web.fail("00001", status(429))
    start = time.perf_counter()
    manifest = open_source(f"{web.url}/{{00000..00002}}.tar")
    reader = Reader(manifest)
    assert [reader.read(i) for i in range(6)] == IMAGES
    assert web.faults == []
    assert time.perf_counter() - start < 5


def test_what_does_not_pass_ends_within_its_bounds(web: WebServer) -> None:
    write_shards(web.root)
    web.fail("00001", *[status(503)] * 4)
    with pytest.raises(UserError, match=r"00001.tar cannot be read: HTTP 503, 4 times. Download"):
        open_source(f"{web.url}/{{00000..00002}}.tar")
    web.fail("00001", *[stall(3)] * 4)
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"00001.tar cannot be read: no answer in time, 4 times"):
        open_source(f"{web.url}/{{00000..00002}}.tar")
    assert time.perf_counter() - start < 6


@pytest.mark.parametrize("code", [403, 429, 503])
def test_a_server_that_says_when_to_come_again_is_obeyed(web: WebServer, code: int) -> None:
    write_shards(web.root)
    soon = email.utils.formatdate(time.time() + 2, usegmt=True)
    web.fail("00001", status(code, Retry_After="1"), status(code, Retry_After=soon))
    start = time.monotonic()
    assert len(open_source(f"{web.url}/{{00000..00002}}.tar")) == 6
    assert time.monotonic() - start > 1
    assert web.faults == []


def test_a_server_that_asks_for_more_patience_than_there_is(web: WebServer) -> None:
    write_shards(web.root)
    web.fail("00001", status(429, Retry_After="3600"))
    start = time.monotonic()
    with pytest.raises(UserError, match=r"HTTP 429: the server asks to wait 3600 s, 1 time\."):
        open_source(f"{web.url}/{{00000..00002}}.tar")
    assert time.monotonic() - start < 3
    web.fail("00001", *[status(429, Retry_After="next week")] * 4)
    with pytest.raises(UserError, match=r"HTTP 429, 4 times\."):
        open_source(f"{web.url}/{{00000..00002}}.tar")


def test_a_404_in_the_middle(web: WebServer) -> None:
    write_shards(web.root)
    (web.root / "00001.tar").unlink()
    pattern = f"{web.url}/{{00000..00002}}.tar"
    with pytest.raises(UserError) as caught:
        open_source(pattern)
    assert str(caught.value) == (
        f"There is no file {web.url}/00001.tar (HTTP 404: there is no such file). Put it there, "
        "name those that exist, or take the rest with --allow-damaged."
    )
    manifest = open_source(pattern, allow_damaged=True)
    assert len(manifest) == 4
    assert list(manifest.options["damaged_shards"]) == [f"{web.url}/00001.tar"]
    assert Reader(manifest).read(3) == IMAGES[5]


def forget(cache_folder: Path) -> None:
    for file in cache_folder.glob("??/*"):
        file.unlink()


def test_a_shard_that_changes_while_it_is_read(web: WebServer, cache_folder: Path) -> None:
    rng = np.random.default_rng(0)
    big = {f"{i}.jpg": rng.bytes(BLOCK) for i in range(40)}
    path = write_tar(web.root / "a.tar", big)
    manifest = open_source(f"{web.url}/a.tar", labelled=False)
    forget(cache_folder)
    reader = Reader(manifest)
    assert reader.read(0) == big["0.jpg"]
    write_tar(path, big | {"x.jpg": rng.bytes(BLOCK)})
    with pytest.raises(ReadError, match="shard changed since it was indexed"):
        reader.read(30)
    with pytest.raises(ReadError, match="shard changed since it was indexed"):
        Reader(manifest).read(0)


@pytest.mark.parametrize("etags", [True, False])
def test_a_server_without_ranges_is_downloaded_once(web: WebServer, etags: bool) -> None:
    write_shards(web.root, 1)
    web.ranges, web.etags = False, etags
    web.fail("00000", lambda _: False, hang_up)
    reader = Reader(open_source(f"{web.url}/00000.tar"))
    assert [reader.read(i) for i in range(2)] == IMAGES[:2]
    again = Reader(open_source(f"{web.url}/00000.tar"))
    assert [again.read(i) for i in range(2)] == IMAGES[:2]
    # Each opening asks for the version; the content went over the wire twice, once broken.
    assert web.requests["00000.tar"] <= 6


def test_random_reads_are_exact_and_sequential_ones_few(web: WebServer) -> None:
    data = np.random.default_rng(0).bytes(30 * BLOCK + 77)
    (web.root / "x.bin").write_bytes(data)
    shard = open_remote(f"{web.url}/x.bin")
    rng = np.random.default_rng(1)
    for _ in range(60):
        start, length = int(rng.integers(len(data))), int(rng.integers(1, 3 * BLOCK))
        assert shard.read_at(start, length) == data[start : start + length]
    assert shard.read_at(len(data), 10) == b""
    (web.root / "y.bin").write_bytes(data)
    shard = open_remote(f"{web.url}/y.bin")
    pieces = [shard.read_at(start, 512) for start in range(0, len(data), 50_000)]
    assert pieces == [data[start : start + 512] for start in range(0, len(data), 50_000)]
    assert web.requests["y.bin"] < 8


def test_without_a_usable_cache_reading_still_works(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(web.root)
    monkeypatch.setenv("THRESHER_CACHE_GB", "0")
    reader = Reader(open_source(f"{web.url}/{{00000..00002}}.tar"))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(reader.read, list(range(6)) * 20)) == IMAGES * 20
    monkeypatch.setenv("THRESHER_CACHE_GB", "much")
    with pytest.raises(UserError, match="THRESHER_CACHE_GB is 'much'; it is a number"):
        open_source(f"{web.url}/00000.tar")


def test_an_outage_ends_the_run_instead_of_marking_every_sample(web: WebServer) -> None:
    rows = "".join(f"{i}.jpg,{i % 2}\n" for i in range(20))
    write_tree(web.root, {"t.csv": f"path,label\n{rows}".encode()})
    reader = Reader(open_source(f"{web.url}/t.csv"))
    for index in range(20):
        with pytest.raises(ReadError, match="HTTP 404"):
            reader.read(index)
    web.fail(".jpg", *[status(500)] * 100)
    for index in range(4):
        with pytest.raises(ReadError, match="HTTP 500, 4 times"):
            reader.read(index)
    with pytest.raises(UserError, match="5 reads in a row failed, the last of"):
        reader.read(4)


def test_sentences(web: WebServer) -> None:
    def refused(url: str) -> str:
        with pytest.raises(UserError) as caught:
            open_source(url)
        return str(caught.value)

    assert "cannot be listed: web servers have no folders" in refused(f"{web.url}/*.tar")
    assert "cannot be listed: web servers have no folders" in refused(f"{web.url}/set/")
    assert "asks for a login (HTTP 401)" in refused_with(web, 401)
    assert "HTTP 403: access refused; a signed URL may have expired" in refused_with(web, 403)
    assert "is of an unknown protocol" in refused("nothing://x/a.tar")
    assert "is of no known kind" in refused(f"{web.url}/a.xyz")
    signed = refused(f"{web.url}/gone.tar?X-Signature=secret")
    assert f"There is no file {web.url}/gone.tar (HTTP 404" in signed
    assert "secret" not in signed
    (web.root / "t.csv").write_bytes(b"path,label\n/etc/passwd,a\nx.jpg,b\n")
    assert "is remote and lists '/etc/passwd', which is not below" in refused(f"{web.url}/t.csv")


def refused_with(web: WebServer, code: int) -> str:
    web.fail("a.tar", status(code))
    with pytest.raises(UserError) as caught:
        open_source(f"{web.url}/a.tar")
    return str(caught.value)


def test_parquet_by_pattern_with_one_damaged(web: WebServer) -> None:
    for part in range(3):
        write_parquet_images(
            web.root / f"{part}.parquet", list(IMAGES[2 * part : 2 * part + 2]), [0, 1]
        )
    (web.root / "1.parquet").write_bytes((web.root / "1.parquet").read_bytes()[:-10])
    with pytest.raises(UserError, match=r"1.parquet is not a readable Parquet file"):
        open_source(f"{web.url}/{{0..2}}.parquet")
    manifest = open_source(f"{web.url}/{{0..2}}.parquet", allow_damaged=True)
    reader = Reader(manifest)
    assert [reader.read(i) for i in range(4)] == [*IMAGES[:2], *IMAGES[4:]]
    assert pq.read_metadata(web.root / "0.parquet").num_rows == 2


def test_a_reader_survives_a_fork(
    web: WebServer, cache_folder: Path, fork: Callable[[Callable[[], bytes]], bytes]
) -> None:
    write_shards(web.root)
    reader = Reader(open_source(f"{web.url}/{{00000..00002}}.tar"))
    assert reader.read(0) == IMAGES[0]
    forget(cache_folder)
    assert fork(lambda: reader.read(3)) == IMAGES[3]


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    write_tar(tmp_path / "a b.tar", {"a.jpg": IMAGES[0]})
    for url in (f"file://{tmp_path}/a%20b.tar", f"file:{tmp_path}/a%20b.tar"):
        manifest = open_source(url, labelled=False)
        assert manifest.shards == (f"{tmp_path}/a b.tar",)


def test_a_shard_replaced_by_one_of_the_same_size_is_refused(
    web: WebServer, tmp_path: Path
) -> None:
    write_tar(web.root / "a.tar", {"1.png": make_image(1), "1.cls": b"0",
                                   "2.png": make_image(2), "2.cls": b"1"})  # fmt: skip
    open_source(f"{web.url}/a.tar").save(tmp_path / "scan.parquet")
    assert len(open_source(str(tmp_path / "scan.parquet"))) == 2
    os.utime(web.root / "a.tar", ns=(0, 0))  # the server's ETag is the time
    with pytest.raises(UserError, match=r"a\.tar changed since the scan, though not in size"):
        open_source(str(tmp_path / "scan.parquet"))


def test_a_local_table_may_list_web_addresses(tmp_path: Path, web: WebServer) -> None:
    write_tree(web.root, {f"img/{i}.jpg": image for i, image in enumerate(IMAGES[:4])})
    rows = "".join(f"{web.url}/img/{i}.jpg,{i % 2}\n" for i in range(3)) + "here.jpg,1\n"
    write_tree(tmp_path / "t", {"here.jpg": IMAGES[3], "t.csv": f"path,label\n{rows}".encode()})
    manifest = open_source(str(tmp_path / "t/t.csv"))
    assert manifest.usable.all()
    reader = Reader(manifest)
    assert [reader.read(i) for i in range(4)] == IMAGES[:4]


@pytest.mark.parametrize("protocol", ["file", "FILE", "local", "zip"])
def test_a_table_from_elsewhere_reads_no_local_file(
    tmp_path: Path, web: WebServer, protocol: str
) -> None:
    (tmp_path / "secret.jpg").write_bytes(IMAGES[0])
    rows = f"path,label\n{protocol}://{tmp_path}/secret.jpg,a\nb.jpg,b\n"
    write_tree(web.root, {"t.csv": rows.encode()})
    with pytest.raises(UserError, match="which is not below its own folder"):
        open_source(f"{web.url}/t.csv", allow_damaged=True)


@pytest.mark.parametrize(
    ("kind", "shard", "key"),
    [
        ("tar", "{tmp}/secret.tar", "a"),
        ("tar", "../secret.tar", "a"),
        ("tar", "file://{tmp}/secret.tar", "a"),
        ("tar", "local://{tmp}/secret.tar", "a"),
        ("files", "pictures", "{tmp}/secret.jpg"),
        ("files", "pictures", "local://{tmp}/secret.jpg"),
    ],
)
def test_a_manifest_from_elsewhere_reads_no_local_file(
    tmp_path: Path, web: WebServer, kind: str, shard: str, key: str
) -> None:
    shard, key = shard.format(tmp=tmp_path), key.format(tmp=tmp_path)
    make_manifest(
        kind=kind,
        shards=[shard],
        classes=["a"],
        source="x",
        keys=[key],
        labels=np.zeros(1, dtype=np.int32),
        offsets=np.zeros(1, dtype=np.int64),
        lengths=np.full(1, 4, dtype=np.int64),
    ).save(web.root / "index.parquet")
    with pytest.raises(UserError, match=r"is remote and lists '.*secret") as error:
        open_source(f"{web.url}/index.parquet?key=hidden", allow_damaged=True)
    assert "hidden" not in str(error.value)
