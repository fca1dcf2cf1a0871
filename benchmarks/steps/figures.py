"""From the rounds of a case to ratios, a table and lines of a file."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from steps.cases import Case
from steps.pairs import Pairs
from steps.spent import Spent

Found = dict[str, list[Spent]]
OURS, BARE = "Thresher", "bare step"
OURS_COMPILED = "Thresher, --compile"
MCT, MCT_1 = "Thresher, mct", "Thresher, mct with one view"
MCT_COMPILED = "Thresher, mct, --compile"
FP32, BF16, COMPILED = "PyTorch, fp32", "PyTorch, bf16", "PyTorch, bf16, compiled"
TIMM, TIMM_PARTS, NOISYPY = "timm's train.py", "a step from timm's parts", "noisypy, fp32"


class Record:
    """Writes every figure as it comes, so that a stopped comparison leaves what it has."""

    def __init__(self, out: Path | None, around: dict[str, Any]) -> None:
        self._out = out
        if out is not None:
            out.write_text(json.dumps(around) + "\n")

    def add(self, case: Case, turn: int, side: str, spent: Spent) -> None:
        if self._out is None:
            return
        line = {"case": case.name, "round": turn, "side": side, **dataclasses.asdict(spent)}
        with self._out.open("a") as lines:
            lines.write(json.dumps(line) + "\n")


def ratios(batch: int, found: Found, pairs: Pairs) -> dict[str, Any]:
    """By the clock; of the processor's time too, for the sides that tell it."""
    timm = TIMM if TIMM in found else TIMM_PARTS
    return {
        "vs_plain": over(found, FP32, OURS),
        "vs_plain_bf16": over(found, BF16, OURS),
        "vs_plain_compiled": over(found, COMPILED, OURS),
        "vs_timm": over(found, timm, OURS),
        "vs_timm_is": timm if timm in found else None,
        "vs_timm_parts": over(found, TIMM_PARTS, OURS),
        "vs_noisypy": over(found, NOISYPY, OURS),
        "mct_over_ce": over(found, MCT, OURS),
        "mct_views_1_over_ce": over(found, MCT_1, OURS),
        "compile_gains": over(found, OURS, OURS_COMPILED),
        "mct_over_ce_compiled": over(found, MCT_COMPILED, OURS_COMPILED),
        "images_per_second": {
            name: round(batch / statistics.median(one.wall for one in spent))
            for name, spent in found.items()
        },
        **pairs.summary("wall"),
        "cpu": {
            "vs_plain": over(found, FP32, OURS, cpu=True),
            "mct_over_ce": over(found, MCT, OURS, cpu=True),
            "mct_views_1_over_ce": over(found, MCT_1, OURS, cpu=True),
            **pairs.summary("cpu"),
        },
    }


def over(found: Found, one: str, other: str, *, cpu: bool = False) -> float | None:
    """The median over the rounds of the ratios within each."""
    if one not in found or other not in found:
        return None
    pairs = zip(found[one], found[other], strict=True)
    values = [(a.cpu, b.cpu) if cpu else (a.wall, b.wall) for a, b in pairs]
    return round(statistics.median(a / b for a, b in values if a and b), 4)


def show(case: Case, found: Found, absent: list[str]) -> None:
    table = Table("side", "ms per step", "from", "to", "images/s", "CPU ms", box=None)
    for name, spent in found.items():
        walls = [one.wall for one in spent]
        middle = statistics.median(walls)
        shown = (f"{1e3 * value:.1f}" for value in (middle, min(walls), max(walls)))
        cpus = [one.cpu for one in spent if one.cpu is not None]
        cpu = f"{1e3 * statistics.median(cpus):.1f}" if cpus else "–"
        table.add_row(name, *shown, f"{case.batch / middle:,.0f}", cpu)
    title = f"{case.name}: {case.model}, {case.pixels} px, batch {case.batch}"
    Console(soft_wrap=True).print(title, table, *absent, sep="\n", highlight=False, markup=False)
