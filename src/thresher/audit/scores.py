"""How well the ledger finds the wrong labels, measured against true labels. For scoring only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from thresher.audit.load import Ledger
from thresher.audit.suspects import SUSPECT_BELOW
from thresher.errors import UserError


@dataclass(frozen=True)
class LabelErrorScores:
    """Detection of label errors. A score that is undefined (nothing to divide by) is NaN.

    Attributes:
        precision: of the labels called wrong, the share that is wrong.
        recall: of the wrong labels, the share that is called wrong.
        auroc: chance that a wrong label has a lower clean probability than a right one;
            equal probabilities count half.
        num_wrong, num_called, num_scored: wrong labels, labels called wrong, labels compared.
    """

    precision: float
    recall: float
    auroc: float
    num_wrong: int
    num_called: int
    num_scored: int


def score_label_errors(
    clean_probability: np.ndarray, is_wrong: np.ndarray, *, below: float = SUSPECT_BELOW
) -> LabelErrorScores:
    """Score float[N] probabilities against bool[N]; a label under ``below`` is called wrong."""
    called = clean_probability < below
    hits = int((called & is_wrong).sum())
    num_wrong, num_called = int(is_wrong.sum()), int(called.sum())
    return LabelErrorScores(
        precision=hits / num_called if num_called else math.nan,
        recall=hits / num_wrong if num_wrong else math.nan,
        auroc=auroc(-clean_probability, is_wrong),
        num_wrong=num_wrong,
        num_called=num_called,
        num_scored=len(is_wrong),
    )


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve by ranks (Mann-Whitney U), ties shared; NaN without both kinds.

    AUROC = (R - P (P + 1) / 2) / (P M), with R the sum of the positives' ranks, P positives and
    M negatives; samples of equal score all take the mean of their ranks.
    """
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if num_positive == 0 or num_negative == 0:
        return math.nan
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_rank[inverse][positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def score_ledger(ledger: Ledger, truth: np.ndarray) -> LabelErrorScores:
    """Score a ledger against ``truth``, int[max id + 1], true class index by id, -1 unknown.

    Raises:
        UserError: the truth does not cover the ledger's ids, or names classes it lacks.
    """
    truth = np.asarray(truth)
    if truth.ndim != 1 or truth.dtype.kind not in "iu":
        raise UserError("The true labels must be a one-dimensional array of integers.")
    if len(truth) <= int(ledger.ids.max()) or int(ledger.ids.min()) < 0:
        raise UserError(
            f"There are {len(truth):,} true labels, but the ledger has ids up to "
            f"{int(ledger.ids.max()):,}. Give one true label per sample of the manifest."
        )
    true = truth[ledger.ids].astype(np.int64)
    if true.max() >= len(ledger.classes) or true.min() < -1:
        raise UserError(
            f"The true labels go from {true.min()} to {true.max()}, "
            f"but the ledger has {len(ledger.classes)} classes."
        )
    rows = ledger.scored & (true >= 0)
    return score_label_errors(ledger.clean_probability[rows], true[rows] != ledger.given[rows])
