"""``thresher train``."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from thresher.audit.run import audit
from thresher.config import TrainConfig
from thresher.errors import UserError
from thresher.methods import all_methods, resolve_name
from thresher.options import Parser, values_of
from thresher.sources.manifest import Manifest
from thresher.sources.read import Reader
from thresher.train.interrupt import Interrupted
from thresher.train.progress import duration
from thresher.train.run import train
from thresher.train.run_dir import RunDir


def run(words: Sequence[str]) -> int:
    """Train, then write the report."""
    parser = _parser()
    given = parser.parse(words)
    out = Path(given["out"]) if given["out"] else None
    if given["resume"] and out is None:
        raise UserError("--resume needs --out: the directory of the run to go on with.")
    if given["resume"] and out is not None:
        run_dir = RunDir(out)
        run_dir.check(resume=True, overwrite=given["overwrite"])
        given = parser.parse(["--config", str(run_dir.config), *words])
    method = resolve_name(given["method"])
    config = values_of(TrainConfig, given)
    config = dataclasses.replace(config, method=method, data=given["DATA"] or config.data)
    options = values_of(all_methods()[method].Options, given[method])
    out = out or _default_out(config)
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
        print(
            f"thresher: {stop}. Everything is saved; go on with:"
            f" thresher train --resume --out {out}",
            file=sys.stderr,
        )
        return 128 + stop.signal
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


def _parser() -> Parser:
    parser = Parser(
        prog="thresher train",
        description="Train a classifier on images whose labels may be wrong. What is left open"
        " follows from the data, and the resolved configuration is printed and saved.",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    # Beside --data, which a configuration file sets: a positional would override it even if absent.
    parser.add_argument("DATA", type=str, nargs="?", help="The training images, as --data.")
    parser.add_fields(TrainConfig)
    for name, method in all_methods().items():
        parser.add_fields(method.Options, prefix=f"{name}.")
    parser.add_argument("--out", type=str | None, default=None, help="The run's directory.")
    parser.add_argument("--resume", action="store_true", help="Go on from the newest checkpoint.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the run in --out.")
    return parser


def _default_out(config: TrainConfig) -> Path:
    stem = re.sub(r"[^\w-]+", "-", Path(config.data).stem or "data").strip("-")
    return Path("runs") / f"{stem}-{config.method}-{time.strftime('%Y%m%d-%H%M%S')}"
