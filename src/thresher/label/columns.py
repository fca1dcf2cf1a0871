"""Texts in Parquet files: beside the images in their rows, or about files in folders nearby."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from thresher.errors import UserError
from thresher.label.tables import as_text
from thresher.label.tars import texts_by_key
from thresher.label.texts import Texts
from thresher.sources.img2dataset_folders import PARTS
from thresher.sources.manifest import OK, Manifest
from thresher.sources.parquet_file import open_parquet_file
from thresher.sources.places import shown


def open_rows(manifest: Manifest) -> Texts:
    """The texts in the other columns of Parquet files that hold images."""
    with open_parquet_file(manifest.shards[0]) as file:
        names = file.schema_arrow.names

    def read(column: str) -> Iterator[pa.Array]:
        for shard in manifest.shards:
            with open_parquet_file(shard) as file:
                if column not in file.schema_arrow.names:
                    raise UserError(
                        f"{shown(shard)} has no column '{column}', unlike the first of its kind."
                    )
                values = file.read(columns=[column]).column(0)
            yield from as_text(values, f"The column '{column}' of {shown(shard)}").chunks

    return Texts(
        names=manifest.table["key"],
        columns=tuple(name for name in names if name != manifest.options["image_column"]),
        read=read,
        manifest=manifest,
        root="",
        left_out={},
    )


def open_files(manifest: Manifest) -> Texts:
    """Image files, and what img2dataset wrote about them if it was it that wrote them."""
    usable = pa.array(manifest.states == OK)
    names = manifest.table["key"].filter(usable)
    root = manifest.shards[0]
    reports: list[str] = manifest.options.get(PARTS, [])
    columns = pq.read_schema(Path(root, reports[0])).names if reports else []

    def read(column: str) -> Iterator[pa.Array]:
        texts: dict[str, str] = {}
        for report in reports:
            part = report.removesuffix(".parquet")
            found = texts_by_key(str(Path(root, report)), column)
            texts |= {f"{part}/{key}": text for key, text in found.items()}
        for chunk in names.chunks:
            stems = [name.rpartition(".")[0] for name in chunk.to_pylist()]
            yield pa.array([texts.get(stem) for stem in stems], pa.string())

    return Texts(
        names=names,
        columns=tuple(name for name in columns if name != "key"),
        read=read,
        manifest=None,
        root=root,
        left_out={why: n for why, n in manifest.count_states().items() if why != OK},
    )
