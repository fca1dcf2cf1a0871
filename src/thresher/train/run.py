"""A whole run: open, check, build, train, and leave everything that explains it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections import ChainMap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console

from thresher.config import ResolvedConfig, TrainConfig
from thresher.dist.runtime import Runtime
from thresher.errors import UserError
from thresher.loader.feed import Feed
from thresher.methods import resolve_name
from thresher.methods.base import Method
from thresher.sources.manifest import Manifest
from thresher.sources.notes import notes_of
from thresher.train import build, fit
from thresher.train.check import check
from thresher.train.checkpoint import CheckpointDamagedError
from thresher.train.chronicle import Chronicle
from thresher.train.data import TrainData, open_training_data
from thresher.train.facts import common_facts, versions
from thresher.train.finish import write_ledger_table, write_networks
from thresher.train.interrupt import Interrupted
from thresher.train.learner import MakeLearner
from thresher.train.loop import Loop
from thresher.train.resolve import accelerator_of, best_precision, resolve
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
    """Train as configured and fill the run's directory; the same call on every rank.

    Args:
        config: what to do; ``None`` fields follow from the data.
        method_options: the method's own ``Options``.
        out: the run's directory, on a file system that all ranks see; the first rank's counts.
        resume: go on from the newest checkpoint in ``out``.
        overwrite: replace the run in ``out``.
        console: where progress is shown.

    Raises:
        UserError: any bad input; ``out`` is untouched if nothing was trained.
        Interrupted: asked to stop; a checkpoint was saved first.
        PeersLostError: another rank is gone or stalls.
    """
    started = time.perf_counter()
    config = dataclasses.replace(config, method=resolve_name(config.method))
    check(config)
    precision = config.precision or best_precision(accelerator_of(config.accelerator))
    runtime = Runtime(
        config.accelerator,
        precision,
        placement=config.placement,
        peer_timeout=config.peer_timeout,
    )
    run = RunDir(runtime.broadcast(out))
    lock = run.lock() if runtime.is_first else contextlib.nullcontext()
    console = (console or Console()) if runtime.is_first else Console(quiet=True)
    inputs = (config.data, config.val, config.clean, config.init_weights)
    try:
        with runtime.name_lost_peers(), contextlib.ExitStack() as stack:
            runtime.on_first(lambda: run.check(resume=resume, overwrite=overwrite, inputs=inputs))
            runtime.on_first(lambda: stack.enter_context(lock))
            try:
                result = _train(config, method_options, run, runtime, resume, console, started)
            except Interrupted:  # on all ranks alike
                runtime.close()
                raise
            runtime.close()
            return result
    except UserError as error:
        raise runtime.report(error) from None
    finally:
        runtime.leave()


def _train(
    config: TrainConfig,
    method_options: Any,
    run: RunDir,
    runtime: Runtime,
    resume: bool,
    console: Console,
    started: float,
) -> RunResult:
    """Train once the ranks have met and the directory is theirs."""
    data = runtime.first_then_all(lambda: open_training_data(config))
    facts = build.facts_of(config, data, runtime)
    resolved = resolve(config, facts)
    together = common_facts(resolved, method_options, data, runtime)
    runtime.require_equal({"--resume": resume, **together})
    if config.batch_size == "auto":
        batch = _fitting_batch(resolved, method_options, data, run, runtime, resume)
        resolved = resolve(dataclasses.replace(config, batch_size=batch), facts)
    if resume:
        runtime.on_first(lambda: require_same(run, resolved, method_options, data))
        if runtime.broadcast(runtime.is_first and run.summary.is_file()):
            console.print(f"{run.path} is finished; nothing is left to train.", highlight=False)
            return _finished(run)
    classes = data.train.manifest.classes
    make_learner = build.learner_maker(resolved, len(classes), runtime)

    def make_parts() -> tuple[Method, Feed, build.Measure | None]:
        method = build.build_method(resolved, method_options, data)
        runtime.require_networks(method.networks, resolved.method)
        feed = build.build_feeds(resolved, data, method, runtime, resume=resume)
        measure = build.build_measure(resolved, data, method, runtime)
        build.try_network(make_learner(0, 0), resolved, runtime)
        return method, feed, measure

    method, feed, measure = runtime.settle(make_parts)  # before anything is written

    def begin() -> None:
        run.prepare(resume=resume)
        if not resume:
            data.train.manifest.save(run.manifest)
            run.write_config(resolved, method_options)

    runtime.on_first(begin)
    # Dropout must not be the same on all ranks.
    torch.manual_seed(resolved.seed * 1_000_003 + runtime.rank)
    _announce(console, resolved, data, feed.loader.cache.why, run.path, runtime)
    steps, keeps = feed.order.steps, feed.loader.cache.place != "none"
    with Chronicle(run, console, steps, data.measured_on, keeps, runtime) as chronicle:
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
            chronicle.listener,
        )
        try:
            _run(loop, resume)
            chronicle.finish()
        except (RuntimeError, MemoryError) as error:
            if resolved.compile and isinstance(error, torch._dynamo.exc.TorchDynamoException):
                raise UserError(
                    f"--compile: PyTorch cannot compile {resolved.model} here"
                    f" ({str(error).strip().splitlines()[0]}). Leave it out."
                ) from None
            if not fit.is_out_of_memory(error):
                raise
            attempt = fit.step_of(resolved, method, _alone(resolved, data, runtime), runtime)
            raise fit.explain(error, resolved, attempt, runtime) from None
        finally:
            feed.close()
            if measure is not None:
                measure.loader.close()
    write_networks(run, resolved, method, loop.team, classes, runtime)
    unreadable, unmeasured, unclean = _unreadable(feed, measure, runtime)
    if measure is not None and config.val is None:
        unreadable |= unmeasured  # held out of the same manifest
    # A resumed run's own manifest may know of images that this part of it did not meet.
    known = runtime.on_first(lambda: Manifest.load(run.manifest)) if resume else None
    manifest = (data.train.manifest if known is None else known).with_states(unreadable)
    runtime.on_first(lambda: manifest.save(run.manifest))
    write_ledger_table(run.ledger, manifest, loop.ledger, method.judge(loop.history), runtime)
    accuracy = loop.last.accuracy if loop.last else None
    result = RunResult(run.path, accuracy, data.measured_on, time.perf_counter() - started)
    summary = {
        "accuracy": accuracy,
        "accuracy_against": data.measured_on,
        "num_samples": len(data.train.ids),
        "num_unusable": int(np.sum(~manifest.usable)),
        "num_unreadable_measured": len(unmeasured),
        "num_unreadable_clean": len(unclean),
        "seconds": round(result.seconds, 1),
        "world_size": runtime.world_size,
        "placement": resolved.placement,
        **versions(),
    }
    runtime.on_first(lambda: run.write_summary(summary))
    return result


def _run(loop: Loop, resume: bool) -> None:
    """Train to the end, from the newest checkpoint that all ranks can read."""
    while True:
        try:
            return loop.run(resume)
        except CheckpointDamagedError:  # on all ranks alike; it does not count any more
            continue


def _fitting_batch(
    config: ResolvedConfig,
    method_options: Any,
    data: TrainData,
    run: RunDir,
    runtime: Runtime,
    resume: bool,
) -> int:
    """What ``--batch-size auto`` means; a run that goes on keeps what it found before."""
    if resume:
        saved = runtime.broadcast(runtime.on_first(run.read_config))
        assert saved is not None
        return int(saved["batch_size"])
    method = runtime.settle(lambda: build.build_method(config, method_options, data))
    attempt = fit.step_of(config, method, _alone(config, data, runtime), runtime)
    return fit.find_batch(config, attempt, runtime)


def _alone(config: ResolvedConfig, data: TrainData, runtime: Runtime) -> MakeLearner:
    """Networks that one rank may try by itself: batch statistics would wait for the others."""
    quiet = dataclasses.replace(config, sync_batchnorm=False)
    return build.learner_maker(quiet, len(data.train.manifest.classes), runtime)


def _unreadable(
    feed: Feed, measure: build.Measure | None, runtime: Runtime
) -> tuple[dict[int, str], dict[int, str], dict[int, str]]:
    """Images that any rank could not read: of training, of measuring, of the clean set."""
    own = (
        dict(feed.loader.unreadable),
        dict(measure.loader.unreadable) if measure is not None else {},
        dict(feed.clean.loader.unreadable) if feed.clean is not None else {},
    )
    trained, measured, clean = zip(*runtime.gather(own), strict=True)
    return dict(ChainMap(*trained)), dict(ChainMap(*measured)), dict(ChainMap(*clean))


def _finished(run: RunDir) -> RunResult:
    """What a run that has ended came to."""
    summary = json.loads(run.summary.read_text())
    return RunResult(run.path, summary["accuracy"], summary["accuracy_against"], summary["seconds"])


def _announce(
    console: Console,
    config: ResolvedConfig,
    data: TrainData,
    cache: str,
    out: Path,
    runtime: Runtime,
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
        + f"; {cache}"
        + (f"; {runtime.world_size} processes" if runtime.world_size > 1 else ""),
        highlight=False,
        soft_wrap=True,
    )
    for note in notes_of(manifest):
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    shown = yaml.safe_dump(
        dataclasses.asdict(config), sort_keys=False, default_flow_style=True, width=10**6
    )
    console.print(f"configuration {shown.strip()}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"run directory {out}", highlight=False, markup=False, soft_wrap=True)
