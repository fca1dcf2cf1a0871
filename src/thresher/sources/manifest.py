"""The manifest: one row per image, saying who it is, where its bytes lie and whether it is usable.

``id`` is dense: a sample's id is its row number, fixed when the manifest is made. A location is
``(shard, offset, length)``; what a shard is depends on ``kind``:

========== ============================ ===================== =================
kind       shard                        offset                length
========== ============================ ===================== =================
files      folder that ``key`` is under -1, or see below     bytes or -1
tar        tar file                     byte of the content   bytes
parquet    Parquet file                 row in the file       bytes or -1
lmdb       LMDB's data file             number of the record  -1
lmdb, cut  likewise                     byte of the record    bytes
========== ============================ ===================== =================

Of files at a URL that were listed with their versions, ``offset`` is a hash of the version: copies
in the cache, and what a scan has seen, are good for that version alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from thresher.files import write_atomically
from thresher.sources.manifest_file import SCHEMA, read_columns, write_columns
from thresher.sources.places import join

OK = "ok"
OTHER = "unreadable"
_MOST_REASONS = 30_000  # of the 32,767 that the column's codes can tell apart


@dataclass(frozen=True)
class Manifest:
    """All samples of one data set. Immutable; ``with_states`` returns a changed copy.

    Attributes:
        table: one row per sample, in id order, with the columns of ``SCHEMA``.
        kind: how bytes are read, see the module's table.
        shards: paths or URLs of the shards, absolute; a packed set's file has them relative.
        classes: class names; a label is an index into them.
        source: what the user named, for messages.
        options: what a reader needs beyond the location (a Parquet image column, say).
    """

    table: pa.Table
    kind: str
    shards: tuple[str, ...]
    classes: tuple[str, ...]
    source: str
    options: dict[str, Any]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def labels(self) -> np.ndarray:
        """int32[N], the given label of each sample, -1 where there is none."""
        return self._column("label")

    @property
    def usable(self) -> np.ndarray:
        """bool[N], true where the state is ok and a label is given."""
        codes, reasons = self._states()
        ok = reasons.index(OK) if OK in reasons else -1  # no sample has -1
        usable: np.ndarray = (codes == ok) & (self.labels >= 0)
        return usable

    @property
    def states(self) -> np.ndarray:
        """object[N] of text, the state of each sample: ``ok`` or why it cannot be used.

        A fresh array of shared strings: eight bytes a sample. See ``count_states`` for totals.
        """
        codes, reasons = self._states()
        states: np.ndarray = np.array(reasons, dtype=object)[codes]
        return states

    def count_states(self) -> dict[str, int]:
        """How many samples are in each state, the most frequent first."""
        codes, reasons = self._states()
        counts = np.bincount(codes, minlength=len(reasons))
        order = np.argsort(-counts, kind="stable")
        return {reasons[code]: int(counts[code]) for code in order if counts[code]}

    def key(self, index: int) -> str:
        """The name of a sample for people: its path below the source, or its member name."""
        return str(self.table["key"][index].as_py())

    def with_states(self, states: dict[int, str]) -> Manifest:
        """Return a copy in which the samples ``{id: reason}`` carry these states."""
        if not states:
            return self
        codes, reasons = self._states()
        codes = codes.copy()
        code_of = {reason: code for code, reason in enumerate(reasons)}
        for index, reason in states.items():
            if reason not in code_of and len(code_of) >= _MOST_REASONS:
                reason = OTHER  # messages that name sizes or bytes may differ for each image
            codes[index] = code_of.setdefault(reason, len(code_of))
        return self._with_column("state", _dictionary(codes, list(code_of)))

    def with_state_where(self, where: np.ndarray, reason: str) -> Manifest:
        """Return a copy in which the samples of the mask bool[N] carry one state."""
        codes, reasons = self._states()
        if reason not in reasons:
            reasons = [*reasons, reason]
        return self._with_column(
            "state", _dictionary(np.where(where, np.int16(reasons.index(reason)), codes), reasons)
        )

    def with_labels(self, labels: np.ndarray, classes: Sequence[str]) -> Manifest:
        """Return a copy with other labels, int32[N], and the classes that they index."""
        relabelled = self._with_column("label", pa.array(labels.astype(np.int32)))
        return replace(relabelled, classes=tuple(classes))

    def save(self, path: Path) -> None:
        """Write as Parquet, whole or not at all."""
        metadata = {
            "version": 1,
            "kind": self.kind,
            "shards": self.shards,
            "classes": self.classes,
            "source": self.source,
            "options": self.options,
        }
        with write_atomically(path) as temporary:
            write_columns(self.table, metadata, temporary)

    @classmethod
    def load(cls, path: Path, folder: str | None = None) -> Manifest:
        """Read what ``save`` wrote; shards with relative names lie beside the manifest.

        Args:
            path: the manifest.
            folder: where relative shards are, if not beside it (a URL that it was fetched from).

        Raises:
            UserError: no such file, or it is not a manifest.
        """
        table, metadata = read_columns(path)
        folder = str(path.absolute().parent) if folder is None else folder
        shards = tuple(join(folder, shard) for shard in metadata["shards"])
        options = metadata["options"]
        if shards != tuple(metadata["shards"]):  # made to be copied, which makes new versions
            options.pop("shard_versions", None)
        return cls(
            table=table,
            kind=metadata["kind"],
            shards=shards,
            classes=tuple(metadata["classes"]),
            source=metadata["source"],
            options=options,
        )

    def _column(self, name: str) -> np.ndarray:
        return np.asarray(self.table[name].to_numpy())

    def _states(self) -> tuple[np.ndarray, list[str]]:
        """int16[N], which of the reasons is each sample's state, and the distinct reasons."""
        column = self.table["state"].unify_dictionaries()
        if not column.num_chunks:
            return np.zeros(0, dtype=np.int16), []
        parts = [chunk.indices.to_numpy() for chunk in column.chunks]
        codes = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return codes, column.chunk(0).dictionary.to_pylist()

    def _with_column(self, name: str, values: pa.Array) -> Manifest:
        position = self.table.schema.get_field_index(name)
        return replace(self, table=self.table.set_column(position, SCHEMA.field(name), values))


