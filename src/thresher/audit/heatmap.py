"""The transition matrix as a picture: plain geometry, drawn by the templates."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from thresher.audit.words import middle, percent

NUMBERED_UP_TO = 25
COARSE_UP_TO = 200
CELL = 40.0
# Upper edges of the shades, as shares of a true class. Wrong labels and right ones get a scale
# each: on one scale the diagonal would leave all confusions pale.
WRONG_EDGES = (0.01, 0.03, 0.06, 0.12, 0.25)
RIGHT_EDGES = (0.5, 0.7, 0.85, 0.95)
# Width of an ordinary letter at 12 px in a wide font: too much room is better than a cut name.
_CHARACTER = 7.6
_WIDE, _NARROW = frozenset("MWmw@%…—"), frozenset("ijlftI.,:;'|!()[] ")


@dataclass(frozen=True)
class Cell:
    """One square: where it stands, its shade, the number in it and the text on hovering."""

    x: float
    y: float
    shade: str
    text: str
    title: str


@dataclass(frozen=True)
class AxisLabel:
    """A class name along an edge, at ``position`` along that edge."""

    position: float
    text: str
    title: str


@dataclass(frozen=True)
class NumberedMap:
    """A matrix with names and numbers, for few classes."""

    width: float
    height: float
    left: float
    top: float
    cell: float
    cells: tuple[Cell, ...]
    rows: tuple[AxisLabel, ...]
    columns: tuple[AxisLabel, ...]


@dataclass(frozen=True)
class CoarseMap:
    """A matrix of plain squares, for many classes: one SVG path per shade."""

    size: int
    layers: tuple[tuple[str, str], ...]


def numbered_map(matrix: np.ndarray, classes: tuple[str, ...]) -> NumberedMap:
    """Lay out P(given | true) with rows true and columns given; NaN rows stay blank."""
    names = [middle(name, 18) for name in classes]
    longest = max(_units(name) for name in names) * _CHARACTER
    left, top = max(longest + 14, 96.0), longest * 0.72 + 40
    centres = [CELL * (i + 0.5) for i in range(len(classes))]
    cells = tuple(
        Cell(
            x=left + CELL * given,
            y=top + CELL * true,
            shade=shade(float(matrix[true, given]), true == given),
            text=_number(float(matrix[true, given])),
            title=f"true {classes[true]}, given {classes[given]}: "
            f"{percent(float(matrix[true, given]))}",
        )
        for true in range(len(classes))
        for given in range(len(classes))
    )
    # The slanted names of the last columns reach out over the right edge.
    slanted = [c + _units(name) * _CHARACTER * 0.72 for c, name in zip(centres, names, strict=True)]
    width = left + max(CELL * len(classes), *slanted) + 12
    labels = list(zip(centres, names, classes, strict=True))
    return NumberedMap(
        width=round(width),
        height=round(top + CELL * len(classes) + 6),
        left=round(left, 1),
        top=round(top, 1),
        cell=CELL,
        cells=cells,
        rows=tuple(AxisLabel(top + c, text, full) for c, text, full in labels),
        columns=tuple(AxisLabel(left + c, text, full) for c, text, full in labels),
    )


def coarse_map(matrix: np.ndarray) -> CoarseMap:
    """Lay out many classes as unit squares; what is paler than the first edge is left out."""
    paths: dict[str, list[str]] = {}
    for true, row in enumerate(matrix):
        for given in np.flatnonzero(np.nan_to_num(row) >= WRONG_EDGES[0]):
            layer = paths.setdefault(shade(float(row[given]), true == int(given)), [])
            layer.append(f"M{given} {true}h1v1h-1z")
    layers = tuple((name, "".join(squares)) for name, squares in sorted(paths.items()))
    return CoarseMap(size=len(matrix), layers=layers)


def shade(share: float, on_diagonal: bool) -> str:
    """The name of a shade: 'right-0' to 'right-4', 'wrong-0' to 'wrong-5', or 'none'."""
    if not math.isfinite(share):
        return "none"
    edges = RIGHT_EDGES if on_diagonal else WRONG_EDGES
    level = sum(share >= edge for edge in edges)
    return f"{'right' if on_diagonal else 'wrong'}-{level}"


def legend() -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Both scales as (heading, note, [(shade, words)])."""
    out = []
    for kind, heading, edges in (
        ("wrong", "Given another class", WRONG_EDGES),
        ("right", "Given its own class", RIGHT_EDGES),
    ):
        numbers = [f"{100 * edge:g}" for edge in edges]
        words = [f"<{numbers[0]}"]
        words += [f"{a}–{b}" for a, b in itertools.pairwise(numbers)]
        words.append(f"≥{numbers[-1]}")
        steps = [(f"{kind}-{level}", text) for level, text in enumerate(words)]
        out.append((heading, "per cent of the true class", steps))
    return out


def _number(share: float) -> str:
    """Whole per cents without the sign; nothing for what rounds to zero."""
    return f"{100 * share:.0f}" if math.isfinite(share) and share >= 0.005 else ""


def _units(text: str) -> float:
    """Width in ordinary letters, roughly: the real font is known to the reader's browser alone."""
    widths = (
        1.75 if ord(letter) > 0x2E80  # East Asian
        else 1.6 if letter in _WIDE
        else 0.65 if letter in _NARROW
        else 1.15 if letter.isupper()
        else 1.0
        for letter in text
    )  # fmt: skip
    return sum(widths)
