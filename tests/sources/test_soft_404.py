"""Servers that answer 200 and a web page for every file that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.errors import UserError
from thresher.sources.detect import open_source
from thresher.sources.read import Reader

from .conftest import make_image, write_tar, write_tree
from .test_http import save_relative
from .web import Handler, WebServer, status

PAGE = b"<!doctype html><html><body>Nothing here, and still all is well</body></html>"
TARS = "{00000..00001}.tar"


def page(handler: Handler) -> bool:
    handler.answer(200, PAGE)
    return True


def write_set(root: Path, *, cls: bool = False) -> None:
    """Two tars with the Parquet files that img2dataset writes beside them."""
    for shard in range(2):
        rows, members = [], dict[str, bytes]()
        for i in range(3):
            key = f"{shard:05}{i:04}"
            rows.append({"key": key, "status": "success", "species": f"kind {i % 2}"})
            members[f"{key}.jpg"] = make_image(10 * shard + i)
            if cls:
                members[f"{key}.cls"] = str(i % 2).encode()
            else:
                members[f"{key}.json"] = json.dumps(rows[-1]).encode()
        write_tar(root / f"{shard:05}.tar", members)
        pq.write_table(pa.Table.from_pylist(rows), root / f"{shard:05}.parquet")


@pytest.mark.parametrize("ranges", [True, False])
def test_plain_tars_open_where_a_page_stands_for_what_is_missing(
    web: WebServer, ranges: bool
) -> None:
    write_set(web.root, cls=True)
    for file in web.root.glob("*.parquet"):
        file.write_bytes(PAGE) if ranges else file.unlink()
    if not ranges:
        web.fail(".parquet", *[page] * 50)
    for column in (None, "cls"):
        manifest = open_source(f"{web.url}/{TARS}", label_column=column)
        assert manifest.labels.tolist() == [0, 1, 0] * 2
        assert manifest.options["damaged_shards"] == {}
    assert not web.requests["00001.parquet"]  # the first look said that there are none


@pytest.mark.parametrize("folder", ["/set", "/set/", "", "/set.v2"])
def test_folders_where_a_page_stands_for_what_is_missing(web: WebServer, folder: str) -> None:
    url = f"{web.url}{folder}"
    web.fail("", *[page] * 9)
    with pytest.raises(UserError, match=r"web servers have no folders|is of no known kind"):
        open_source(url)
    assert len(web.faults) < 9
    web.faults.clear()
    write_set(web.root / folder.strip("/"), cls=True)
    save_relative(open_source(f"{web.root}{folder}/{TARS}"), web.root / folder.strip("/"))
    manifest = open_source(url)
    assert manifest.labels.tolist() == [0, 1, 0] * 2
    assert Reader(manifest).read(4) == make_image(11)


def test_a_damaged_index_and_one_that_is_refused_say_so(web: WebServer) -> None:
    write_tree(web.root, {"set/index.parquet": b"PAR1 and not much more"})
    with pytest.raises(UserError, match=r"/set/index.parquet is not a readable .* or write it ag"):
        open_source(f"{web.url}/set/")
    web.fail("index", status(403))
    with pytest.raises(UserError, match=r"index.parquet cannot be read, if it is there: HTTP 403"):
        open_source(f"{web.url}/set/")


def test_a_damaged_first_sidecar_is_one_damaged_sidecar(web: WebServer) -> None:
    write_set(web.root)
    first = web.root / "00000.parquet"
    first.write_bytes(first.read_bytes()[:-20])
    assert len(open_source(f"{web.url}/{TARS}", labelled=False)) == 6
    with pytest.raises(UserError, match=r"/00000.parquet is not a readable Parquet file.*--allow"):
        open_source(f"{web.url}/{TARS}", label_column="species")
    manifest = open_source(f"{web.url}/{TARS}", label_column="species", allow_damaged=True)
    assert manifest.labels.tolist() == [0, 1, 0] * 2  # those of the first tar from .json
    assert list(manifest.options["damaged_shards"]) == [f"{web.url}/00000.tar"]


def test_a_damaged_first_sidecar_does_no_harm_to_labels_in_the_tar(web: WebServer) -> None:
    write_set(web.root, cls=True)
    (web.root / "00000.parquet").write_bytes(b"PAR1 cut")
    assert open_source(f"{web.url}/{TARS}").labels.tolist() == [0, 1, 0] * 2
