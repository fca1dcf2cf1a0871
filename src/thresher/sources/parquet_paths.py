"""Parquet image data sets without the images: only their paths, where bytes would be.

``Dataset.to_parquet`` of Hugging Face's datasets leaves images that came from files where they
are, and writes ``{bytes: null, path: "photos/a.jpg"}``; only ``push_to_hub`` and ``save_to_disk``
put the bytes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from thresher.sources.damage import Damage
from thresher.sources.manifest import Manifest
from thresher.sources.parquet import bytes_column, label_column
from thresher.sources.parquet_file import class_names, open_parquet_file
from thresher.sources.places import absolute, folder_of
from thresher.sources.request import Request
from thresher.sources.table import Rows, manifest_of_rows

LISTS = "path_lists"  # in the manifest's options: the Parquet files, in the order of the rows
_HINT = (
    "The column '{column}' holds paths in place of images, as Dataset.to_parquet writes them; to "
    "put the images in, save_to_disk first and write Parquet from what load_from_disk reads."
)


def holds_only_paths(files: Sequence[str], column: str, damage: Damage) -> bool:
    """Whether the first file that can be opened has a path in every row and bytes in none."""
    for file in files:
        with damage.tolerate(file), open_parquet_file(file) as reader:
            schema, rows = reader.schema_arrow, reader.metadata.num_rows
            kind = schema.field(column).type
            if not (pa.types.is_struct(kind) and kind.get_field_index("path") >= 0):
                return False
            nulls = 0
            for group in range(reader.num_row_groups):
                chunks = reader.metadata.row_group(group)
                for chunk in map(chunks.column, range(chunks.num_columns)):
                    if chunk.path_in_schema == bytes_column(schema, column):
                        known = chunk.statistics is not None and chunk.statistics.has_null_count
                        nulls += chunk.statistics.null_count if known else 0
            return bool(rows and nulls == rows)
    return False


def open_paths(request: Request, files: Sequence[str], column: str) -> Manifest:
    """Index the images that the files name; relative paths are relative to the file.

    Raises:
        UserError: images do not exist (without ``allow_damaged``), or see ``open_parquet``.
    """
    damage = Damage(request)
    label: str | None = None
    names: list[str] | None = None
    parts: list[Rows] = []
    lists: list[str] = []
    for file in files:
        with damage.tolerate(file), open_parquet_file(file) as reader:
            if request.labelled and not parts:
                label = label_column(reader.schema_arrow, request)
                names = class_names(reader.schema_arrow).get(label)
            wanted = [f"{column}.path"] + ([label] if label is not None else [])
            table = reader.read(columns=wanted)
            given = table[label] if label is not None else None
            paths = pc.struct_field(table[column], "path").cast(pa.string())
            parts.append(Rows(folder_of(file), paths, given))
            lists.append(absolute(file))
    damage.require_some_good(len(files))
    manifest = manifest_of_rows(request, parts, names, f" {_HINT.format(column=column)}")
    options = {LISTS: lists, "image_column": column, "damaged_shards": damage.shards}
    return replace(manifest, options={**manifest.options, **options})