def make_manifest(
    *,
    kind: str,
    shards: Sequence[str],
    classes: Sequence[str],
    source: str,
    keys: Sequence[str] | pa.Array | pa.ChunkedArray,
    labels: np.ndarray,
    shard: np.ndarray | None = None,
    offsets: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
    states: Sequence[str] | pa.Array | pa.ChunkedArray | None = None,
    options: dict[str, Any] | None = None,
) -> Manifest:
    """Build a manifest from columns; absent ones take 'the whole file' and 'ok'.

    Arrow columns are taken as they are, without a Python object per row.
    """
    num = len(keys)
    absent = np.full(num, -1, dtype=np.int64)
    columns = {
        "id": np.arange(num, dtype=np.int64),
        "key": _strings(keys),
        "shard": np.zeros(num, dtype=np.int32) if shard is None else shard.astype(np.int32),
        "offset": absent if offsets is None else offsets.astype(np.int64),
        "length": absent if lengths is None else lengths.astype(np.int64),
        "label": labels.astype(np.int32),
        "state": _states(num, states),
    }
    return Manifest(
        table=pa.table(columns, schema=SCHEMA),
        kind=kind,
        shards=tuple(shards),
        classes=tuple(classes),
        source=source,
        options=options or {},
    )


def _strings(values: Sequence[str] | pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values.cast(pa.string())
    return pa.array(values, type=pa.string())


def _states(
    num: int, states: Sequence[str] | pa.Array | pa.ChunkedArray | None
) -> pa.Array | pa.ChunkedArray:
    if states is None:
        return _dictionary(np.zeros(num, dtype=np.int16), [OK])
    return _strings(states).dictionary_encode().cast(SCHEMA.field("state").type)


def _dictionary(codes: np.ndarray, reasons: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.array(codes.astype(np.int16)), pa.array(reasons, type=pa.string())
    )
