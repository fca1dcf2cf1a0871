"""What ``thresher bench step`` and ``train`` found: a table for people, JSON for programs."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from thresher.bench.loop import Timed
from thresher.bench.parts import PARTS
from thresher.bench.work import Work
from thresher.plan.words import size
from thresher.train.bound import bound_by


@dataclass(frozen=True)
class Report:
    """One measurement of the training loop, of the first process.

    Attributes:
        batch_size: images per step, over all processes.
        steps: that were timed.
        images_per_second: over all processes; each image once, however many networks see it.
        ms_per_step: as a run makes them; on a GPU recorded and replayed, recording included.
        ms_in_parts: the same computed one operation after the other, with its parts timed.
        ms_by_part: of ``PARTS``, and what is left of ``ms_in_parts``.
        flops_per_step: of one process.
        peak_flops: FLOP/s that the device reached in large products, of one process.
        share_of_peak: 0 to 1.
        memory_bytes: most that the process (CPU) or PyTorch on its device (GPU) ever held.
        bound_by: what holds training up, and what to change.
    """

    what: str
    network: str
    method: str
    device: str
    precision: str
    threads: int
    processes: int
    image_size: int
    batch_size: int
    steps: int
    images_per_second: float
    ms_per_step: float
    ms_in_parts: float
    ms_by_part: dict[str, float]
    flops_per_step: float
    peak_flops: float
    share_of_peak: float
    memory_bytes: int
    bound_by: str


def report_of(
    what: str, work: Work, timed: Timed, whole: Timed, flops: float, peak: float
) -> Report:
    """Put the figures together.

    Args:
        what: was measured.
        work: that was timed.
        timed: by part.
        whole: as a run has it; the same where nothing is recorded.
        flops: of a step.
        peak: FLOP/s of the device.
    """
    config, runtime = work.config, work.runtime
    per_step = whole.seconds / whole.steps
    in_parts = 1e3 * timed.seconds / timed.steps
    parts = {part: 1e3 * timed.parts[part] / timed.steps for part in PARTS}
    parts["the rest"] = max(0.0, in_parts - sum(parts.values()))
    waits = (timed.parts[part] / timed.seconds for part in ("data wait", "exchange"))
    return Report(
        what=what,
        network=config.model,
        method=config.method,
        device=_name(runtime.device),
        precision=config.precision,
        threads=torch.get_num_threads(),
        processes=runtime.world_size,
        image_size=config.image_size,
        batch_size=config.batch_size,
        steps=whole.steps,
        images_per_second=config.batch_size / per_step,
        ms_per_step=1e3 * per_step,
        ms_in_parts=in_parts,
        ms_by_part=parts,
        flops_per_step=flops,
        peak_flops=peak,
        share_of_peak=flops / per_step / peak,
        memory_bytes=peak_memory(runtime.device),
        bound_by=bound_by(*waits) or "bound by the step",
    )


def peak_memory(device: torch.device) -> int:
    """Most bytes held until now: by PyTorch on a GPU, else by the whole process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def show(report: Report, console: Console) -> None:
    """The table."""
    console.print(
        f"{report.network}, {report.method}, {report.image_size} px, batch {report.batch_size},"
        f" {report.precision}, {report.device}, {report.processes} process(es) of"
        f" {report.threads} threads",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("part of a step")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    for part, ms in report.ms_by_part.items():
        table.add_row(part, f"{ms:.2f}", f"{ms / report.ms_in_parts:.1%}")
    table.add_row("whole", f"{report.ms_in_parts:.2f}")
    if report.ms_per_step != report.ms_in_parts:
        table.add_row("whole, as a run makes it", f"{report.ms_per_step:.2f}")
    console.print(table)
    console.print(
        f"{report.images_per_second:,.0f} images/s over {report.steps} steps;"
        f" {report.share_of_peak:.0%} of {report.peak_flops / 1e9:,.0f} GFLOP/s, measured on large"
        f" products in {report.precision}; memory {size(report.memory_bytes)}; {report.bound_by}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
