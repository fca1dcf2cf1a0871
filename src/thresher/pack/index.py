"""The index of a packed folder: a manifest, so that opening it needs no walk through the tars."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from thresher.errors import UserError
from thresher.files import write_atomically
from thresher.pack.folder import INDEX, UNREADABLE, check_shard
from thresher.pack.settings import PackSettings
from thresher.pack.shard import ShardRecord
from thresher.sources.manifest import Manifest, make_manifest
from thresher.sources.request import NO_LABEL, enumerate_some

_SHA256 = "shard_sha256"


def write_index(
    out: Path, source: Manifest, records: Sequence[ShardRecord], settings: PackSettings
) -> None:
    """Write ``index.parquet`` and ``unreadable.csv`` for the finished tars.

    Samples keep their ids, keys, labels and classes; unreadable ones are there with the reason as
    their state, and files of the source that were left out are in ``damaged_shards`` as they are
    there. Tars are named relative to the index, so that the folder can be moved.
    """
    stop = records[-1].stop if records else 0
    counts = [record.stop - record.first for record in records]
    manifest = make_manifest(
        kind="tar",
        shards=[record.name for record in records],
        classes=source.classes,
        source=source.source,
        keys=source.table["key"].slice(0, stop),
        labels=source.labels[:stop],
        shard=np.repeat(np.arange(len(records), dtype=np.int32), counts),
        offsets=_concat([record.offsets for record in records]),
        lengths=_concat([record.lengths for record in records]),
        states=source.table["state"].slice(0, stop).cast(pa.string()),
        options={
            "shard_sizes": [record.size for record in records],
            _SHA256: [record.sha256 for record in records],
            "pack": dataclasses.asdict(settings),
            "complete": stop == len(source),
            "damaged_shards": source.options.get("damaged_shards", {}),
        },
    )
    manifest = manifest.with_states(dict(chain.from_iterable(r.reasons.items() for r in records)))
    _write_unreadable(out / UNREADABLE, manifest)
    manifest.save(out / INDEX)


def _concat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *arrays])


def _write_unreadable(path: Path, manifest: Manifest) -> None:
    labels = manifest.labels
    with (
        write_atomically(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "key", "label", "reason"])
        for index, state in enumerate(manifest.states.tolist()):
            if state not in ("ok", NO_LABEL):
                label = manifest.classes[labels[index]] if labels[index] >= 0 else ""
                writer.writerow([index, manifest.key(index), label, state])
        # What was in them has no numbers, and may have had names that nobody can read any more.
        for place, problem in manifest.options["damaged_shards"].items():
            writer.writerow(["", place, "", problem])


def load_index(out: Path) -> Manifest:
    """The manifest of a packed folder.

    Raises:
        UserError: there is none.
    """
    path = out / INDEX
    if not path.is_file():
        raise UserError(
            f"There is no {INDEX} in {out}. Pack into it first, or run its thresher pack again."
        )
    return Manifest.load(path)


def verify(out: Path) -> Manifest:
    """Compare every tar of a packed folder with its SHA-256 in the index.

    Raises:
        UserError: there is no index, or tars are missing or changed; the message names them.
    """
    manifest = load_index(out)
    hashes = manifest.options.get(_SHA256)
    if hashes is None:
        raise UserError(f"{out / INDEX} was not written by thresher pack.")
    sizes = manifest.options["shard_sizes"]
    names = [Path(shard).name for shard in manifest.shards]
    damaged = [
        name
        for name, size, sha256 in zip(names, sizes, hashes, strict=True)
        if not check_shard(out, name, size, sha256)
    ]
    if damaged:
        raise UserError(
            f"{len(damaged)} of {len(names)} tars in {out} are missing or not as they were "
            f"written: {enumerate_some(damaged)}. Run the same thresher pack again to remake them."
        )
    return manifest
