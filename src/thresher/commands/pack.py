"""``thresher pack DATA OUT``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from thresher.commands.left_out import tell_left_out
from thresher.config import DataOptions, option
from thresher.errors import UserError
from thresher.files import refuse_inside
from thresher.options import Parser, values_of
from thresher.pack.settings import PackSettings, Subsampling
from thresher.sources.detect import open_source
from thresher.sources.manifest import Manifest
from thresher.sources.places import plain
from thresher.sources.request import printable
from thresher.train.interrupt import Interrupted, StopRequest


@dataclass(frozen=True, kw_only=True)
class PackOptions(DataOptions):
    """Options of the command."""

    short_side: int = option(320, "Pixels of the shorter side that larger images are scaled to.")
    quality: int = option(90, "Of the JPEG encoder, 1 to 100.")
    subsampling: Subsampling = option("4:2:0", "Of the colours: 4:4:4, 4:2:2 or 4:2:0.")
    shard_mb: float = option(256, "Most megabytes of a tar.")
    workers: int | None = option(None, "Threads that re-encode; left open: one per core.")


def run(words: Sequence[str]) -> int:
    """Pack, or check what was packed."""
    parser = Parser(
        prog="thresher pack",
        description="Re-encode images into tars that train fast. Run again to go on after a stop.",
    )
    parser.add_argument("data", type=str, help="Images of any kind that train takes.")
    parser.add_argument("out", type=str | None, nargs="?", default=None, help="Folder for tars.")
    parser.add_argument("--verify", action="store_true", help="Check the tars in the folder named.")
    parser.add_fields(PackOptions)
    given = parser.parse(words)
    if given["verify"]:
        return _verify(Path(given["out"] or given["data"]))
    if given["out"] is None:
        raise UserError("Name the folder for the tars: thresher pack DATA OUT.")
    options = values_of(PackOptions, given)
    settings = PackSettings(
        short_side=options.short_side,
        quality=options.quality,
        subsampling=options.subsampling,
        shard_mb=options.shard_mb,
    )
    settings.check()
    workers = len(os.sched_getaffinity(0)) if options.workers is None else options.workers
    if not 1 <= workers <= 1024:
        raise UserError(f"--workers takes 1 to 1024, not {workers}.")
    out = Path(given["out"])
    refuse_inside(out, plain(given["data"]), printable(str(out)))
    manifest = open_source(
        given["data"],
        path_column=options.path_column,
        label_column=options.label_column,
        image_column=options.image_column,
        allow_damaged=options.allow_damaged,
    )
    tell_left_out(manifest.options)
    return _pack(manifest, out, settings, workers)


def _pack(manifest: Manifest, out: Path, settings: PackSettings, workers: int) -> int:
    from thresher.pack.run import pack  # brings torch

    console = Console(stderr=True)
    columns = (TextColumn("packing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    start = time.perf_counter()
    with (
        StopRequest() as stop,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("", total=len(manifest))

        def on_progress(done: int) -> None:
            # Between two images, where nothing is half open.
            if stop.requested:
                raise Interrupted(stop.signal)
            progress.update(task, completed=done)

        try:
            result = pack(
                manifest,
                out,
                settings,
                workers=workers,
                on_progress=on_progress,
            )
        except Interrupted as interrupted:
            progress.stop()
            print(
                f"thresher: {interrupted}. Finished tars are kept; run the same command to go on.",
                file=sys.stderr,
            )
            return 128 + interrupted.signal
    seconds = time.perf_counter() - start
    print(
        f"{result.images:,} images in {result.shards:,} tars, {result.size / 1e6:,.1f} MB; "
        f"{result.copied:,} copied byte for byte, {result.images - result.copied:,} re-encoded"
    )
    if result.kept:
        print(f"{result.kept:,} tars were finished before, and are as they were written")
    if result.unreadable:
        print(f"{result.unreadable:,} unreadable, listed in {out / 'unreadable.csv'}")
    print(f"packed into {out} in {seconds:.1f} s")
    return 0


def _verify(out: Path) -> int:
    from thresher.pack.index import verify

    manifest = verify(out)
    print(f"{len(manifest.shards):,} tars with {len(manifest):,} samples are as they were written")
    if not manifest.options["complete"]:
        print("the packing was not finished; run the same thresher pack again to go on")
    return 0
