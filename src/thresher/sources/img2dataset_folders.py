"""Folders of image files as ``img2dataset --output_format files`` writes them.

``00000/000000007.jpg`` lies in a folder that is a part of the download, not a class; the label is
in ``00000.parquet`` beside it, in the row with the key ``000000007``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from thresher.errors import UserError
from thresher.sources.damage import Damage, DamagedShard
from thresher.sources.folder import manifest_of_images, walk_images
from thresher.sources.img2dataset import Sidecar, failure_options, read_report
from thresher.sources.labels import encode_labels
from thresher.sources.manifest import OK, Manifest
from thresher.sources.places import name_of
from thresher.sources.request import NO_LABEL, Request, printable
from thresher.sources.table import LABEL_COLUMNS

PARTS = "img2dataset_parts"  # in the manifest's options: names of the Parquet files
_ADVICE = (
    "It is where img2dataset keeps the labels of the folder {part}: download that part again, move "
    "the file elsewhere if img2dataset did not write it"
)


def find_parts(root: str, names: Sequence[str]) -> list[str]:
    """The parts, by name, of a folder that holds these; none where img2dataset did not write it."""
    there = set(names)
    stems = [name for name in names if f"{name}.parquet" in there and Path(root, name).is_dir()]
    for stem in stems:
        found = _verdict(f"{root}/{stem}.parquet")
        if found is not None:
            return stems if found else []
    return stems if stems and _is_numbered(stems[0]) else []


def is_report(parquet: str) -> bool:
    """Whether img2dataset wrote this Parquet file, at a path or URL; by its name if damaged.

    To take the folder beside it for a class would be a silent disaster; to take a class for a part
    ends in a sentence.
    """
    found = _verdict(parquet)
    return _is_numbered(name_of(parquet).rpartition(".")[0]) if found is None else found


def _verdict(parquet: str) -> bool | None:
    """Whether this is a report of img2dataset; None if it cannot be read."""
    try:
        return read_report(parquet, ()) is not None
    except (DamagedShard, OSError, pa.ArrowException):
        return None


def _is_numbered(part: str) -> bool:
    """Whether a part is named as img2dataset names them: ``00000``."""
    return part.isdigit()


def open_folders(
    request: Request, parts: Sequence[str], images: Manifest | None = None
) -> Manifest:
    """Index the images of all parts, with the labels of the Parquet files beside them.

    Args:
        request: what the user asked for.
        parts: from ``find_parts``.
        images: those of all parts, without labels, if they lie at a URL.

    Raises:
        UserError: no images, a report is damaged (without ``allow_damaged``) or all are, no column
            of labels, or see ``encode_labels``.
    """
    root = str(Path(request.data).absolute()) if images is None else images.shards[0]
    columns = LABEL_COLUMNS if request.label_column is None else (request.label_column,)
    damage = Damage(request)
    known: dict[str, Sidecar] = {}
    for part in parts:
        place = f"{root}/{part}.parquet"
        with damage.tolerate(place, _ADVICE.format(part=printable(part))):
            report = read_report(place, columns)
            if report is not None:
                known[part] = report
    if request.labelled:
        damage.require_some_good(len(parts))
    manifest = images or manifest_of_images(
        replace(request, labelled=False),
        root,
        walk_images(root, skip_closed=request.allow_damaged),
    )
    described = sum(key.partition("/")[0] in known for key in manifest.table["key"].to_pylist())
    manifest = replace(
        manifest,
        options={
            **manifest.options,
            **failure_options(list(known.values()), described),
            PARTS: [f"{part}.parquet" for part in known],
            "damaged_shards": damage.shards,
        },
    )
    return _labelled(request, manifest, known) if request.labelled else manifest


def _labelled(request: Request, manifest: Manifest, reports: dict[str, Sidecar]) -> Manifest:
    if all(report.labels is None for report in reports.values()):
        raise UserError(
            f"{printable(request.data)} is what img2dataset wrote: its folders are parts of the "
            "download, not classes, and the Parquet files beside them have no column "
            f"'{request.label_column or 'label'}'. Choose one with --label-column, or make labels "
            "of the captions with thresher label."
        )
    given = [_label(key, reports) for key in manifest.table["key"].to_pylist()]
    labels, classes = encode_labels(pa.chunked_array([given], pa.string()), request)
    unlabelled = (labels < 0) & (manifest.states == OK)
    return manifest.with_labels(labels, classes).with_state_where(unlabelled, NO_LABEL)


def _label(key: str, reports: dict[str, Sidecar]) -> str | None:
    part, _, name = key.partition("/")
    report = reports.get(part)
    if report is None or report.labels is None:
        return None
    return report.labels.get(name.rpartition(".")[0])
