"""``thresher audit RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from thresher.audit.load import load_run
from thresher.audit.run import audit
from thresher.audit.suspects import confusions, rank_rows
from thresher.config import option
from thresher.options import Parser, values_of
from thresher.sources.manifest import Manifest
from thresher.sources.read import Reader
from thresher.train.run_dir import RunDir

_MOST_SHOWN = 10


@dataclass(frozen=True)
class AuditOptions:
    """Options of the command."""

    per_class: int = option(12, "Suspect images shown per class in the report.")


def run(words: Sequence[str]) -> int:
    """Write the report and the list of suspects; print the commonest confusions."""
    parser = Parser(prog="thresher audit", description="Show the labels a run does not believe.")
    parser.add_argument("run", type=str, help="Directory of a finished run.")
    parser.add_fields(AuditOptions)
    given = parser.parse(words)
    path = Path(given["run"])
    loaded = load_run(path)
    reader = Reader(Manifest.load(RunDir(path).manifest))
    found = audit(path, read=reader.read, per_class=values_of(AuditOptions, given).per_class)
    reader.close()

    console = Console()
    table = Table("given label", "suggested", "images", box=None)
    for confusion in confusions(loaded.ledger, rank_rows(loaded.ledger))[:_MOST_SHOWN]:
        names = (loaded.ledger.classes[i] for i in (confusion.given, confusion.suggested))
        table.add_row(*(name.replace("[", r"\[") for name in names), f"{confusion.count:,}")
    console.print(table)
    console.print(
        f"labels not believed: {found.num_suspects:,} of {found.num_labels:,}; estimated wrong:"
        f" {found.estimated_share:.1%}\nreport {found.report}\nsuspects {found.suspects_csv}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    return 0
