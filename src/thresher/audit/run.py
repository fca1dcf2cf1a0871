"""The audit of a finished run: suspects, report and the numbers worth printing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thresher.audit.load import load_run
from thresher.audit.noise import noise_by_class
from thresher.audit.report import render_report
from thresher.audit.scores import LabelErrorScores, score_ledger
from thresher.audit.suspects import rank_rows, suspects_table, write_suspects
from thresher.errors import UserError
from thresher.files import write_atomically


@dataclass(frozen=True)
class AuditResult:
    """What an audit found and where it wrote it.

    Attributes:
        num_labels: training labels that were judged.
        num_unreadable: training images that could not be decoded and have no judgement.
        num_suspects: labels more likely wrong than right, all of them in the suspects files.
        estimated_wrong: expected number of wrong labels, the sum of 1 - clean_probability.
        estimated_share: ``estimated_wrong`` among ``num_labels``, 0..1.
        scores: how well the wrong labels were found, where the truth was given.
    """

    num_labels: int
    num_unreadable: int
    num_suspects: int
    estimated_wrong: float
    estimated_share: float
    report: Path
    suspects_csv: Path
    suspects_parquet: Path
    scores: LabelErrorScores | None = None


def audit(
    run: Path,
    *,
    read: Callable[[int], bytes] | None = None,
    truth: np.ndarray | None = None,
    per_class: int = 12,
) -> AuditResult:
    """Write ``report.html``, ``suspects.csv`` and ``suspects.parquet`` into the run directory.

    Args:
        run: the directory that training wrote.
        read: gives the bytes of the image with this id; without it the report has no pictures.
        truth: int[N], true class indices by id, -1 where unknown. For scoring only.
        per_class: how many suspect images to show of each class.

    Raises:
        UserError: no such run, an unfinished or damaged one, or no right or space to write.
    """
    if per_class < 0:
        raise UserError(f"The number of images per class must be 0 or more, not {per_class}.")
    loaded = load_run(Path(run))
    ledger = loaded.ledger
    noise = noise_by_class(ledger)
    ranked = rank_rows(ledger)
    scores = None if truth is None else score_ledger(ledger, truth)
    # Everything is computed before anything is written, so that a failure leaves old files whole.
    page = render_report(loaded, read=read, scores=scores, per_class=per_class)
    csv, parquet = write_suspects(suspects_table(ledger, ranked), loaded.path)
    report = loaded.path / "report.html"
    with write_atomically(report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return AuditResult(
        num_labels=noise.total_given,
        num_unreadable=int((~ledger.readable).sum()),
        num_suspects=len(ranked),
        estimated_wrong=noise.total_wrong,
        estimated_share=noise.total_wrong / noise.total_given,
        report=report,
        suspects_csv=csv,
        suspects_parquet=parquet,
        scores=scores,
    )
