"""``thresher predict RUN IMAGES...``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from thresher.config import option
from thresher.errors import UserError
from thresher.files import write_atomically
from thresher.options import Parser, values_of
from thresher.sources.detect import open_images
from thresher.sources.manifest import OK
from thresher.sources.read import Reader


@dataclass(frozen=True)
class PredictOptions:
    """Options of the command."""

    out: str = option("predictions.csv", "Where to write: a .csv or .parquet file.")
    probabilities: bool = option(False, "Also write the probability of every class.")


def run(words: Sequence[str]) -> int:
    """Write a table: image, label, confidence, state."""
    parser = Parser(prog="thresher predict", description="Label images with a run's networks.")
    parser.add_argument("run", type=str, help="Directory of a finished run.")
    parser.add_argument("images", type=str, nargs="+", help="Image files or folders of images.")
    parser.add_fields(PredictOptions)
    given = parser.parse(words)
    options = values_of(PredictOptions, given)
    out = Path(options.out)
    if out.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out {out}: name a file that ends in .csv or .parquet.")
    # Seconds, which the words' mistakes need not wait for.
    from thresher.train.data import ImageSet
    from thresher.train.predictor import Predictor

    predictor = Predictor.load(Path(given["run"]))
    manifest = open_images(given["images"])
    num = len(manifest)
    probs_NC = np.full((num, len(predictor.classes)), np.nan, dtype=np.float32)
    states = np.asarray(manifest.states, dtype=object)
    reasons: dict[int, str] = {}
    images = ImageSet(manifest, Reader(manifest), np.flatnonzero(states == OK))
    for ids, probs, unreadable in predictor.predict(images):
        probs_NC[ids] = probs
        reasons = unreadable
    for index, reason in reasons.items():
        states[index] = reason

    readable = ~np.isnan(probs_NC[:, 0])
    top = np.where(readable, np.nan_to_num(probs_NC).argmax(axis=1), 0)
    columns = {
        "path": manifest.table["key"],
        "label": pa.array(np.asarray(predictor.classes, dtype=object)[top], mask=~readable),
        "confidence": pa.array(probs_NC[np.arange(num), top], mask=~readable),
        "state": pa.array(states, type=pa.string()),
    }
    if options.probabilities:
        for index, name in enumerate(predictor.classes):
            columns[f"p({name})"] = pa.array(probs_NC[:, index], mask=~readable)
    table = pa.table(columns)
    with write_atomically(out) as temporary:
        if out.suffix == ".csv":
            pyarrow.csv.write_csv(table, temporary)
        else:
            pq.write_table(table, temporary)
    print(f"{int(readable.sum()):,} of {num:,} images labelled; written to {out}")
    return 0
