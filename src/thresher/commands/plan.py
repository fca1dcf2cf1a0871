"""``thresher plan``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from thresher.config import option
from thresher.errors import UserError, unknown_name
from thresher.files import write_atomically
from thresher.options import Parser, values_of
from thresher.plan.advice import advice
from thresher.plan.link import Link
from thresher.plan.link_file import load_link
from thresher.plan.predict import Job, Placement, Prediction, predict
from thresher.plan.presets import LINKS
from thresher.plan.profile import Profile
from thresher.plan.published import PROFILES
from thresher.plan.words import count, duration, node_counts, size, whole


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options of the command."""

    profile: str | None = option(
        None, f"What thresher bench profile wrote, or one of: {', '.join(PROFILES)}."
    )
    link: str = option("ethernet-25g", f"A YAML file, or one of: {', '.join(LINKS)}.")
    nodes: str = option("1..64", "Range (1..4096, by powers of two) or list (1,2,8).")
    processes_per_node: int = option(1, "Processes of a node.")
    images: str = option("1M", "Training images; k, M and G are thousands, millions, billions.")
    epochs: int = option(1, "Passes over the images.")
    batch_size: str | None = option(None, "Images per step, over all processes (strong scaling).")
    batch_per_process: int | None = option(
        None, "Images per step and process (weak scaling); without either, the profile's."
    )
    placement: Placement = option("together", "together: all networks everywhere; apart: halves.")
    algorithm: str = option("auto", "ring, halving-doubling, doubling, hierarchical or auto.")
    overlap: bool = option(True, "Exchange gradients while the backward runs.")
    decode_cores: int = option(1, "Cores per process that decode beside an accelerator.")
    cached: bool = option(False, "Images come decoded from memory, as after the first epoch.")
    storage: str | None = option(None, "Bytes/s that all nodes together read from storage: 5G.")
    cores_per_node: int | None = option(
        None, "Cores of a node that its processes share; left open, as many as they want."
    )
    memory: str | None = option(None, "Bytes that there are per process: 80G.")
    variation: float | None = option(
        None, "Standard deviation of a step's time over its mean, for stragglers."
    )
    json: str | None = option(None, "Also write the figures to this JSON file.")


def run(words: Sequence[str]) -> int:
    """Print a line per number of nodes, and what holds the training up."""
    parser = Parser(
        prog="thresher plan",
        description="Predict time, efficiency, memory and bottleneck on many nodes from a measured"
        " profile and a description of the network. Of the table: 'waits' is how long a step"
        " waits for the exchange, 'effic.' the images/s over those of as many processes that need"
        " nobody, 'run' all epochs, 'memory' of one process ('!' where that is more than there is),"
        " 'storage/s' what all nodes read. docs/scaling.md has the model.",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    parser.add_fields(PlanOptions)
    options: PlanOptions = values_of(PlanOptions, parser.parse(words))
    profile = _profile(options.profile)
    link = load_link(options.link)
    job = _job(options, profile)
    found = [predict(profile, link, job, nodes) for nodes in node_counts(options.nodes)]
    _print(found, profile, link, job)
    if options.json:
        figures = {
            "profile": dataclasses.asdict(profile),
            "link": dataclasses.asdict(link),
            "job": dataclasses.asdict(job),
            "predictions": [dataclasses.asdict(one) for one in found],
        }
        with write_atomically(Path(options.json)) as temporary:
            temporary.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    return 0


def _profile(name: str | None) -> Profile:
    if name is None:
        raise UserError(
            "--profile is missing. Measure one with 'thresher bench profile --out profile.json', or"
            f" take a published one: {', '.join(PROFILES)}."
        )
    if name in PROFILES:
        return PROFILES[name]
    if not Path(name).exists() and not Path(name).suffix:
        raise unknown_name("profile", name, PROFILES)
    return Profile.load(Path(name))


def _job(options: PlanOptions, profile: Profile) -> Job:
    if options.batch_size is not None and options.batch_per_process is not None:
        raise UserError("Give either --batch-size or --batch-per-process, not both.")
    per_process = options.batch_per_process
    if options.batch_size is None and per_process is None:
        per_process = profile.batch
    return Job(
        images=whole(options.images, "images"),
        epochs=options.epochs,
        batch=None if options.batch_size is None else whole(options.batch_size, "batch-size"),
        batch_per_process=per_process,
        processes_per_node=options.processes_per_node,
        placement=options.placement,
        algorithm=options.algorithm,
        overlap=options.overlap,
        decode_cores=options.decode_cores,
        cached=options.cached,
        storage=None if options.storage is None else count(options.storage, "storage"),
        cores_per_node=options.cores_per_node,
        memory=None if options.memory is None else count(options.memory, "memory"),
        variation=options.variation,
    )


def _print(found: Sequence[Prediction], profile: Profile, link: Link, job: Job) -> None:
    console = Console()
    networks = "two networks" if profile.networks == 2 else "one network"
    per_step = (
        f"{job.batch:,} images per step"
        if job.batch is not None
        else f"{job.batch_per_process:,} images per step and process"
    )
    console.print(
        f"{profile.network}, {profile.method}, {networks} of {profile.parameters:,} parameters on"
        f" {profile.hardware}; link {link.name}; {job.images:,} images, {job.epochs}"
        f" epoch{'s' * (job.epochs > 1)}, {per_step}",
        highlight=False,
        markup=False,
    )
    # Narrow enough for 80 columns; the JSON has every figure.
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("nodes", "step", "waits", "images/s", "effic.", "run", "memory", "storage/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bottleneck", no_wrap=True)
    for one in found:
        table.add_row(
            f"{one.nodes:,}",
            duration(one.step),
            duration(one.exposed),
            f"{one.images_per_second:,.0f}",
            f"{one.efficiency:.1%}",
            duration(one.run),
            size(one.memory) + ("!" if one.fits is False else ""),
            size(one.storage_rate),
            one.bottleneck,
        )
    console.print(table)
    console.print(advice(found, job, profile), highlight=False, markup=False)
