"""``thresher scan DATA``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from thresher.config import DataOptions, option
from thresher.options import Parser, values_of
from thresher.scan.copies import NEAR_BITS
from thresher.scan.page import headline, overview
from thresher.scan.pool import Stopped
from thresher.scan.run import ScanResult, scan
from thresher.sources.places import folder_name
from thresher.train.interrupt import StopRequest

_MOST_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class ScanOptions(DataOptions):
    """Options of the command."""

    against: str | None = option(None, "A test set, of which no image should be in DATA.")
    out: str | None = option(None, "Directory for the results; again the same: only news is read.")
    workers: int | None = option(None, "Processes that look at images; one per core.")
    near: int = option(NEAR_BITS, "Bits of 64 in which hashes of the same picture may differ.")


def run(words: Sequence[str]) -> int:
    """Look at every image, write the findings, print a summary."""
    parser = Parser(prog="thresher scan", description="Find out what is wrong with images.")
    parser.add_argument("data", type=str, help="Folder, table, Parquet image data or tars.")
    parser.add_fields(ScanOptions)
    given = parser.parse(words)
    options: ScanOptions = values_of(ScanOptions, given)
    data = given["data"]
    out = Path(options.out) if options.out else _default_out(data)
    console = Console()
    with StopRequest() as request:
        try:
            result = scan(
                data,
                out,
                against=options.against,
                options=options,
                workers=options.workers,
                distance=options.near,
                stop=lambda: request.requested,
                console=console,
            )
        except Stopped:
            print(
                "thresher: stopped. What was seen is saved; the same command goes on from there.",
                file=sys.stderr,
            )
            return 128 + request.signal
    _print(result, console)
    return 0


def _print(result: ScanResult, console: Console) -> None:
    findings = result.findings
    table = Table("finding", "groups", "images", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for _, title, _, groups, images in overview(findings):
        table.add_row(title, f"{groups:,}" if groups != images else "", f"{images:,}")
    table.add_row("Refused files (pickles)", "", f"{len(findings.refused):,}")
    console.print(headline(findings), highlight=False, soft_wrap=True, markup=False)
    console.print(table)
    rate = result.touched / max(result.looking_seconds, 1e-9)
    lines = [
        *_unreadable(findings.reasons),
        *findings.notes,
        f"looked at {result.touched:,} images, {rate:,.0f} a second",
        f"page {result.page}",
        f"manifest {result.manifest}",
        f"lists {result.lists}",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)


def _unreadable(reasons: dict[str, int]) -> list[str]:
    """The most frequent reasons in a line; the rest is on the page."""
    some = [f"{reason} ({count:,})" for reason, count in list(reasons.items())[:_MOST_REASONS]]
    more = ["..."] if len(reasons) > len(some) else []
    return [f"Unreadable: {', '.join(some + more)}"] if some else []


def _default_out(data: str) -> Path:
    """Always the same for the same data, so that a second scan finds the first."""
    return Path("scans") / folder_name(data)
