"""How much of the labels is wrong, by class and by pair of classes, estimated from the ledger.

All of it follows from one reading of the ledger: a sample with clean probability p is p parts a
sample of its given class and 1 - p parts a sample of another class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thresher.audit.load import Ledger


@dataclass(frozen=True)
class NoiseByClass:
    """Per given class: how many labels it has and how many of them are estimated to be wrong.

    Attributes:
        num_given: int64[C], scored samples that carry the label.
        num_wrong: float64[C], the sum of 1 - clean_probability over them.
    """

    num_given: np.ndarray
    num_wrong: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """float64[C] in 0..1, wrong labels among those given; NaN for a class without samples."""
        out = np.full(len(self.num_given), np.nan)
        np.divide(self.num_wrong, self.num_given, out=out, where=self.num_given > 0)
        return out

    @property
    def total_given(self) -> int:
        """Scored samples in all."""
        return int(self.num_given.sum())

    @property
    def total_wrong(self) -> float:
        """Estimated number of wrong labels in all."""
        return float(self.num_wrong.sum())


def noise_by_class(ledger: Ledger) -> NoiseByClass:
    """Estimate the wrong labels of each given class."""
    num_classes = len(ledger.classes)
    given, wrong = _given_and_wrong(ledger)
    return NoiseByClass(
        num_given=np.bincount(given, minlength=num_classes),
        num_wrong=np.bincount(given, weights=wrong, minlength=num_classes),
    )


def estimate_joint(ledger: Ledger) -> np.ndarray:
    """float64[C, C], expected counts Q[true, given]; needs memory for C × C numbers.

    A sample with clean probability p adds p to (given, given) and 1 - p to (suggested, given).
    Where the suggestion is the given label itself, the ledger doubts the label without naming
    another. That doubt is spread over the other classes in the proportions in which the rest of
    the same given class points away from it, or evenly where nothing points away.

    Confident learning (Northcutt, Jiang and Chuang 2021, JAIR 70, Eq. 3) estimates the same
    joint from hard counts above a threshold per class, and then rescales them so that each given
    class has as many samples as it really has. Here the counts are soft and every sample is
    counted, so the sums over ``true`` are those numbers from the start and nothing is rescaled.
    """
    num_classes = len(ledger.classes)
    given, wrong = _given_and_wrong(ledger)
    suggested = ledger.suggested[ledger.scored]
    points_away = suggested != given
    away = np.zeros((num_classes, num_classes))
    np.add.at(away, (suggested[points_away], given[points_away]), wrong[points_away])
    undirected = np.bincount(
        given[~points_away], weights=wrong[~points_away], minlength=num_classes
    )

    proportions = away.copy()
    directed = proportions.sum(axis=0)
    proportions[:, directed == 0] = 1.0
    np.fill_diagonal(proportions, 0.0)
    totals = proportions.sum(axis=0)
    if num_classes > 1:
        away += proportions / totals * undirected
    joint = away
    joint[np.diag_indices(num_classes)] += np.bincount(
        given, weights=1.0 - wrong, minlength=num_classes
    )
    return joint


def transition_matrix(joint: np.ndarray) -> np.ndarray:
    """float64[C, C], P(given = column | true = row); each row sums to 1.

    The row of a class of which the joint holds no sample is NaN.
    """
    totals = joint.sum(axis=1, keepdims=True)
    out = np.full(joint.shape, np.nan)
    np.divide(joint, totals, out=out, where=totals > 0)
    return out


def _given_and_wrong(ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """Of the scored samples: the given class and the probability that it is wrong."""
    scored = ledger.scored
    clean = np.clip(ledger.clean_probability[scored].astype(np.float64), 0.0, 1.0)
    return ledger.given[scored], 1.0 - clean
