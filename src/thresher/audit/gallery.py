"""The pictures of the report: per class the images whose labels are least believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from thresher.audit.load import Ledger
from thresher.audit.thumbnails import Thumbnail, thumbnail

MAX_CLASSES = 60
# Characters of data URIs in all. 720 photographs take about 5 million.
MAX_CHARACTERS = 9_000_000


@dataclass(frozen=True)
class Card:
    """One suspect image and what the ledger says of it."""

    key: str
    given: str
    suggested: str
    differs: bool
    confidence: float
    clean_probability: float
    picture: Thumbnail


@dataclass(frozen=True)
class Section:
    """The cards of one given class."""

    class_index: int
    name: str
    cards: tuple[Card, ...]


def sections(
    ledger: Ledger,
    rows: dict[int, np.ndarray],
    class_order: list[int],
    read: Callable[[int], bytes] | None,
    *,
    max_characters: int = MAX_CHARACTERS,
) -> list[Section]:
    """Build the galleries of the first ``MAX_CLASSES`` classes of ``class_order`` that have rows.

    Pictures are taken rank by rank across the classes until ``max_characters`` are spent, so
    that a bounded file shows the worst of every class before the second worst of any. What is
    over the bound is left out.
    """
    shown = [c for c in class_order if len(rows.get(c, ()))][:MAX_CLASSES]
    cards: dict[int, list[Card]] = {c: [] for c in shown}
    spent = 0
    for rank in range(max((len(rows[c]) for c in shown), default=0)):
        for c in shown:
            if rank >= len(rows[c]) or spent > max_characters:
                continue
            card = _card(ledger, int(rows[c][rank]), read)
            spent += len(card.picture.uri)
            cards[c].append(card)
    return [Section(c, ledger.classes[c], tuple(cards[c])) for c in shown if cards[c]]


def _card(ledger: Ledger, row: int, read: Callable[[int], bytes] | None) -> Card:
    given, suggested = int(ledger.given[row]), int(ledger.suggested[row])
    return Card(
        key=ledger.key(row),
        given=ledger.classes[given],
        suggested=ledger.classes[suggested],
        differs=given != suggested,
        confidence=float(ledger.confidence[row]),
        clean_probability=float(ledger.clean_probability[row]),
        picture=thumbnail(int(ledger.ids[row]), read),
    )
