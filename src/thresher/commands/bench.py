"""``thresher bench WORD``: measure this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from thresher.commands import bench_loop
from thresher.config import Precision, option
from thresher.errors import UserError, unknown_name
from thresher.options import Parser, values_of
from thresher.plan.link_file import save_link
from thresher.plan.profile import Profile
from thresher.plan.words import size

_UNSTEADY = 0.05
"""Variation of a step's time from which we advise to measure again; chosen, not derived."""


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """Options of ``thresher bench profile``."""

    out: str = option("profile.json", "Where to write the profile.")
    model: str = option("resnet50", "small_cnn, small_resnet, or any timm network.")
    method: str = option("mct", "How to train: mct, ce, or another file of methods/.")
    batch_size: int = option(32, "Largest number of images per step of this process.")
    image_size: int | None = option(None, "Side in pixels; left open, the network's own.")
    classes: int = option(1000, "Number of classes.")
    optimizer: str = option("sgd", "sgd, adamw, or any of timm's optimizers.")
    precision: Precision | None = option(None, "fp32 or bf16 (autocast).")
    accelerator: str = option("auto", "cpu, cuda, mps or auto.")
    threads: int | None = option(None, "CPU cores that the process computes with.")
    data: str | None = option(None, "Images to decode; left open, made ones.")
    repeats: int = option(5, "How often each step is timed.")


@dataclass(frozen=True, kw_only=True)
class LinkOptions:
    """Options of ``thresher bench link``."""

    out: str = option("link.yaml", "Where to write the description.")
    processes: int = option(1, "Start so many on this machine; 1: a launcher did.")
    accelerator: str = option("auto", "cpu, cuda or auto.")
    repeats: int = option(20, "How often each sum is timed.")


def run(words: Sequence[str]) -> int:
    """Measure what the first word says."""
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        if not words:
            return 0
        raise SystemExit(0)
    if words[0] not in WORDS:
        raise unknown_name("measurement", words[0], WORDS)
    return WORDS[words[0]][1](words[1:])


