"""Reading a finished run: its configuration, its epochs and its ledger."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from thresher.errors import UserError

CLASSES_KEY = b"thresher.classes"
_UNREADABLE = "unreadable"
_COLUMNS = (
    "id",
    "key",
    "given_label",
    "suggested_label",
    "confidence",
    "clean_probability",
    "weight",
    "status",
)


@dataclass(frozen=True)
class Ledger:
    """What training came to believe about each sample; row ``r`` of every column is one sample.

    Attributes:
        classes: class names; a label is an index into them.
        ids: int64[N], unique.
        keys: names of the samples for people. Kept in Arrow, since only a few are ever shown.
        given, suggested: int32[N]. The two may be equal.
        confidence: float32[N] in 0..1, of the suggested label; NaN where unreadable.
        clean_probability: float32[N], 1 clean, 0 wrong; NaN where unreadable.
        weight: float32[N], what the sample counted in training at the end.
        status: "trusted", "down-weighted" or "unreadable: <reason>".
    """

    classes: tuple[str, ...]
    ids: np.ndarray
    keys: pa.ChunkedArray
    given: np.ndarray
    suggested: np.ndarray
    confidence: np.ndarray
    clean_probability: np.ndarray
    weight: np.ndarray
    status: pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def readable(self) -> np.ndarray:
        """bool[N], false where the image could not be decoded."""
        return ~np.asarray(pc.starts_with(self.status, _UNREADABLE), dtype=bool)

    @cached_property
    def scored(self) -> np.ndarray:
        """bool[N], readable and with a clean probability: the samples all estimates count."""
        return np.asarray(self.readable & np.isfinite(self.clean_probability))

    def key(self, row: int) -> str:
        """The name of the sample in this row."""
        return str(self.keys[row].as_py())

    def reasons(self) -> dict[str, np.ndarray]:
        """Rows of the unreadable samples by reason, the most frequent reason first."""
        rows = np.flatnonzero(~self.readable)
        by_reason: dict[str, list[int]] = {}
        for row, text in zip(rows, self.status.take(pa.array(rows)).to_pylist(), strict=True):
            reason = str(text)[len(_UNREADABLE) :].lstrip(": ") or "no reason recorded"
            by_reason.setdefault(reason, []).append(int(row))
        ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
        return {reason: np.asarray(found) for reason, found in ordered}


@dataclass(frozen=True)
class Epoch:
    """One line of ``metrics.jsonl``. What was not measured is None or NaN."""

    epoch: int
    epochs: int
    loss: tuple[float, ...]
    kept_share: float | None
    accuracy: float | None
    accuracy_against: str | None
    images_per_second: float | None
    seconds: float | None


@dataclass(frozen=True)
class Run:
    """A finished run, as far as the audit needs it."""

    path: Path
    config: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    ledger: Ledger


def load_run(path: Path) -> Run:
    """Read the run directory ``path``.

    Raises:
        UserError: it is no run, it has no ledger yet, or its ledger is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"There is no run at {path}.")
    if not (path / "config.yaml").is_file():
        raise UserError(
            f"{path} is not a run directory: it holds no config.yaml. "
            "Name the directory that `thresher train --out` wrote."
        )
    config = _load_config(path / "config.yaml")
    epochs = load_epochs(path / "metrics.jsonl")
    if not (path / "ledger.parquet").is_file():
        done = f"{epochs[-1].epoch} of {epochs[-1].epochs} epochs are done" if epochs else ""
        raise UserError(
            f"The run in {path} is not finished: it has no ledger.parquet yet"
            + (f" ({done})" if done else "")
            + ". Finish it with `thresher train --resume`, then audit it."
        )
    return Run(path, config, epochs, load_ledger(path / "ledger.parquet"))


def _load_config(path: Path) -> Mapping[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: it is not readable YAML ({_short(error)}).") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} is damaged: it holds no configuration (key: value).")
    return {str(key): value for key, value in config.items()}


def load_epochs(path: Path) -> tuple[Epoch, ...]:
    """Read the epochs in order; of an epoch that a resumed run repeats, the last line counts.

    Lines that make no sense are passed over: a run that was killed leaves half a line behind, and
    the run that resumes it goes on in the same file.
    """
    if not path.is_file():
        return ()
    found: dict[int, Epoch] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
            if isinstance(event, dict) and event.get("event") == "epoch":
                epoch = _epoch(event)
                found[epoch.epoch] = epoch
        except (ValueError, TypeError, KeyError):
            continue
    return tuple(found[number] for number in sorted(found))


