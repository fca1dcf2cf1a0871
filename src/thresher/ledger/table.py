"""The ledger on disk, as people and the audit read it: one row per training sample."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from thresher.files import write_atomically
from thresher.sources.manifest import OK, Manifest

CLASSES_KEY = b"thresher.classes"
TRUSTED = "trusted"
DOWN_WEIGHTED = "down-weighted"
UNSEEN = "not seen"
ROW_GROUP = 2**18
"""Samples written at a time."""


def write_ledger(
    path: Path,
    manifest: Manifest,
    ids: np.ndarray,
    *,
    suggested: np.ndarray,
    confidence: np.ndarray,
    clean_probability: np.ndarray,
    weight: np.ndarray,
    loss: np.ndarray,
    prob_given: np.ndarray,
    seen: np.ndarray,
) -> None:
    """Write ``ledger.parquet``: id, key, given and suggested label, scores, weight, status.

    Args:
        path: where.
        manifest: of the run, with the states that training found.
        ids: int64[n], the samples trained on.
        suggested: int[n], class index.
        confidence: float[n] of the suggested label, 0 to 1.
        clean_probability: float[n], 1 clean, 0 wrong.
        weight: float[n], what the given label counted for at the end, 0 to 1.
        loss: float[n] in the last epoch, mean of the networks.
        prob_given: float[n], probability of the given label then, 0 to 1, mean of the networks.
        seen: int[n], epochs the sample took part in.
    """
    columns = {
        "suggested": suggested,
        "confidence": confidence,
        "clean_probability": clean_probability,
        "weight": weight,
        "loss": loss,
        "prob_given": prob_given,
        "seen": seen,
    }
    # One row group after the other, so that only one is ever held in its wide form.
    parts = (slice(at, at + ROW_GROUP) for at in range(0, max(1, len(ids)), ROW_GROUP))
    tables = (
        _make_table(manifest, ids[part], **{name: c[part] for name, c in columns.items()})
        for part in parts
    )
    first = next(tables)
    with (
        write_atomically(path) as temporary,
        pq.ParquetWriter(temporary, first.schema, compression="zstd") as writer,
    ):
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def _make_table(
    manifest: Manifest,
    ids: np.ndarray,
    *,
    suggested: np.ndarray,
    confidence: np.ndarray,
    clean_probability: np.ndarray,
    weight: np.ndarray,
    loss: np.ndarray,
    prob_given: np.ndarray,
    seen: np.ndarray,
) -> pa.Table:
    """The table of some samples; arguments as in ``write_ledger``."""
    rows = manifest.table.take(pa.array(ids))
    states = np.asarray(rows["state"].cast(pa.string()).to_pylist(), dtype=object)
    unreadable = states != OK
    status = np.where(weight >= 0.5, TRUSTED, DOWN_WEIGHTED).astype(object)
    status[seen == 0] = UNSEEN
    status[unreadable] = [f"unreadable: {reason}" for reason in states[unreadable]]
    no_score = unreadable | (seen == 0)

    def score(values: np.ndarray) -> pa.Array:
        values = values.astype(np.float32)
        values[no_score] = np.nan
        return pa.array(values)

    def names(indices: np.ndarray) -> pa.Array:
        return pa.DictionaryArray.from_arrays(
            pa.array(indices.astype(np.int32)), pa.array(manifest.classes, type=pa.string())
        )

    given = np.asarray(rows["label"].to_numpy())
    return pa.table(
        {
            "id": rows["id"],
            "key": rows["key"],
            "given_label": names(given),
            "suggested_label": names(np.where(no_score, given, suggested)),
            "confidence": score(confidence),
            "clean_probability": score(clean_probability),
            "weight": score(weight),
            "loss": score(loss),
            "prob_given": score(prob_given),
            "status": pa.array(status, type=pa.string()),
        }
    ).replace_schema_metadata({CLASSES_KEY: json.dumps(manifest.classes)})
