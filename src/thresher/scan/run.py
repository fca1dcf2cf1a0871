"""A scan from end to end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from thresher.config import DataOptions
from thresher.errors import UserError
from thresher.files import refuse_inside, write_atomically
from thresher.scan.copies import NEAR_BITS
from thresher.scan.explore import Explored, explore
from thresher.scan.findings import Findings, as_json, as_table, find
from thresher.scan.identity import identity, public
from thresher.scan.near import MOST_DISTANCE
from thresher.scan.opening import Opened, open_data
from thresher.scan.page import render
from thresher.scan.pool import Stopped
from thresher.scan.progress import Display
from thresher.scan.store import Store
from thresher.sources.apart import require_apart
from thresher.sources.manifest import OK, Manifest
from thresher.sources.read import Reader
from thresher.sources.request import printable


@dataclass(frozen=True)
class ScanResult:
    """What a scan found and where it wrote it.

    Attributes:
        touched: images that were read; the others were known from an earlier scan.
        looking_seconds: the time that took.
    """

    findings: Findings
    touched: int
    looking_seconds: float
    seconds: float
    manifest: Path
    page: Path
    summary: Path
    lists: Path


def scan(
    data: str,
    out: Path,
    *,
    against: str | None = None,
    options: DataOptions | None = None,
    workers: int | None = None,
    distance: int = NEAR_BITS,
    stop: Callable[[], bool] = lambda: False,
    console: Console | None = None,
) -> ScanResult:
    """Look at all images of ``data`` and write what is wrong with them into ``out``.

    Args:
        data: anything that ``open_source`` knows.
        out: a directory; one that holds an earlier scan of the same data is brought up to date.
        against: a test set, of which no image should be in the data.
        options: columns of tables and Parquet files.
        workers: processes; None: one per core.
        distance: most differing bits of 64 at which two images are the same picture.
        stop: asked often whether to stop; what was seen is then kept.
        console: where to show progress; None: nowhere.

    Raises:
        UserError: the data cannot be opened, or the results not written.
        Stopped: ``stop`` said so.
    """
    started = time.monotonic()
    options = options or DataOptions()
    workers = _require_sense(workers, distance)
    refuse_inside(out, data, f"--out {out}")
    if against is not None:
        require_apart(data, against, "--against")
    opened = open_data(data, options)
    test = None if against is None else open_data(against, options)
    if test is not None:
        _require_other_shards(opened.manifest, test.manifest)

    def check() -> None:
        if stop():
            raise Stopped

    with Store.open(out, identity(data)) as store:
        quiet = console or Console(quiet=True)
        explored = _explore(opened, store, "scan", workers, stop, quiet)
        tested = test and _explore(test, store, "against", workers, stop, quiet)
        findings = find(
            opened.manifest,
            explored.table,
            None if test is None else test.manifest,
            None if tested is None else tested.table,
            distance=distance,
            refused=opened.refused,
            notes=opened.notes,
            stop=check,
        )
        result = ScanResult(
            findings=findings,
            touched=explored.touched + (tested.touched if tested else 0),
            looking_seconds=explored.seconds + (tested.seconds if tested else 0.0),
            seconds=time.monotonic() - started,
            manifest=out / "manifest.parquet",
            page=out / "scan.html",
            summary=out / "findings.json",
            lists=out / "findings.parquet",
        )
        _write(result, opened.manifest, explored, test and test.manifest)
        store.finish()
    return result


def _explore(
    opened: Opened,
    store: Store,
    name: str,
    workers: int,
    stop: Callable[[], bool],
    console: Console,
) -> Explored:
    what = "looking" if name == "scan" else "test set"
    with Display(console, what) as display:
        explored = explore(
            opened.manifest,
            store,
            name,
            workers=workers,
            stop=stop,
            on_progress=display.on_progress,
        )
    store.save(name, explored.table)
    return explored


def _write(
    result: ScanResult, manifest: Manifest, explored: Explored, against: Manifest | None
) -> None:
    findings = result.findings
    reader = Reader(manifest)
    test_reader = None if against is None else Reader(against)
    try:
        page = render(
            findings,
            read=reader.read,
            read_against=None if test_reader is None else test_reader.read,
        )
    finally:
        reader.close()
        if test_reader is not None:
            test_reader.close()
    bad = np.flatnonzero(pc.not_equal(explored.table["state"], OK).to_numpy())
    reasons = explored.table["state"].take(bad).to_pylist()
    manifest.with_states(dict(zip(bad.tolist(), reasons, strict=True))).save(result.manifest)
    with write_atomically(result.lists) as temporary:
        pq.write_table(as_table(findings), temporary, compression="zstd")
    with write_atomically(result.summary) as temporary:
        temporary.write_text(json.dumps(as_json(findings), indent=1, ensure_ascii=False) + "\n")
    with write_atomically(result.page) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _require_sense(workers: int | None, distance: int) -> int:
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: at least one process is needed.")
    if not 0 <= distance <= MOST_DISTANCE:
        raise UserError(f"--near {distance}: name 0 to {MOST_DISTANCE} bits.")
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    return workers


def _require_other_shards(data: Manifest, against: Manifest) -> None:
    both = set(data.shards) & set(against.shards) if data.kind != "files" else set()
    if both:
        raise UserError(
            f"The data and --against share {len(both)} file{'s' * (len(both) > 1)}, the first: "
            f"{printable(public(min(both)))}. Keep the test set apart from the data."
        )
