"""The ledger on disk, as people and the audit read it: one row per training sample."""

from __future__ import annotations

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


def write_ledger(
    path: Path,
    manifest: Manifest,
    ids: np.ndarray,
    *,
    suggested: np.ndarray,
    confidence: np.ndarray,
    clean_probability: np.ndarray,
    weight: np.ndarray,
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
        seen: int[n], epochs the sample took part in.
    """
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
    table = pa.table(
        {
            "id": rows["id"],
            "key": rows["key"],
            "given_label": names(given),
            "suggested_label": names(np.where(no_score, given, suggested)),
            "confidence": score(confidence),
            "clean_probability": score(clean_probability),
            "weight": score(weight),
            "status": pa.array(status, type=pa.string()),
        }
    ).replace_schema_metadata({CLASSES_KEY: json.dumps(manifest.classes)})
    with write_atomically(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
