"""The manifest: one row per image, saying who it is, where its bytes lie and whether it is usable.

``id`` is dense: a sample's id is its row number, fixed when the manifest is made. A location is
``(shard, offset, length)``; what a shard is depends on ``kind``:

========== ============================ ===================== =================
kind       shard                        offset                length
========== ============================ ===================== =================
files      folder that ``key`` is under -1                    bytes or -1
tar        tar file                     byte of the content   bytes
parquet    Parquet file                 row in the file       bytes or -1
========== ============================ ===================== =================
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from thresher.errors import UserError
from thresher.files import write_atomically

OK = "ok"
SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # for people; repeats only where a table does
        pa.field("shard", pa.int32(), nullable=False),  # index into Manifest.shards
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),  # index into Manifest.classes, -1: none
        pa.field("state", pa.dictionary(pa.int16(), pa.string()), nullable=False),
    ]
)
_METADATA_KEY = b"thresher.manifest"


@dataclass(frozen=True)
class Manifest:
    """All samples of one data set. Immutable; ``with_states`` returns a changed copy.

    Attributes:
        table: one row per sample, in id order, with the columns of ``SCHEMA``.
        kind: how bytes are read, see the module's table.
        shards: paths of the shards, absolute.
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
        ok = pc.equal(pc.cast(self.table["state"], pa.string()), OK).to_numpy()
        return np.asarray(ok, dtype=bool) & (self.labels >= 0)

    @property
    def states(self) -> list[str]:
        """The state of each sample: ``ok`` or the reason why it cannot be used."""
        return list(pc.cast(self.table["state"], pa.string()).to_pylist())

    def key(self, index: int) -> str:
        """The name of a sample for people: its path below the source, or its member name."""
        return str(self.table["key"][index].as_py())

    def with_states(self, states: dict[int, str]) -> Manifest:
        """Return a copy in which the samples ``{id: reason}`` carry these states."""
        if not states:
            return self
        column = self.states
        for index, reason in states.items():
            column[index] = reason
        position = self.table.schema.get_field_index("state")
        state = pa.array(column).dictionary_encode().cast(SCHEMA.field("state").type)
        return replace(self, table=self.table.set_column(position, SCHEMA.field("state"), state))

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
        table = self.table.replace_schema_metadata({_METADATA_KEY: json.dumps(metadata)})
        with write_atomically(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read what ``save`` wrote.

        Raises:
            UserError: no such file, or it is not a manifest.
        """
        try:
            table = pq.read_table(path)
        except FileNotFoundError:
            raise UserError(f"There is no manifest at {path}.") from None
        except pa.ArrowInvalid as error:
            raise UserError(f"{path} is not a readable Parquet file: {error}") from None
        raw = (table.schema.metadata or {}).get(_METADATA_KEY)
        if raw is None:
            raise UserError(f"{path} is a Parquet file but not a Thresher manifest.")
        metadata = json.loads(raw)
        return cls(
            table=table.cast(SCHEMA),
            kind=metadata["kind"],
            shards=tuple(metadata["shards"]),
            classes=tuple(metadata["classes"]),
            source=metadata["source"],
            options=metadata["options"],
        )

    def _column(self, name: str) -> np.ndarray:
        return np.asarray(self.table[name].to_numpy())


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
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(num, dtype=np.int16)), [OK])
    return _strings(states).dictionary_encode().cast(SCHEMA.field("state").type)
