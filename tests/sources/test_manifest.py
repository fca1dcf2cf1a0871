from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.errors import UserError
from thresher.sources import manifest as manifest_module
from thresher.sources.detect import open_source
from thresher.sources.manifest import Manifest, make_manifest
from thresher.sources.manifest_file import METADATA_KEY

from .conftest import make_image, write_tar
from .test_lmdb import raw, write_lmdb


def small(num: int = 5, shards: tuple[str, ...] = ("a.tar",)) -> Manifest:
    return make_manifest(
        kind="tar",
        shards=shards,
        classes=["cat", "dog"],
        source="here",
        keys=[f"{i}.jpg" for i in range(num)],
        labels=np.arange(num) % 3 - 1,
        states=["ok", "damaged", "ok", "ok", "empty file"][:num],
        options={"shard_sizes": [7]},
    )


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    small().save(tmp_path / "m.parquet")
    again = Manifest.load(tmp_path / "m.parquet")
    assert again.table.equals(small().table)
    assert (again.kind, again.classes, again.source) == ("tar", ("cat", "dog"), "here")
    assert again.options == {"shard_sizes": [7]}


def test_relative_shards_lie_beside_the_manifest(tmp_path: Path) -> None:
    small(shards=("a.tar", "/x/b.tar", "s3://bucket/c.tar")).save(tmp_path / "m.parquet")
    shards = Manifest.load(tmp_path / "m.parquet").shards
    assert shards == (f"{tmp_path}/a.tar", "/x/b.tar", "s3://bucket/c.tar")
    fetched = Manifest.load(tmp_path / "m.parquet", folder="https://host/set")
    assert fetched.shards[0] == "https://host/set/a.tar"


def test_states_are_counted_and_changed_without_touching_the_original() -> None:
    before = small()
    after = before.with_states({0: "gone", 1: "ok", 4: "gone"})
    assert before.states.tolist() == ["ok", "damaged", "ok", "ok", "empty file"]
    assert after.states.tolist() == ["gone", "ok", "ok", "ok", "gone"]
    assert after.count_states() == {"ok": 3, "gone": 2}
    assert before.usable.tolist() == [False, False, True, False, False]
    assert after.usable.tolist() == [False, True, True, False, False]
    marked = before.with_state_where(np.array([True, False, False, True, False]), "moved")
    assert marked.states.tolist() == ["moved", "damaged", "ok", "moved", "empty file"]
    assert not before.with_state_where(np.ones(5, dtype=bool), "x").usable.any()
    assert small(0).states.tolist() == []
    assert small(0).usable.tolist() == []


def test_more_reasons_than_codes_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "_MOST_REASONS", 4)
    marked = small().with_states({i: f"damaged at byte {i}" for i in range(5)})
    assert marked.states.tolist() == ["damaged at byte 0"] + ["unreadable"] * 4


def test_pieces_with_other_dictionaries_are_read_as_one() -> None:
    table = pa.concat_tables([small(2).table, small(1).table, small().table])
    whole = Manifest(table, "tar", ("a.tar",), ("cat", "dog"), "here", {})
    assert whole.states.tolist() == [
        *("ok", "damaged", "ok", "ok", "damaged", "ok", "ok", "empty file")
    ]


def test_columns_of_later_versions_do_not_matter_and_missing_ones_are_named(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.parquet"
    small().save(path)
    table = pq.read_table(path)
    pq.write_table(table.append_column("phash", pa.array(range(5))), path)
    assert Manifest.load(path).table.equals(small().table)
    pq.write_table(table.drop_columns(["offset"]), path)
    with pytest.raises(UserError, match=r"lacks the columns 'offset'\. Scan the data again"):
        Manifest.load(path)
    pq.write_table(table.replace_schema_metadata({METADATA_KEY + b"x": "1"}), path)
    with pytest.raises(UserError, match="is a Parquet file but not a Thresher manifest"):
        Manifest.load(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="is not a readable Parquet file"):
        Manifest.load(path)
    with pytest.raises(UserError, match="There is no manifest at"):
        Manifest.load(tmp_path / "gone.parquet")


@pytest.mark.parametrize("kind", ["tar", "lmdb"])
def test_a_shard_replaced_by_one_of_the_same_size_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "tar":
        write_tar(tmp_path / "a.tar", {"1.png": make_image(1), "1.cls": b"0",
                                       "2.png": make_image(2), "2.cls": b"1"})  # fmt: skip
        place = shard = tmp_path / "a.tar"
    else:
        place = write_lmdb(tmp_path / "db", {b"0": raw(0), b"1": raw(1)})
        shard = place / "data.mdb"
    open_source(str(place)).save(tmp_path / "scan.parquet")
    assert len(open_source(str(tmp_path / "scan.parquet"))) == 2
    os.utime(shard, ns=(0, 0))
    with pytest.raises(
        UserError, match=r"changed since the scan, though not in size\. Scan or pack the data again"
    ):
        open_source(str(tmp_path / "scan.parquet"))
