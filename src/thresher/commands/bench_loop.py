"""``thresher bench step|loader|train``: how fast training is here, and where its time goes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from thresher.config import Augment, Cache, DataOptions, Decoder, Precision, TrainConfig, option
from thresher.errors import UserError
from thresher.files import write_atomically
from thresher.options import Parser, values_of

if TYPE_CHECKING:
    from thresher.bench.work import Work
    from thresher.dist.runtime import Runtime

_PHASES = 5
"""Epochs of a made training: a method may do more in some than in others."""


@dataclass(frozen=True, kw_only=True)
class _Training:
    """What is trained."""

    method: str = option("mct", "How to train: mct, ce, or another file of methods/.")
    model: str | None = option(None, "small_cnn, small_resnet, or any timm network.")
    batch_size: int | None = option(None, "Samples per step, over all processes.")
    image_size: int | None = option(None, "Side in pixels that the network sees.")
    optimizer: str | None = option(None, "sgd, adamw, or any of timm's optimizers.")
    precision: Precision | None = option(None, "fp32 or bf16 (autocast).")
    accelerator: str = option("auto", "cpu, cuda, mps or auto.")
    capture: bool = option(True, "Record training steps on a GPU and replay them.")
    compile: bool = option(False, "Compile networks first (torch.compile).")


@dataclass(frozen=True, kw_only=True)
class _Counting:
    steps: int = option(50, "Steps that are timed.")
    skip: int = option(5, "Steps before, that are not.")
    json: str | None = option(None, "Write the figures to this file, too.")


@dataclass(frozen=True, kw_only=True)
class StepOptions(_Training, _Counting):
    """Options of ``thresher bench step``."""

    classes: int = option(10, "Number of classes.")


@dataclass(frozen=True, kw_only=True)
class _Reading(DataOptions):
    threads: int | None = option(None, "Threads that decode images, per process.")
    decoder: Decoder = option(
        "auto", "Those threads decode, all of them, or each in a process; auto: by a trial."
    )
    cache: Cache = option("auto", "Keep decoded images: none, host, device (a GPU), or auto.")
    augment: Augment | None = option(None, "small: shift and flip; photo: random crops and flip.")
    accumulate: int = option(1, "Parts that a batch is computed in, one after the other.")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(_Training, _Reading, _Counting):
    """Options of ``thresher bench train``."""

    steps: int = option(200, "Steps that are timed.")


@dataclass(frozen=True, kw_only=True)
class LoaderOptions(_Training, _Reading):
    """Options of ``thresher bench loader``."""

    json: str | None = option(None, "Write the figures to this file, too.")


def step(words: Sequence[str]) -> int:
    """Time training steps on images that lie in memory."""
    parser = _parser("step", "Time training steps on made images that lie in memory: the network,"
                     " the method and the loop, without any reading.")  # fmt: skip
    parser.add_fields(StepOptions)
    options: StepOptions = values_of(StepOptions, parser.parse(words))
    _at_least(1, options, "steps", "skip", "classes")

    def make(runtime: Runtime, method_options: Any) -> Work:
        from thresher.bench.work import on_made_images
        from thresher.models.factory import SMALL_IMAGE_LIMIT, data_config

        config = _config(options)
        side = config.image_size or (
            32 if config.model is None else int(data_config(config.model)["input_size"][-1])
        )
        batch = config.batch_size or (128 if side <= SMALL_IMAGE_LIMIT else 32)
        config = dataclasses.replace(
            config, image_size=side, batch_size=batch, epochs=_PHASES,
            precision=_precision(options),
        )  # fmt: skip
        steps = -(-(options.steps + options.skip) // _PHASES)
        return on_made_images(config, method_options, runtime, options.classes, steps)

    return _time("step", options, make)


def train(words: Sequence[str]) -> int:
    """Time the first steps of a real training."""
    parser = _parser("train", "Time the first steps of a training as thresher train would do it,"
                     " part by part; nothing is written.")  # fmt: skip
    parser.add_argument("DATA", type=str, help="The training images.")
    parser.add_fields(TrainOptions)
    given = parser.parse(words)
    options: TrainOptions = values_of(TrainOptions, given)
    _at_least(1, options, "steps", "skip")

    def make(runtime: Runtime, method_options: Any) -> Work:
        from thresher.bench.work import on_images

        # As many epochs as the steps need, which for a small collection are many.
        config = _config(options, data=given["DATA"], precision=_precision(options))
        work = on_images(config, method_options, runtime)
        needed = -(-(options.steps + options.skip) // work.feed.order.steps)
        if needed <= work.config.epochs:
            return work
        work.feed.close()
        return on_images(dataclasses.replace(config, epochs=needed), method_options, runtime)

    return _time("train", options, make)


def loader(words: Sequence[str]) -> int:
    """Time reading, decoding and augmenting alone."""
    parser = _parser("loader", "Time reading, decoding and augmenting without training: an epoch"
                     " from the files, and one from the cache.")  # fmt: skip
    parser.add_argument("DATA", type=str, help="The images.")
    parser.add_fields(LoaderOptions)
    given = parser.parse(words)
    options: LoaderOptions = values_of(LoaderOptions, given)
    with _runtime(options) as (runtime, method_options):
        from thresher.bench.loading import measure
        from thresher.bench.work import on_images

        config = _config(options, data=given["DATA"], precision=_precision(options))
        work = on_images(config, method_options, runtime)
        try:
            found = measure(work)
        finally:
            work.feed.close()
        if runtime.is_first:
            print(found.sentence())
            _write(found, options.json)
    return 0


def _time(what: str, options: Any, make: Callable[[Runtime, Any], Work]) -> int:
    with _runtime(options) as (runtime, method_options):
        from thresher.bench.loop import time_loop
        from thresher.bench.peak import flops_per_step, measured_peak
        from thresher.bench.report import report_of, show
        from thresher.train.interrupt import Interrupted

        work = make(runtime, method_options)
        try:
            peak = measured_peak(runtime.device, work.config.precision)
            flops = flops_per_step(work)
            timed = whole = time_loop(work, options.steps, options.skip, by_part=True)
            if runtime.device.type == "cuda":
                whole = time_loop(work, options.steps, options.skip, by_part=False)
        except Interrupted as stop:
            return 128 + stop.signal
        finally:
            work.feed.close()
        if runtime.is_first:
            report = report_of(what, work, timed, whole, flops, peak)
            show(report, Console())
            _write(report, options.json)
    return 0


@contextmanager
def _runtime(options: Any) -> Iterator[tuple[Runtime, Any]]:
    """This process's place, and the method's own options as they are by default."""
    from thresher.dist.runtime import Runtime
    from thresher.methods import all_methods, resolve_name
    from thresher.train.check import check

    config = _config(options)
    check(config)
    runtime = Runtime(config.accelerator, _precision(options))
    try:
        yield runtime, all_methods()[resolve_name(config.method)].Options()
    finally:
        runtime.close()


def _config(options: Any, **more: Any) -> TrainConfig:
    """The run's configuration from options of the same names."""
    from thresher.methods import resolve_name

    names = {field.name for field in dataclasses.fields(TrainConfig)}
    same = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    chosen = {name: value for name, value in same.items() if name in names}
    return TrainConfig(**{**chosen, "method": resolve_name(options.method), **more})


def _precision(options: Any) -> Precision:
    from thresher.train.resolve import accelerator_of, best_precision

    chosen: Precision | None = options.precision
    return chosen or best_precision(accelerator_of(options.accelerator))


def _parser(word: str, description: str) -> Parser:
    parser = Parser(prog=f"thresher bench {word}", description=description)
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    return parser


def _at_least(least: int, options: Any, *names: str) -> None:
    for name in names:
        if getattr(options, name) < least:
            raise UserError(f"--{name} is {getattr(options, name)}; it must be at least {least}.")


def _write(report: Any, path: str | None) -> None:
    if path is not None:
        with write_atomically(Path(path)) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(report), indent=1) + "\n")
