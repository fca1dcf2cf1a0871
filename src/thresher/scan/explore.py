"""Going over all images of a manifest: those that were looked at before are only recognised."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thresher.scan.look import Look
from thresher.scan.pool import Chunk, Pool
from thresher.scan.stamps import MOST_BYTES, Stamper
from thresher.scan.store import SCHEMA, Store, to_table
from thresher.scan.worker import save_locations
from thresher.sources.manifest import OK, Manifest
from thresher.sources.request import NO_LABEL

CHUNK = 64  # images a worker gets at a time: some 50 ms of work
_STAMP_CHUNK = 4096
_PART_ROWS = 20_000
_PART_SECONDS = 5.0
TOO_LARGE = f"too large: more than {MOST_BYTES >> 20} MiB"

OnProgress = Callable[[int, int, int], None]
"""Called with (images done, of them recognised, images in all)."""


class Explored(NamedTuple):
    """What is known after going over a manifest.

    Attributes:
        table: a row per row of the manifest, in its order; columns of ``store.SCHEMA``.
        touched: how many images were read for it; the others were known.
        seconds: from the first to the last of them.
    """

    table: pa.Table
    touched: int
    seconds: float


def explore(
    manifest: Manifest,
    store: Store,
    name: str,
    *,
    workers: int,
    stop: Callable[[], bool] = lambda: False,
    on_progress: OnProgress = lambda *_: None,
) -> Explored:
    """Look at every image of the manifest that ``store`` does not know yet.

    Raises:
        Stopped: ``stop`` said so; what was seen is kept.
        UserError: the results cannot be written.
    """
    return _Exploration(manifest, store, name, on_progress).run(workers, stop)


class _Exploration:
    def __init__(
        self, manifest: Manifest, store: Store, name: str, on_progress: OnProgress
    ) -> None:
        self._manifest, self._store, self._name = manifest, store, name
        self._on_progress = on_progress
        state = pc.cast(manifest.table["state"], pa.string())
        # A label is not needed to look at an image; a file is.
        self._readable = np.asarray(
            pc.is_in(state, value_set=pa.array([OK, NO_LABEL])).to_numpy(), dtype=bool
        )
        self._tables = [store.load(name)]
        self._known = np.sort(self._tables[0]["stamp"].to_numpy())
        self._stamps = np.zeros(len(manifest), dtype=np.uint64)
        self._recognised = self._touched = 0
        self._new_stamps: list[int] = []
        self._new_looks: list[Look] = []

    def run(self, workers: int, stop: Callable[[], bool]) -> Explored:
        locations = self._store.parts / f"{self._name}.locations"
        started = flushed = time.monotonic()
        try:
            save_locations(self._manifest, locations)
            with Pool(workers, locations, stop) as pool:
                for chunk, looks in pool.run(self._chunks(stop)):
                    self._add(chunk.stamps.tolist(), looks)
                    self._touched += len(looks)
                    self._tell()
                    now = time.monotonic()
                    if len(self._new_looks) >= _PART_ROWS or now - flushed > _PART_SECONDS:
                        self._flush()
                        flushed = now
        finally:
            self._flush()
            Path(locations).unlink(missing_ok=True)
        self._tell()
        return Explored(self._in_order(), self._touched, time.monotonic() - started)

    def _chunks(self, stop: Callable[[], bool]) -> Iterator[Chunk]:
        """The rows to look at. Those of one chunk lie side by side, as do their bytes."""
        stamper = Stamper(self._manifest)
        for start in range(0, len(self._manifest), _STAMP_CHUNK):
            end = min(start + _STAMP_CHUNK, len(self._manifest))
            stamps, sizes = stamper.stamps(start, end)
            self._stamps[start:end] = stamps
            wanted = self._readable[start:end] & ~_is_in(stamps, self._known)
            too_large = wanted & (sizes > MOST_BYTES)
            for stamp in stamps[too_large].tolist():
                self._add([stamp], [Look(TOO_LARGE)])
            rows = np.flatnonzero(wanted & ~too_large)
            self._recognised += end - start - len(rows)
            for first in range(0, len(rows), CHUNK):
                part = rows[first : first + CHUNK]
                yield Chunk(part + start, stamps[part])
            self._tell()
            if stop():
                return  # the pool, which asks too, ends the scan

    def _add(self, stamps: list[int], looks: list[Look]) -> None:
        self._new_stamps.extend(stamps)
        self._new_looks.extend(looks)

    def _flush(self) -> None:
        if self._new_looks:
            table = to_table(np.array(self._new_stamps, dtype=np.uint64), self._new_looks)
            self._store.add_part(self._name, table)
            self._tables.append(table)
            self._new_stamps, self._new_looks = [], []

    def _tell(self) -> None:
        self._on_progress(self._recognised + self._touched, self._recognised, len(self._manifest))

    def _in_order(self) -> pa.Table:
        """The results in the manifest's order; what could not be looked at keeps its state."""
        table = pa.concat_tables(self._tables)
        stamps = table["stamp"].to_numpy()
        order = np.argsort(stamps, kind="stable")
        place = np.searchsorted(stamps, self._stamps, sorter=order)
        found = np.zeros(len(place), dtype=bool)
        inside = place < len(stamps)
        found[inside] = stamps[order[place[inside]]] == self._stamps[inside]
        found &= self._readable
        place = np.where(found, place, 0)
        rows = pa.array(order[place] if len(order) else place, mask=~found)
        ordered = table.take(rows)
        state = pc.if_else(
            pa.array(found), ordered["state"], pc.cast(self._manifest.table["state"], pa.string())
        )
        columns = {
            **{field.name: ordered[field.name] for field in SCHEMA},
            "stamp": pa.array(self._stamps),
            "state": state,
        }
        return pa.table(columns, schema=table.schema.with_metadata(None)).replace_schema_metadata(
            to_table([], []).schema.metadata
        )


def _is_in(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    place = np.searchsorted(ordered, values)
    inside = place < len(ordered)
    found = np.zeros(len(values), dtype=bool)
    found[inside] = ordered[place[inside]] == values[inside]
    return found
