"""Texts beside images in tars, as img2dataset writes them.

A Parquet file of the tar's name holds a row per address with ``key`` and ``caption``; the tar
itself holds ``.txt`` (the caption) and ``.json`` (all fields) members. The Parquet file is
preferred, because it is read in one piece.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from thresher.errors import UserError
from thresher.label.tables import as_text
from thresher.label.texts import Texts
from thresher.sources.local_shard import Shard
from thresher.sources.manifest import Manifest
from thresher.sources.parquet_file import open_parquet_file
from thresher.sources.places import relative_names, shown, strip_query
from thresher.sources.shards import open_shard
from thresher.sources.tar_index import DamagedTar, Member, walk_tar

_KEY = "key"
_MOST_BYTES = 1 << 24  # of one text; a caption is never that long
_CAPTION = "caption"
_SAMPLES = 8  # that are looked at to learn which texts there are


def open_tars(manifest: Manifest) -> Texts:
    """The texts that go with the images of a tar manifest."""
    shard_of_row = manifest.table["shard"].to_numpy()
    bounds = np.searchsorted(shard_of_row, np.arange(len(manifest.shards) + 1))

    def read(column: str) -> Iterator[pa.Array]:
        names = relative_names(manifest.shards)
        for shard, path in enumerate(manifest.shards):
            if bounds[shard] == bounds[shard + 1]:
                continue  # left out, perhaps because it cannot be read
            keys = manifest.table["key"].slice(bounds[shard], bounds[shard + 1] - bounds[shard])
            # Keys carry their tar's name where there are several.
            prefix = f"{names[shard]}/" if len(names) > 1 else ""
            texts = _texts(path, column)
            stems = [key.removeprefix(prefix) for key in keys.to_pylist()]
            yield pa.array([_lookup(texts, stem) for stem in stems], pa.string())

    return Texts(
        names=manifest.table["key"],
        columns=_columns(manifest),
        read=read,
        manifest=manifest,
        root="",
        left_out={},
    )


def _lookup(texts: dict[str, str], name: str) -> str | None:
    stem = name.rpartition(".")[0]
    found = texts.get(stem)
    if found is None:  # WebDataset's own key: up to the first dot
        found = texts.get(_split(name)[0])
    return found


def _columns(manifest: Manifest) -> tuple[str, ...]:
    path = manifest.shards[manifest.table["shard"][0].as_py()]
    beside = _beside(path)
    if beside is not None:
        with open_parquet_file(beside) as file:
            return tuple(name for name in file.schema_arrow.names if name != _KEY)
    shard = open_shard(path)
    try:
        names: dict[str, None] = {}
        seen: dict[str, None] = {}
        for member in _members(shard):
            sample, ending = _split(member.name)
            seen.setdefault(sample)
            if len(seen) > _SAMPLES:
                break  # what goes with some images goes with all
            if ending.endswith("txt"):
                names.setdefault(_column_of(ending))
            elif ending.endswith("json"):
                names.update(dict.fromkeys(_record(shard, member)))
        return tuple(name for name in names if name != _KEY)
    finally:
        shard.close()


def _split(name: str) -> tuple[str, str]:
    """WebDataset's key, up to the first dot behind the last slash, and what follows the dot."""
    folder, slash, base = name.rpartition("/")
    key, _, ending = base.partition(".")
    return folder + slash + key, ending.lower()


def _column_of(ending: str) -> str:
    """The column that a text member is: the caption, or one by its ending, as 'title.txt'."""
    return _CAPTION if ending == "txt" else ending


def _texts(path: str, column: str) -> dict[str, str]:
    """Text by key, without nulls."""
    beside = _beside(path)
    return _member_texts(path, column) if beside is None else texts_by_key(beside, column)


def texts_by_key(beside: str, column: str) -> dict[str, str]:
    """The texts in a Parquet file of img2dataset by their keys, without nulls.

    Raises:
        UserError: it has no such column, or one of another type.
    """
    with open_parquet_file(beside) as file:
        if column not in file.schema_arrow.names:
            raise UserError(
                f"{shown(beside)} has no column '{column}', unlike the first of its kind."
            )
        table = file.read(columns=[_KEY, column])
    keys = table.column(_KEY).cast(pa.string()).to_pylist()
    texts = as_text(table.column(column), f"The column '{column}' of {shown(beside)}").to_pylist()
    return {key: text for key, text in zip(keys, texts, strict=True) if key and text}


def _beside(path: str) -> str | None:
    plain = strip_query(path)
    beside = plain.rpartition(".")[0] + ".parquet" + path[len(plain) :]
    try:
        with open_parquet_file(beside) as file:
            return beside if _KEY in file.schema_arrow.names else None
    except (UserError, OSError, pa.ArrowException):  # absent or damaged: the members say it too
        return None


def _member_texts(path: str, column: str) -> dict[str, str]:
    shard = open_shard(path)
    texts: dict[str, str] = {}
    plain: dict[str, str] = {}
    try:
        for member in _members(shard):
            stem, _, kind = member.name.rpartition(".")
            sample, ending = _split(member.name)
            if kind == "json":
                value = _record(shard, member).get(column)
                if isinstance(value, (str, int)) and not isinstance(value, bool):
                    texts[stem] = texts[sample] = _clean(str(value))
            elif kind == "txt" and column in (ending, _CAPTION):
                text = shard.read_at(member.offset, min(member.length, _MOST_BYTES))
                plain[sample if column == ending else stem] = text.decode("utf-8", "replace")
    finally:
        shard.close()
    return texts | plain


def _members(shard: Shard) -> Iterator[Member]:
    """The members up to the first damage, which opening the images has already judged."""
    try:
        for member in walk_tar(shard):
            yield member._replace(name=member.name.removeprefix("./"))
    except DamagedTar:
        return


def _record(shard: Shard, member: Member) -> dict[str, Any]:
    if member.length > _MOST_BYTES:
        return {}
    try:
        record = json.loads(shard.read_at(member.offset, member.length))
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _clean(text: str) -> str:
    """JSON can spell halves of surrogate pairs, which are not text."""
    return text.encode("utf-8", "replace").decode()
