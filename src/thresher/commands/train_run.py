"""``thresher train`` once its options are understood."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from thresher.config import TrainConfig
from thresher.dist.launch import launch
from thresher.dist.launchers import check_devices, launched_at, restarts, was_launched
from thresher.errors import UserError
from thresher.files import refuse_inside
from thresher.methods import all_methods, resolve_name
from thresher.options import Parser, values_of
from thresher.sources.places import folder_name, plain
from thresher.train.check import check
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
    # Seconds, which a launcher need not wait for.
    from thresher.commands.train_here import train_here

    return train_here(config, options, out, resume=given["resume"], overwrite=given["overwrite"])


def _began(out: Path) -> bool:
    """Whether the run in ``out`` is the one that this launch began, not an older one."""
    run = RunDir(out)
    return run.holds_run and run.config.stat().st_mtime >= launched_at()


def _default_out(config: TrainConfig) -> Path:
    started = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{folder_name(config.data)}-{config.method}-{started}"
