"""What img2dataset writes beside each tar or folder: a Parquet file on how each download went.

``00000.tar`` holds ``000000000.jpg``, ``.json`` and ``.txt`` of the images that came;
``00000.parquet`` has a row for every URL, with ``key``, ``url``, ``caption``, ``status``,
``error_message`` and whatever columns the user carried along, a label for instance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thresher.sources.damage import DamagedShard
from thresher.sources.parquet_file import begins_like_parquet, open_parquet_file
from thresher.sources.places import is_url, strip_query
from thresher.sources.read_error import ReadError
from thresher.sources.remote.errors import Missing

_MOST_REASONS = 5


@dataclass
class Sidecar:
    """One such Parquet file.

    Attributes:
        labels: by key, as text; None where no column is a label.
        failed: how many downloads failed, by reason.
        succeeded: how many images the tar should hold.
    """

    labels: dict[str, str | None] | None
    failed: Counter[str] = field(default_factory=Counter)
    succeeded: int = 0


def read_sidecar(tar: str, label_columns: Sequence[str]) -> Sidecar | None:
    """Read what lies beside a tar; see ``read_report``."""
    parquet = _beside(tar)
    return None if parquet is None else read_report(parquet, label_columns)


def _beside(tar: str) -> str | None:
    """Where the Parquet file of a tar would lie."""
    path = strip_query(tar)
    if not path.lower().endswith(".tar"):
        return None
    return path[:-4] + ".parquet" + tar[len(path) :]


def read_report(parquet: str, label_columns: Sequence[str]) -> Sidecar | None:
    """Read how the downloads of one part went; None if there is no file, or one of another kind.

    Args:
        parquet: path or URL.
        label_columns: the first of these that exists is the label.

    Raises:
        DamagedShard: the file is damaged.
        pa.ArrowException: likewise.
        OSError: it cannot be read.
    """
    try:
        with open_parquet_file(parquet) as file:
            names = file.schema_arrow.names
            if not {"key", "status"} <= set(names):
                return None
            label = next((name for name in label_columns if name in names), None)
            wanted = ["key", "status", "error_message", label]
            table = file.read(columns=[name for name in names if name in wanted])
            table.validate(full=True)  # damaged text would fail later, as an error of our own
    except (FileNotFoundError, Missing):
        return None
    good = pc.equal(table["status"].cast(pa.string()), "success").fill_null(False)
    came = table.filter(good)
    keys = came["key"].cast(pa.string()).to_pylist()
    labels = None
    if label is not None:
        labels = dict(zip(keys, map(label_text, came[label].to_pylist()), strict=True))
    return Sidecar(labels, _reasons(table.filter(pc.invert(good))), len(keys))


def label_text(value: Any) -> str | None:
    """A label as text, or None if this cannot be one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, np.integer)):
        return None
    # JSON can spell halves of surrogate pairs, which are not text.
    return str(value).encode("utf-8", "replace").decode().strip() or None


def failure_options(sidecars: Sequence[Sidecar], num_images: int) -> dict[str, Any]:
    """For ``Manifest.options``: downloads that failed, why, and images a tar should have had."""
    failed: Counter[str] = sum((sidecar.failed for sidecar in sidecars), Counter())
    expected = sum(sidecar.succeeded for sidecar in sidecars)
    return {
        "failed_downloads": failed.total(),
        "failed_reasons": dict(failed.most_common(_MOST_REASONS)),
        "missing_images": max(0, expected - num_images),
    }


def has_sidecars(files: Sequence[str]) -> bool:
    """Whether to look beside every tar; on a server, each look that finds nothing is a request."""
    if not is_url(files[0]):
        return True
    try:
        return read_sidecar(files[0], ()) is not None
    except ReadError:
        return False
    except (DamagedShard, OSError, pa.ArrowException):
        beside = _beside(files[0])
        return beside is not None and begins_like_parquet(beside)


def _reasons(failed: pa.Table) -> Counter[str]:
    reasons = failed["status"].cast(pa.string()).fill_null("unknown")
    if "error_message" in failed.column_names:
        messages = failed["error_message"].cast(pa.string())
        reasons = pc.coalesce(messages, reasons)
    counts = pc.value_counts(reasons).to_pylist()
    return Counter({str(entry["values"])[:200]: int(entry["counts"]) for entry in counts})
