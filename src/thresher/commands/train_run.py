"""``thresher train`` once its options are understood."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace
from rich.console import Console

from thresher import ranks
from thresher.audit.run import audit
from thresher.config import TrainConfig
from thresher.dist.environment import check_devices, launched_at, restarts, was_launched
from thresher.dist.errors import PEERS_LOST, PeersLostError
from thresher.dist.launch import launch
from thresher.errors import UserError
from thresher.files import refuse_inside
from thresher.methods import all_methods, resolve_name
from thresher.options import Parser, values_of
from thresher.sources.manifest import Manifest
from thresher.sources.places import folder_name, plain
from thresher.sources.read import Reader
from thresher.train.interrupt import Interrupted
from thresher.train.progress import duration
from thresher.train.resolve import check
from thresher.train.run import train
from thresher.train.run_dir import RunDir


def begin(parser: Parser, words: Sequence[str], given: Namespace) -> int:
    """Train, here or in processes that are started, then write the report.

    Args:
        parser: of the command's options.
        words: the command line.
        given: what the parser made of it.

    Returns:
        The exit code.
    """
    check_devices(given["devices"])  # not of a resumed run's configuration: that may differ
    out = Path(given["out"]) if given["out"] else None
    if given["resume"] and out is None:
        raise UserError("--resume needs --out: the directory of the run to go on with.")
    if given["resume"] and out is not None:
        run_dir = RunDir(out)
        run_dir.check(resume=True, overwrite=given["overwrite"])
        given = parser.parse(["--config", str(run_dir.config), *words])
    count, most = restarts()
    if most and out is None:
        raise UserError(
            "A run that may be started again needs --out: its directory, to go on from there."
        )
    if count and out is not None and not given["resume"] and _began(out):
        # The launcher started all processes again after one failed.
        given = parser.parse(["--config", str(RunDir(out).config), *words])
        given["resume"], given["overwrite"] = True, False
    method = resolve_name(given["method"])
    config = values_of(TrainConfig, given)
    config = dataclasses.replace(config, method=method, data=given["DATA"] or config.data)
    options = values_of(all_methods()[method].Options, given[method])
    out = out or _default_out(config)
    if not given["resume"]:
        refuse_inside(out, plain(config.data), f"--out {out}")
    if config.devices > 1 and not was_launched():
        check(config)
        resumes = ["--out", str(out)] if given["out"] is None else []
        return launch(["train", *words, *resumes], config.devices, config.max_restarts)
    console = Console()
    try:
        result = train(
            config,
            options,
            out,
            resume=given["resume"],
            overwrite=given["overwrite"],
            console=console,
        )
    except Interrupted as stop:
        if ranks.rank() != 0:
            return 128 + stop.signal
        print(
            f"thresher: {stop}. Everything is saved; go on with:"
            f" thresher train --resume --out {out}",
            file=sys.stderr,
        )
        return 128 + stop.signal
    except PeersLostError as lost:
        if ranks.rank() <= 1:  # one voice is enough; the second rank's if the first is gone
            print(
                f"thresher: {lost}. Everything saved so far is whole; go on with:"
                f" thresher train --resume --out {out}",
                file=sys.stderr,
                flush=True,
            )
        # A thread may wait for what the lost one would have saved; nothing half-written counts.
        os._exit(PEERS_LOST)
    if ranks.rank() != 0:
        return 0
    out = result.path
    manifest = Manifest.load(RunDir(out).manifest)
    reader = Reader(manifest)
    found = audit(out, read=reader.read)
    reader.close()
    if result.accuracy is not None:
        console.print(
            f"accuracy {result.accuracy:.2%} against {result.measured_on}, last epoch",
            highlight=False,
        )
    console.print(
        f"labels not believed: {found.num_suspects:,} of {found.num_labels:,}; estimated wrong:"
        f" {found.estimated_share:.1%}\nreport {found.report}\ntook {duration(result.seconds)}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    return 0


def _began(out: Path) -> bool:
    """Whether the run in ``out`` is the one that this launch began, not an older one."""
    run = RunDir(out)
    return run.holds_run and run.config.stat().st_mtime >= launched_at()


def _default_out(config: TrainConfig) -> Path:
    started = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{folder_name(config.data)}-{config.method}-{started}"