def _epoch(event: Mapping[str, Any]) -> Epoch:
    loss = event.get("loss")
    losses = loss if isinstance(loss, list) else [loss]
    against = event.get("accuracy_against")
    return Epoch(
        epoch=int(event["epoch"]),
        epochs=int(event.get("epochs") or event["epoch"]),
        loss=tuple(math.nan if value is None else float(value) for value in losses),
        kept_share=_number(event.get("kept_share")),
        accuracy=_number(event.get("accuracy")),
        accuracy_against=None if against is None else str(against),
        images_per_second=_number(event.get("images_per_second")),
        seconds=_number(event.get("seconds")),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def load_ledger(path: Path) -> Ledger:
    """Read and check a ledger.

    Raises:
        UserError: the file is damaged or is no ledger; the sentence says in what way.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, f"it is not a readable Parquet file ({_short(error)})") from None
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise _damaged(path, f"the columns {', '.join(missing)} are missing")
    holes = [name for name in ("id", "key", "given_label") if table[name].null_count]
    if holes:
        raise _damaged(path, f"the column {holes[0]} has empty cells")
    classes = _classes(path, table.schema.metadata or {})
    try:
        given = pc.cast(table["given_label"], pa.string())
        # An unreadable sample has no suggestion; its given label stands in.
        suggested = pc.coalesce(pc.cast(table["suggested_label"], pa.string()), given)
        ledger = Ledger(
            classes=classes,
            ids=_numbers(table["id"], pa.int64()),
            keys=pc.cast(table["key"], pa.string()),
            given=_indices(path, given, classes),
            suggested=_indices(path, suggested, classes),
            confidence=_numbers(table["confidence"], pa.float32()),
            clean_probability=_numbers(table["clean_probability"], pa.float32()),
            weight=_numbers(table["weight"], pa.float32()),
            status=pc.fill_null(pc.cast(table["status"], pa.string()), ""),
        )
    except pa.ArrowException as error:
        raise _damaged(path, f"a column has the wrong type ({_short(error)})") from None
    _check(path, ledger)
    return ledger


def _classes(path: Path, metadata: Mapping[bytes, bytes]) -> tuple[str, ...]:
    try:
        names = json.loads(metadata[CLASSES_KEY])
    except (KeyError, ValueError):
        raise _damaged(path, "it does not name its classes") from None
    if not isinstance(names, list) or not names or len({str(name) for name in names}) < len(names):
        raise _damaged(path, "its class list is empty or names a class twice")
    return tuple(str(name) for name in names)


def _numbers(column: pa.ChunkedArray, dtype: pa.DataType) -> np.ndarray:
    return np.asarray(pc.cast(column, dtype).to_numpy())


def _indices(path: Path, names: pa.ChunkedArray, classes: tuple[str, ...]) -> np.ndarray:
    """Class indices of a column of names."""
    found = pc.fill_null(pc.index_in(names, value_set=pa.array(classes, pa.string())), -1)
    indices = np.asarray(found.to_numpy(), dtype=np.int32)
    if (indices < 0).any():
        name = names[int(np.flatnonzero(indices < 0)[0])].as_py()
        raise _damaged(path, f"it uses the label '{name}', which its class list lacks")
    return indices


def _check(path: Path, ledger: Ledger) -> None:
    if len(ledger) == 0:
        raise _damaged(path, "it has no rows")
    if len(np.unique(ledger.ids)) < len(ledger):
        raise _damaged(path, "some sample ids occur twice")
    for name in ("confidence", "clean_probability"):
        values = getattr(ledger, name)[ledger.scored]
        # Averages in float32 may step a rounding error over the edge; more than that is damage.
        if ((values < -1e-4) | (values > 1 + 1e-4)).any():
            raise _damaged(path, f"{name} has values outside 0 to 1")
    if not ledger.scored.any():
        raise _damaged(path, "no sample has a clean probability")


def _damaged(path: Path, how: str) -> UserError:
    return UserError(f"{path} is damaged: {how}. Write it anew by resuming or repeating the run.")


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
