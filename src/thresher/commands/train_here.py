"""``thresher train`` in this process, and the report at its end."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from thresher import ranks
from thresher.audit.run import audit
from thresher.config import TrainConfig
from thresher.dist.errors import PEERS_LOST, PeersLostError
from thresher.sources.manifest import Manifest
from thresher.sources.read import Reader
from thresher.train.interrupt import Interrupted
from thresher.train.progress import duration
from thresher.train.run import train
from thresher.train.run_dir import RunDir


def train_here(
    config: TrainConfig, options: Any, out: Path, *, resume: bool, overwrite: bool
) -> int:
    """Train as one of the run's processes; the first of them writes the report.

    Args:
        config: of the run.
        options: of its method.
        out: the run's directory.
        resume: go on from its newest checkpoint.
        overwrite: replace the run that it holds.

    Returns:
        The exit code.
    """
    console = Console()
    try:
        result = train(
            config,
            options,
            out,
            resume=resume,
            overwrite=overwrite,
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
