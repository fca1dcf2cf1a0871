"""Labels to files that ``thresher train`` takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from thresher.errors import UserError
from thresher.files import write_atomically
from thresher.label.run import Labels
from thresher.sources.img2dataset_folders import PARTS
from thresher.sources.manifest import OK, Manifest
from thresher.sources.parquet_paths import LISTS
from thresher.sources.places import is_url, join
from thresher.sources.request import NO_LABEL, printable


def check_out(out: Path, source: str, manifest: Manifest | None) -> None:
    """Refuse before the work what could not, or must not, be written after it.

    Args:
        out: where the labels would go.
        source: path or URL of what is labelled.
        manifest: of its images, if that is what is written.

    Raises:
        UserError: the ending is of no known kind, or cannot hold what has to be written; or a file
            that is labelled would be overwritten.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out {out}: name a file that ends in .csv or .parquet.")
    if manifest is not None and out.suffix != ".parquet":
        raise UserError(
            f"--out {out}: labels of images in tars, in Parquet files or at URLs say where each "
            "image lies, which takes a .parquet file."
        )
    for place in (source, *(() if manifest is None else _read_from(manifest))):
        for written in (out, _beside(out)):
            if not is_url(place) and _same_file(written, Path(place)):
                raise UserError(
                    f"--out {out} would overwrite what is labelled, {printable(place)}. Name"
                    " another file with --out."
                )


def _read_from(manifest: Manifest) -> Iterator[str]:
    """Every file with images or texts that the manifest was made of, as far as it names them."""
    yield from manifest.shards
    yield from manifest.options.get(LISTS, ())
    for part in manifest.options.get(PARTS, ()):
        yield join(manifest.shards[0], part)
    if manifest.kind == "tar":  # img2dataset's texts lie beside each
        yield from (place.rpartition(".")[0] + ".parquet" for place in manifest.shards)


def _same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file that is there."""
    return one.exists() and other.exists() and one.samefile(other)


def _beside(out: Path) -> Path:
    """Where what was found goes if ``out`` is a manifest."""
    return out.with_name(f"{out.stem}-found.parquet")


def write_labels(labels: Labels, out: Path) -> list[Path]:
    """Write the labels; returns the files written, the one to train on first.

    Images in files get a table of paths, labels and what was found. Images in tars get a manifest,
    and beside it a table of what was found.
    """
    manifest = labels.texts.manifest
    if manifest is None:
        _write(_table(labels, "path", _paths(labels, out)), out)
        return [out]
    _labelled(labels, manifest).save(out)
    beside = _beside(out)
    _write(_table(labels, "key", labels.texts.names), beside)
    return [out, beside]


def _table(labels: Labels, first: str, names: pa.ChunkedArray) -> pa.Table:
    outcomes = range(len(labels.outcomes))
    found = [labels.outcomes[outcome] for outcome in outcomes]
    phrases = [labels.phrases[ids[0]].text if ids else None for ids in found]
    column_of = np.where(labels.column_of < 0, len(labels.columns), labels.column_of)
    return pa.table(
        {
            first: names,
            "label": _take([labels.label_of(outcome) for outcome in outcomes], labels.outcome_of),
            "phrase": _take(phrases, labels.outcome_of),
            "text_column": _take([*labels.columns, None], column_of),
            "classes": _take(
                [list(labels.names_of(outcome)) for outcome in outcomes],
                labels.outcome_of,
                pa.list_(pa.string()),
            ),
        }
    )


def _take(values: Sequence[object], rows: np.ndarray, kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(values, kind or pa.string()).take(pa.array(rows))


def _paths(labels: Labels, out: Path) -> pa.ChunkedArray:
    """Paths as a table in the folder of ``out`` has to spell them."""
    names, root = labels.texts.names, labels.texts.root
    if out.absolute().parent == Path(root):
        return names
    absolute = pc.binary_join_element_wise(root.rstrip("/"), names, "/")
    complete = pc.match_substring_regex(names, r"^/|^[A-Za-z][A-Za-z0-9+.-]+://")
    return pc.if_else(complete, names, absolute)


def _labelled(labels: Labels, manifest: Manifest) -> Manifest:
    classes = labels.classes
    index = {name: position for position, name in enumerate(classes)}
    label_of = np.array(
        [index.get(labels.label_of(outcome) or "", -1) for outcome in range(len(labels.outcomes))],
        dtype=np.int32,
    )
    given = label_of[labels.outcome_of]
    relabelled = manifest.with_labels(given, classes)
    return relabelled.with_state_where((given < 0) & (manifest.states == OK), NO_LABEL)


def _write(table: pa.Table, out: Path) -> None:
    with write_atomically(out) as temporary:
        if out.suffix == ".csv":
            joined = [pc.binary_join(chunk, " | ") for chunk in table["classes"].chunks]
            place = table.schema.get_field_index("classes")
            flat = table.set_column(place, "classes", pa.chunked_array(joined, pa.string()))
            pyarrow.csv.write_csv(flat, temporary)
        else:
            pq.write_table(table, temporary, compression="zstd")
