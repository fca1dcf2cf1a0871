"""The page of findings: one HTML file, in the look of the training report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jinja2
import numpy as np

from thresher.audit import words
from thresher.audit.report import environment
from thresher.audit.thumbnails import Thumbnail, thumbnail
from thresher.scan.copies import Grouped
from thresher.scan.findings import TITLES, Findings, counts_of, side_counts
from thresher.scan.identity import public

MAX_GROUPS = 8
MAX_PER_GROUP = 4
MAX_SINGLES = 12
MAX_CHARACTERS = 6_000_000  # of data URIs in all
MAX_CLASSES = 500
OPEN_CLASSES = 25
MAX_REASONS = 20
MAX_KEYS = 8
_WITHOUT_PICTURES = "unreadable"


@dataclass(frozen=True)
class Card:
    """One image of a finding."""

    key: str
    label: str | None
    in_data: bool
    size: str
    picture: Thumbnail


@dataclass(frozen=True)
class Section:
    """A finding with examples: groups of cards, or one group of single images.

    Attributes:
        more: images in each group beyond its cards.
    """

    kind: str
    title: str
    note: str
    num_groups: int
    num_images: int
    grouped: bool
    groups: tuple[tuple[tuple[Card, ...], int], ...]


@dataclass(frozen=True)
class Bar:
    """A count beside others; ``width`` is in per cent of the largest."""

    name: str
    count: int
    share: float
    width: float


def render(
    findings: Findings,
    *,
    read: Callable[[int], bytes],
    read_against: Callable[[int], bytes] | None = None,
) -> str:
    """Return the page as HTML."""
    readable = findings.num_data - findings.num_unreadable
    classes = class_bars(findings)
    return (
        _environment()
        .get_template("scan.html.j2")
        .render(
            name=public(findings.data.source),
            headline=headline(findings),
            notes=findings.notes,
            refused=findings.refused,
            num_images=findings.num_data,
            num_readable=readable,
            num_against=len(findings.table) - findings.num_data,
            against=None if findings.against is None else public(findings.against.source),
            overview=overview(findings),
            classes=classes,
            open_classes=OPEN_CLASSES,
            max_classes=MAX_CLASSES,
            num_classes=len(findings.data.classes),
            num_labelled=int(findings.class_counts.sum()),
            imbalance=_imbalance(findings),
            num_unlabelled=int((findings.data.labels < 0).sum()),
            sides=_bars(side_counts(findings)),
            formats=_bars(list(counts_of(findings.column("format")).items())),
            modes=_bars(list(counts_of(findings.column("mode")).items())),
            reasons=reasons(findings),
            max_reasons=MAX_REASONS,
            num_unreadable=findings.num_unreadable,
            sections=sections(findings, read, read_against),
        )
    )


def headline(findings: Findings) -> str:
    """The main finding in one plain sentence."""
    found = findings.found
    leaked = np.concatenate([found["exact_leaks"].row, found["near_leaks"].row])
    pictures = found["exact_labels"].num_groups + found["near_labels"].num_groups
    clauses = [
        (len(np.unique(leaked[leaked < findings.num_data])), "is", "are", "in the test set too"),
        (findings.num_unreadable, "cannot", "cannot", "be read"),
        (len(found["exact"].row) - found["exact"].num_groups, "repeats", "repeat", "another file"),
        (pictures, "picture carries", "pictures carry", "several labels"),
    ]
    said = [
        f"{number:,} {one if number == 1 else many} {what}"
        for number, one, many, what in clauses
        if number
    ]
    total = words.plural(findings.num_data, "image")
    if not said:
        return f"{total}: all can be read, and none is there twice."
    *first, last = said
    return f"{total}: {', '.join(first)}{' and ' if first else ''}{last}."


def overview(findings: Findings) -> list[tuple[str, str, str, int, int]]:
    """(kind, title, note, groups, images) of every finding that was looked for."""
    rows = []
    for kind, (title, note) in TITLES.items():
        if kind.endswith("_leaks") and findings.against is None:
            continue
        if kind.endswith("_labels") and len(findings.data.classes) < 2:
            continue
        found = findings.found[kind]
        rows.append((kind, title, note, found.num_groups, len(np.unique(found.row))))
    return rows


def class_bars(findings: Findings) -> list[Bar]:
    """Images per class, the largest first."""
    counts = findings.class_counts
    order = np.argsort(-counts, kind="stable")[:MAX_CLASSES]
    return _bars([(findings.data.classes[i], int(counts[i])) for i in order.tolist()])


def reasons(findings: Findings) -> list[tuple[str, int, list[str]]]:
    """(reason, count, first keys), the most frequent first."""
    rows = findings.found["unreadable"].row
    by_reason: dict[str, list[int]] = {}
    states = findings.table["state"].take(rows).to_pylist()
    for row, state in zip(rows.tolist(), states, strict=True):
        by_reason.setdefault(state, []).append(row)
    ordered = sorted(by_reason.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return [
        (reason, len(members), [findings.key(row) for row in members[:MAX_KEYS]])
        for reason, members in ordered
    ]


def sections(
    findings: Findings,
    read: Callable[[int], bytes],
    read_against: Callable[[int], bytes] | None,
) -> list[Section]:
    """The findings with pictures, as many as the page may hold."""
    made = []
    spent = 0
    for kind, title, note, num_groups, num_images in overview(findings):
        found = findings.found[kind]
        if not num_groups or kind == _WITHOUT_PICTURES:
            continue
        grouped = len(found.row) > found.num_groups
        groups = []
        for rows in _first_groups(found, MAX_GROUPS if grouped else MAX_SINGLES):
            if spent > MAX_CHARACTERS:
                break
            shown = _pick(rows, findings)
            cards = tuple(_card(findings, row, read, read_against) for row in shown)
            spent += sum(len(card.picture.uri) for card in cards)
            groups.append((cards, len(rows) - len(cards)))
        if not grouped:
            groups = [(tuple(card for cards, _ in groups for card in cards), 0)]
        made.append(Section(kind, title, note, num_groups, num_images, grouped, tuple(groups)))
    return made


def _first_groups(found: Grouped, most: int) -> list[np.ndarray]:
    ends = np.searchsorted(found.group, np.arange(min(most, found.num_groups) + 1))
    return [found.row[a:b] for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]


def _pick(rows: np.ndarray, findings: Findings) -> list[int]:
    """Some of a group's rows: of each source and label one before a second of any."""
    first: list[int] = []
    later: list[int] = []
    seen = set()
    for row in rows.tolist():
        what = (row < findings.num_data, int(findings.labels[row]))
        (later if what in seen else first).append(row)
        seen.add(what)
    # The test image first: it is what the others are compared with.
    return sorted((first + later)[:MAX_PER_GROUP], key=lambda row: row < findings.num_data)


def _card(
    findings: Findings,
    row: int,
    read: Callable[[int], bytes],
    read_against: Callable[[int], bytes] | None,
) -> Card:
    in_data = row < findings.num_data
    width, height = (findings.table[name][row].as_py() for name in ("width", "height"))
    return Card(
        key=findings.key(row),
        label=findings.label(row),
        in_data=in_data,
        size=f"{width} × {height}",
        picture=thumbnail(row, read)
        if in_data
        else thumbnail(row - findings.num_data, read_against),
    )


def _bars(counts: list[tuple[str, int]]) -> list[Bar]:
    total = sum(count for _, count in counts)
    largest = max((count for _, count in counts), default=0)
    return [
        Bar(name, count, count / max(total, 1), round(100 * count / max(largest, 1), 1))
        for name, count in counts
    ]


def _imbalance(findings: Findings) -> float | None:
    present = findings.class_counts[findings.class_counts > 0]
    return float(present.max() / present.min()) if len(present) > 1 else None


def _environment() -> jinja2.Environment:
    made = environment()
    assert made.loader is not None
    # The report's style sheet is found beside the templates of this room.
    made.loader = jinja2.ChoiceLoader([jinja2.PackageLoader("thresher.scan"), made.loader])
    return made
