"""A scan's directory: whose it is, what it has seen so far, and only one scan at a time in it.

======================= ===========================================================
file                    holds
======================= ===========================================================
``scan.json``           whose directory it is: the data that were scanned
``manifest.parquet``    the manifest, with the state of each image
``scan.parquet``        a row per image of the manifest, in its order: ``SCHEMA``
``against.parquet``     the same of the images of ``--against``
``findings.json``       all counts, and the first of each list
``findings.parquet``    the lists in full
``scan.html``           the page
``parts/``              what a scan has seen that is not finished; goes away with its end
======================= ===========================================================
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from thresher.errors import UserError
from thresher.files import explain_write_errors, write_atomically
from thresher.scan.identity import public_record
from thresher.scan.look import VERSION, Look
from thresher.sources.request import printable

MARKER = "scan.json"
SCHEMA = pa.schema(
    [
        pa.field("stamp", pa.uint64(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("bytes", pa.int64()),
        pa.field("format", pa.string()),
        pa.field("mode", pa.string()),
        pa.field("animated", pa.bool_()),
        pa.field("hash", pa.uint64()),
        pa.field("phash", pa.uint64()),
        pa.field("dhash", pa.uint64()),
        pa.field("mean", pa.float32()),
        pa.field("std", pa.float32()),
    ]
)
_VERSION_KEY = b"thresher.look_version"
_VERSIONED = SCHEMA.with_metadata({_VERSION_KEY: str(VERSION)})


class Store:
    """The directory of one scan, held by this process while the context of ``open`` lasts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = path / "parts"

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, data: str) -> Iterator[Store]:
        """Make or enter the directory.

        Args:
            path: of the directory.
            data: what is scanned, by ``identity``; a directory belongs to one.

        Raises:
            UserError: it is no directory, holds something else, is not writable, or another
                scan is at work in it.
        """
        if path.exists() and not path.is_dir():
            raise UserError(f"--out {path} is a file. Name a directory to write the scan into.")
        _require_ours(path, data)
        with explain_write_errors(path):
            (path / "parts").mkdir(parents=True, exist_ok=True)
            lock = os.open(path / "parts", os.O_RDONLY)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"Another scan is at work in {path}. Wait for its end, or choose another --out."
                ) from None
            with write_atomically(path / MARKER) as temporary:
                temporary.write_text(json.dumps({"thresher": "scan", "data": data}) + "\n")
            yield cls(path)
        finally:
            os.close(lock)

    def load(self, name: str) -> pa.Table:
        """All that earlier scans of ``name`` have seen and that still means the same."""
        files = [self.path / f"{name}.parquet", *sorted(self.parts.glob(f"{name}-*.parquet"))]
        tables = [found for file in files if (found := _load(file)) is not None]
        table = pa.concat_tables([SCHEMA.empty_table(), *tables])
        # What could not even be read may be readable now, though nothing about the file changed.
        return table.filter(pc.is_valid(table["hash"]))

    def add_part(self, name: str, table: pa.Table) -> None:
        """Keep results, so that they outlive this process."""
        taken = [int(file.stem.rpartition("-")[2]) for file in self.parts.glob(f"{name}-*.parquet")]
        number = max(taken, default=-1) + 1
        with write_atomically(self.parts / f"{name}-{number:06d}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def save(self, name: str, table: pa.Table) -> None:
        """Write the finished table."""
        with write_atomically(self.path / f"{name}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def finish(self) -> None:
        """Remove what only an unfinished scan needs."""
        shutil.rmtree(self.parts, ignore_errors=True)


def to_table(stamps: Sequence[int] | np.ndarray, looks: Sequence[Look]) -> pa.Table:
    """Results as a table of ``SCHEMA``."""
    columns: list[Sequence[object]] = list(zip(*looks, strict=True))
    if not columns:
        return _VERSIONED.empty_table()
    arrays = [
        pa.array(values, type=field.type)
        for values, field in zip([stamps, *columns], SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=_VERSIONED)


def _load(file: Path) -> pa.Table | None:
    """A table of earlier results, or None where it is absent or of another version."""
    try:
        schema = pq.read_schema(file)
        if (schema.metadata or {}).get(_VERSION_KEY) != str(VERSION).encode():
            return None
        return pq.read_table(file, columns=SCHEMA.names).cast(SCHEMA)
    except (FileNotFoundError, pa.ArrowInvalid):
        return None


def _require_ours(path: Path, data: str) -> None:
    try:
        names = [file.name for file in path.iterdir()] if path.exists() else []
        marker = (path / MARKER).read_text() if MARKER in names else ""
    except PermissionError:
        raise UserError(f"No right to read --out {path}. Choose another directory.") from None
    if not [name for name in names if name != "parts" and not name.endswith(".tmp")]:
        return
    try:
        found = json.loads(marker) if marker else {}
    except ValueError:
        found = {}
    if not isinstance(found, dict) or found.get("thresher") != "scan":
        raise UserError(
            f"--out {path} holds something else than a scan. Name an empty or a new directory."
        )
    if found.get("data") != data:
        raise UserError(
            f"--out {path} holds the scan of {printable(public_record(str(found.get('data'))))}. "
            "Name another directory for these data."
        )
