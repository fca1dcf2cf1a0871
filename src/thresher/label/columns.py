"""Texts in Parquet files: beside the images in their rows, or about files in folders nearby."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from thresher.errors import UserError
from thresher.label.tables import as_text
from thresher.label.tars import texts_by_key
from thresher.label.texts import Texts
from thresher.sources.img2dataset_folders import PARTS
from thresher.sources.manifest import OK, Manifest
from thresher.sources.parquet_file import open_parquet_file
from thresher.sources.parquet_paths import LISTS
from thresher.sources.places import is_url, join, shown


def open_rows(manifest: Manifest) -> Texts:
    """The texts in the other columns of Parquet files that hold images, or paths in their place."""
    files = manifest.options.get(LISTS, manifest.shards)
    with open_parquet_file(files[0]) as file:
        names = file.schema_arrow.names

    def read(column: str) -> Iterator[pa.Array]:
        for shard in files:
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
    """Image files, and what img2dataset or a table of paths says about them if there is one.

    Labels of files that are not below one folder of this machine go into a manifest, as those of
    images in shards: a table could not spell where they are.
    """
    if LISTS in manifest.options:
        return open_rows(manifest)
    root = manifest.shards[0]
    elsewhere = len(manifest.shards) > 1 or is_url(root)
    usable = pa.array(manifest.states == OK)
    names = manifest.table["key"] if elsewhere else manifest.table["key"].filter(usable)
    reports: list[str] = manifest.options.get(PARTS, [])
    columns: list[str] = []
    if reports:
        with open_parquet_file(join(root, reports[0])) as file:
            columns = file.schema_arrow.names

    def read(column: str) -> Iterator[pa.Array]:
        texts: dict[str, str] = {}
        for report in reports:
            part = report.removesuffix(".parquet")
            found = texts_by_key(join(root, report), column)
            texts |= {f"{part}/{key}": text for key, text in found.items()}
        for chunk in names.chunks:
            stems = [name.rpartition(".")[0] for name in chunk.to_pylist()]
            yield pa.array([texts.get(stem) for stem in stems], pa.string())

    return Texts(
        names=names,
        columns=tuple(name for name in columns if name != "key"),
        read=read,
        manifest=manifest if elsewhere else None,
        root=root,
        left_out={why: n for why, n in manifest.count_states().items() if why != OK},
    )