def profile(words: Sequence[str]) -> int:
    """Measure one process and write its profile for ``thresher plan``."""
    parser = Parser(
        prog="thresher bench profile",
        description="Measure what one process does and needs on this machine, for thresher plan."
        " Let nothing else run meanwhile.",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    parser.add_fields(ProfileOptions)
    options: ProfileOptions = values_of(ProfileOptions, parser.parse(words))
    found = _measure(options)
    found.save(Path(options.out))
    _show(found)
    if found.variation > _UNSTEADY:
        print(
            f"Step times vary by {found.variation:.0%}: something else was running. Measure again"
            " on a quiet machine before you trust this profile."
        )
    print(f"profile {options.out}; next: thresher plan --profile {options.out}")
    return 0


def _measure(options: ProfileOptions) -> Profile:
    import timm
    import torch

    from thresher.bench.profile import measure_profile
    from thresher.bench.step import Setting
    from thresher.methods import resolve_name
    from thresher.models.factory import SMALL_IMAGE_LIMIT, check_model_name, data_config
    from thresher.train.resolve import accelerator_of, best_precision

    for name in ("batch_size", "image_size", "classes", "threads", "repeats"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
    check_model_name(options.model)
    if options.optimizer not in timm.optim.list_optimizers():
        raise unknown_name("optimizer", options.optimizer, timm.optim.list_optimizers())
    if options.accelerator not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"--accelerator {options.accelerator}: choose cpu, cuda, mps or auto.")
    device = torch.device(accelerator_of(options.accelerator))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--accelerator cuda: PyTorch finds no CUDA device on this machine.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("--accelerator mps: PyTorch finds no such device on this machine.")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    precision = options.precision or best_precision(device.type)
    image_size = options.image_size or int(data_config(options.model)["input_size"][-1])
    setting = Setting(
        model=options.model,
        method=resolve_name(options.method),
        optimizer=options.optimizer,
        num_classes=options.classes,
        image_size=image_size,
        small=image_size <= SMALL_IMAGE_LIMIT,
        device=device,
        precision=torch.bfloat16 if precision == "bf16" else None,
    )
    console = Console(stderr=True)
    with console.status("measuring") as status:
        return measure_profile(
            setting,
            options.batch_size,
            repeats=options.repeats,
            data=options.data,
            report=lambda what: status.update(f"measuring: {what}"),
        )


def _show(found: Profile) -> None:
    console = Console()
    networks = "two networks" if found.networks == 2 else "one network"
    console.print(
        f"{found.network}, {found.method}, {networks} of {found.parameters:,} parameters on"
        f" {found.hardware}",
        highlight=False,
        markup=False,
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("piece of a step")
    for name in (f"ms at {found.batch} images", "ms per step", "ms per image"):
        table.add_column(name, justify="right")
    whole = 0.0
    for name in ("augment", "ledger", "forward", "backward", "update"):
        line = getattr(found, name)
        whole += line(found.batch)
        table.add_row(
            name,
            f"{1e3 * line(found.batch):.2f}",
            f"{1e3 * line.intercept:.2f}",
            f"{1e3 * line.slope:.3f}",
        )
    table.add_row("whole", f"{1e3 * whole:.2f}")
    console.print(table)
    console.print(
        f"{found.batch / whole:,.1f} images/s; step times vary by {found.variation:.1%}; one core"
        f" decodes {found.decode_rate:,.0f} images/s of {size(found.image_bytes)}, serves"
        f" {found.cached_rate:,.0f} from memory\ngradients {size(found.gradient_bytes)} per"
        f" network; memory: weights {size(found.weight_bytes)}, optimizers"
        f" {size(found.optimizer_bytes)}, {size(found.activation_bytes)} per image,"
        f" {found.ledger_bytes:.0f} bytes per sample{_of_neighbours(found)}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def _of_neighbours(found: Profile) -> str:
    """What several processes on this machine cost each other, where that was measured."""

    def percent(factors: Sequence[tuple[float, float]]) -> str:
        longer = [factor - 1 for _, factor in factors]
        return f"{min(longer):.0%} to {max(longer):.0%} longer"

    told = []
    if found.exchange_seconds:
        told.append(f"an exchange {1e3 * found.exchange_seconds:.1f} ms before a byte travels")
    if found.message_seconds:
        told.append(
            f"each of its messages {1e3 * found.message_seconds:.2f} ms,"
            f" {1e3 * found.crowded_message_seconds:.2f} where processes share cores"
        )
    if found.beside:
        told.append(f"beside a process with cores of its own steps take {percent(found.beside)}")
    if found.turns:
        told.append(f"by turns on the same cores {percent(found.turns)}")
    return f"\nseveral processes: {'; '.join(told)}" if told else ""


def link(words: Sequence[str]) -> int:
    """Measure the link between processes and write its description for ``thresher plan``."""
    parser = Parser(
        prog="thresher bench link",
        description="Measure the link between processes of this machine (--processes 2), or between"
        " those that torchrun, mpirun or srun started, for thresher plan.",
    )
    parser.add_fields(LinkOptions)
    options: LinkOptions = values_of(LinkOptions, parser.parse(words))
    for name in ("processes", "repeats"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}; it must be at least 1.")
    if options.processes > 1:
        from thresher.dist.launch import launch

        own = ["--out", options.out, "--accelerator", options.accelerator]
        return launch(["bench", "link", *own, "--repeats", str(options.repeats)],
                      options.processes, 0)  # fmt: skip
    from thresher.bench.link import describe, measure
    from thresher.dist.runtime import Runtime

    runtime = Runtime(options.accelerator, "fp32")
    try:
        found = runtime.gather(measure(runtime, options.repeats))
    finally:
        runtime.close()
    if runtime.is_first:
        path, count = Path(options.out), runtime.world_size
        told = f"thresher bench link: {count} processes on {runtime.device.type}, sums of up to"
        made = describe(path.stem, count, found, f"{told} {size(found[0].sizes[-1])}")
        save_link(made, path)
        level = made.levels[0]
        print(
            f"latency {level.latency * 1e6:.1f} us, bandwidth {size(level.bandwidth)}/s,"
            f" {made.host_seconds_per_byte * 1e9:.3f} ns taken from work on the same cores per"
            f" byte\nlink {path}; next: thresher plan --link {path}"
        )
    return 0


WORDS: dict[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "step": (
        "training steps on images in memory: images/s, and where the time goes",
        bench_loop.step,
    ),
    "loader": ("images/s of reading, decoding and augmenting alone", bench_loop.loader),
    "train": ("the first steps of a real training, part by part", bench_loop.train),
    "profile": ("one process's step, memory and decoding, for thresher plan", profile),
    "link": ("what processes can tell each other per second, for thresher plan", link),
}
"""What can be measured: a line for the help, and who does it."""


def _help() -> str:
    lines = [f"  {name:<10}{text}" for name, (text, _) in WORDS.items()]
    return "\n".join(
        [
            "usage: thresher bench MEASUREMENT ...",
            "",
            "Measure this machine.",
            "",
            "measurements:",
            *lines,
            "",
            "thresher bench MEASUREMENT --help explains one.",
        ]
    )
