"""The report: one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np

from thresher.audit import gallery, heatmap, training, words
from thresher.audit.load import Ledger, Run
from thresher.audit.noise import NoiseByClass, estimate_joint, noise_by_class, transition_matrix
from thresher.audit.scores import LabelErrorScores
from thresher.audit.suspects import Confusion, confusions, rank_rows, rows_per_class

MAX_BARS = 1000
OPEN_BARS = 40
MAX_CONFUSIONS = 15
MAX_REASONS = 20
MAX_KEYS_PER_REASON = 12
_SCALES = (0.1, 0.2, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Bar:
    """Estimated noise of one class; ``width`` is in per cent of the full bar."""

    class_index: int
    name: str
    num_given: int
    num_wrong: float
    share: float
    width: float


def render_report(
    run: Run,
    *,
    read: Callable[[int], bytes] | None,
    scores: LabelErrorScores | None,
    per_class: int,
) -> str:
    """Return the whole report as HTML."""
    ledger = run.ledger
    noise = noise_by_class(ledger)
    ranked = rank_rows(ledger)
    order = noisiest_first(noise)
    galleries = gallery.sections(ledger, rows_per_class(ledger, ranked, per_class), order, read)
    pairs = confusions(ledger, ranked)
    bars, scale = noise_bars(ledger, noise, order)
    suspects = np.bincount(ledger.given[ranked], minlength=len(ledger.classes))
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            headline=headline(noise),
            noise=noise,
            num_suspects=len(ranked),
            num_unscored=int((ledger.readable & ~ledger.scored).sum()),
            scores=scores,
            name=run.path.resolve().name,
            facts=training.facts(run),
            other_settings=training.other_settings(run),
            final=training.final_accuracy(run.epochs),
            charts=training.curves(run.epochs),
            epoch_rows=training.epoch_rows(run.epochs),
            bars=bars,
            open_bars=OPEN_BARS,
            scale=scale,
            num_classes=len(ledger.classes),
            confusions=_confusion_rows(ledger, pairs, noise),
            num_pairs=len(pairs),
            galleries=galleries,
            gallery_classes={section.class_index for section in galleries},
            num_suspect_classes=int((suspects > 0).sum()),
            suspects_by_class=suspects,
            unreadable=_unreadable(ledger),
            num_unreadable=int((~ledger.readable).sum()),
            **_matrix(ledger),
        )
    )


def headline(noise: NoiseByClass) -> str:
    """The main finding in one plain sentence."""
    total = words.plural(noise.total_given, "training label")
    wrong = noise.total_wrong
    if wrong < 0.5:
        return f"Thresher believes all {total}."
    share = words.percent(wrong / noise.total_given)
    return f"Of {total} Thresher does not believe about {words.about(wrong)} ({share})."


def noisiest_first(noise: NoiseByClass) -> list[int]:
    """Classes with samples by estimated share of wrong labels, the highest first."""
    share = np.nan_to_num(noise.share, nan=-1.0)
    order = np.lexsort((-noise.num_given, -share))
    return [int(c) for c in order if noise.num_given[c]]


def noise_bars(ledger: Ledger, noise: NoiseByClass, order: list[int]) -> tuple[list[Bar], float]:
    """Bars of the noisiest classes, and the share that a full bar stands for."""
    share = noise.share
    highest = float(share[order[0]])
    scale = next((s for s in _SCALES if highest <= s), 1.0)
    bars = [
        Bar(
            class_index=c,
            name=ledger.classes[c],
            num_given=int(noise.num_given[c]),
            num_wrong=float(noise.num_wrong[c]),
            share=float(share[c]),
            width=round(100 * float(share[c]) / scale, 1),
        )
        for c in order[:MAX_BARS]
    ]
    return bars, scale


def _confusion_rows(
    ledger: Ledger, pairs: list[Confusion], noise: NoiseByClass
) -> list[tuple[str, str, int, float]]:
    """(given, suggested, count, share of the given class) of the most frequent confusions."""
    return [
        (
            ledger.classes[pair.given],
            ledger.classes[pair.suggested],
            pair.count,
            pair.count / float(noise.num_given[pair.given]),
        )
        for pair in pairs[:MAX_CONFUSIONS]
    ]


def _matrix(ledger: Ledger) -> dict[str, Any]:
    """The transition matrix in the form that suits the number of classes."""
    num_classes = len(ledger.classes)
    found: dict[str, Any] = {"numbered": None, "coarse": None, "legend": heatmap.legend()}
    if num_classes > heatmap.COARSE_UP_TO:
        return found
    matrix = transition_matrix(estimate_joint(ledger))
    if num_classes <= heatmap.NUMBERED_UP_TO:
        found["numbered"] = heatmap.numbered_map(matrix, ledger.classes)
    else:
        found["coarse"] = heatmap.coarse_map(matrix)
    return found


def _unreadable(ledger: Ledger) -> list[tuple[str, int, list[str]]]:
    """(reason, count, first keys) of the most frequent reasons."""
    return [
        (reason, len(rows), [ledger.key(int(row)) for row in rows[:MAX_KEYS_PER_REASON]])
        for reason, rows in list(ledger.reasons().items())[:MAX_REASONS]
    ]


def environment() -> jinja2.Environment:
    """Templates with everything escaped: class and file names come from the web."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("thresher.audit"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=words.percent,
        probability=words.probability,
        count=words.count,
        about=words.about,
        middle=words.middle,
    )
    made.globals.update(plural=words.plural)
    return made
