"""A whole run: open, check, build, train, and leave everything that explains it."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import yaml
from rich.console import Console

from thresher import __version__
from thresher.config import ResolvedConfig, TrainConfig
from thresher.dist.runtime import Runtime
from thresher.methods import resolve_name
from thresher.sources.manifest import Manifest
from thresher.train import build
from thresher.train.data import TrainData, open_training_data
from thresher.train.events import open_events
from thresher.train.finish import write_ledger_table, write_networks
from thresher.train.loop import Listener, Loop
from thresher.train.meter import EpochMetrics
from thresher.train.progress import Display
from thresher.train.resolve import Facts, accelerator_of, check, resolve
from thresher.train.resume import require_same
from thresher.train.run_dir import RunDir


@dataclass(frozen=True)
class RunResult:
    """What a finished run came to.

    Attributes:
        path: the run's directory.
        accuracy: on the measured images, of the last epoch; None without any.
        measured_on: what the accuracy was measured against.
        seconds: wall time of everything.
    """

    path: Path
    accuracy: float | None
    measured_on: str
    seconds: float


def train(
    config: TrainConfig,
    method_options: Any,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> RunResult:
    """Train as configured and fill the run's directory.

    Args:
        config: what to do; ``None`` fields follow from the data.
        method_options: the method's own ``Options``.
        out: the run's directory.
        resume: go on from the newest checkpoint in ``out``.
        overwrite: replace the run in ``out``.
        console: where progress is shown.

    Raises:
        UserError: any bad input; ``out`` is untouched if nothing was trained.
        Interrupted: asked to stop; a checkpoint was saved first.
    """
    started = time.perf_counter()
    console = console or Console()
    run = RunDir(out)
    run.check(
        resume=resume,
        overwrite=overwrite,
        inputs=(config.data, config.val, config.clean, config.init_weights),
    )
    config = dataclasses.replace(config, method=resolve_name(config.method))
    check(config)
    data = open_training_data(config)
    resolved = resolve(
        config, Facts(len(data.train.ids), data.median_side, accelerator_of(config.accelerator))
    )
    if resume:
        require_same(run, resolved, method_options, data)
        if run.summary.is_file():
            console.print(f"{out} is finished; nothing is left to train.", highlight=False)
            return _finished(run)
    runtime = Runtime(resolved.accelerator, resolved.precision)
    method = build.build_method(resolved, method_options, data)
    feed = build.build_feeds(resolved, data, method, runtime)
    measure = build.build_measure(resolved, data, method, runtime)
    classes = data.train.manifest.classes
    make_learner = build.learner_maker(resolved, len(classes), runtime)
    build.try_network(make_learner(0, 0), resolved, runtime)  # before anything is written
    run.prepare(resume=resume)
    if not resume:
        run.write_config(resolved, method_options)
        data.train.manifest.save(run.manifest)
    _announce(console, resolved, data, feed.loader.cache.why, out)
    events = open_events(run.events)
    display = Display(console, feed.order.steps, data.measured_on, active=runtime.is_first)

    def on_epoch(metrics: EpochMetrics) -> None:
        against = data.measured_on if metrics.accuracy is not None else None
        run.append_metrics(
            {"event": "epoch", **dataclasses.asdict(metrics), "accuracy_against": against}
        )
        events.add_epoch(metrics)
        display.on_epoch(metrics)

    loop = Loop(
        resolved,
        runtime,
        method,
        feed,
        build.build_ledger(feed, method),
        make_learner,
        measure,
        run.checkpoints,
        {"classes": list(classes), "method": resolved.method, "model": resolved.model},
        Listener(run.keep_metrics_before, display.on_step, on_epoch),
    )
    try:
        with display:
            loop.run(resume)
    finally:
        feed.close()
        if measure is not None:
            measure.loader.close()
        events.close()
    write_networks(run, resolved, method, loop.learners, classes)
    unreadable = dict(feed.loader.unreadable)
    if measure is not None and config.val is None:
        unreadable |= measure.loader.unreadable  # held out of the same manifest
    # A resumed run's own manifest may know of images that this part of it did not meet.
    known = Manifest.load(run.manifest) if resume else data.train.manifest
    manifest = known.with_states(unreadable)
    manifest.save(run.manifest)
    write_ledger_table(run.ledger, manifest, loop.ledger, method.judge(loop.history))
    accuracy = loop.last.accuracy if loop.last else None
    result = RunResult(out, accuracy, data.measured_on, time.perf_counter() - started)
    run.write_summary(
        {
            "accuracy": accuracy,
            "accuracy_against": data.measured_on,
            "num_samples": len(data.train.ids),
            "num_unusable": int(np.sum(~manifest.usable)),
            "num_unreadable_measured": len(measure.loader.unreadable) if measure else 0,
            "num_unreadable_clean": len(feed.clean.loader.unreadable) if feed.clean else 0,
            "seconds": round(result.seconds, 1),
            "thresher": __version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "python": platform.python_version(),
        }
    )
    return result


def _finished(run: RunDir) -> RunResult:
    """What a run that has ended came to."""
    summary = json.loads(run.summary.read_text())
    return RunResult(run.path, summary["accuracy"], summary["accuracy_against"], summary["seconds"])


def _announce(
    console: Console, config: ResolvedConfig, data: TrainData, cache: str, out: Path
) -> None:
    """Print what will happen."""
    manifest = data.train.manifest
    left_out = len(manifest) - int(manifest.usable.sum())
    measured = 0 if data.measure is None else len(data.measure.ids)
    console.print(
        f"{len(data.train.ids):,} training images in {len(manifest.classes)} classes"
        + (f", {left_out:,} unusable so far" if left_out else "")
        + (f"; accuracy on {measured:,} images against {data.measured_on}" if measured else "")
        + (f"; {len(data.clean.ids):,} clean images" if data.clean else "")
        + f"; {cache}",
        highlight=False,
        soft_wrap=True,
    )
    shown = yaml.safe_dump(
        dataclasses.asdict(config), sort_keys=False, default_flow_style=True, width=10**6
    )
    console.print(f"configuration {shown.strip()}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"run directory {out}", highlight=False, markup=False, soft_wrap=True)
