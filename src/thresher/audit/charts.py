"""Line charts over epochs as plain geometry; the templates draw it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 340.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 12.0, 34.0
MAX_HOVER_POINTS = 200


@dataclass(frozen=True)
class Tick:
    """A grid line and its label, at ``position`` in the picture."""

    position: float
    label: str


@dataclass(frozen=True)
class Point:
    """A measured value with the text that hovering over it shows."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Line:
    """One curve: an SVG path and its points; dots mark them where they are few."""

    name: str
    path: str
    points: tuple[Point, ...]
    dots: bool


@dataclass(frozen=True)
class Chart:
    """Everything a template needs to draw one chart."""

    title: str
    note: str
    summary: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def line_chart(
    title: str,
    note: str,
    epochs: Sequence[int],
    series: Sequence[tuple[str, Sequence[float | None]]],
    show: Callable[[float], str],
    *,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Chart | None:
    """Lay out one chart; None if no series has a value.

    Args:
        title: what is drawn.
        note: what it was measured on, or its unit.
        epochs: the x values, ascending.
        series: name and one value per epoch; None and NaN are bridged.
        show: a value in words, for ticks and hovering.
        floor, ceiling: a value that the y axis must reach, or no further than.
    """
    measured = [(name, _measured(epochs, ys)) for name, ys in series]
    values = [v for _, known in measured for _, v in known]
    if not values:
        return None
    low = min(values) if floor is None else min(floor, *values)
    high = max(values)
    ticks = nice_ticks(low, high, ceiling=ceiling)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    first, last = epochs[0], epochs[-1]

    def place_x(epoch: float) -> float:
        if first == last:
            return (LEFT + WIDTH - RIGHT) / 2
        return LEFT + (WIDTH - RIGHT - LEFT) * (epoch - first) / (last - first)

    def place_y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / (high - low)

    lines = []
    for name, known in measured:
        step = max(1, math.ceil(len(known) / MAX_HOVER_POINTS))
        label = f"{name}, " if name else ""
        points = tuple(
            Point(round(place_x(e), 1), round(place_y(v), 1), f"{label}epoch {e}: {show(v)}")
            for e, v in known[::step]
        )
        placed = [(place_x(e), place_y(v)) for e, v in known]
        lines.append(Line(name, _path(placed), points, len(known) < 25))
    return Chart(
        title=title,
        note=note,
        summary=_summary(title, measured, show),
        x_ticks=tuple(Tick(round(place_x(e), 1), str(e)) for e in _epoch_ticks(first, last)),
        y_ticks=tuple(Tick(round(place_y(t), 1), show(t)) for t in ticks),
        lines=tuple(lines),
    )


def nice_ticks(low: float, high: float, *, ceiling: float | None = None) -> list[float]:
    """Three to six round numbers that enclose low..high (but stay at or under ``ceiling``)."""
    if high - low < 1e-9:
        margin = abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin
        if ceiling is not None:
            high = min(high, ceiling)
    raw = (high - low) / 4
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= raw * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    ticks = [round(i * step, 10) for i in range(first, last + 1)]
    return [t for t in ticks if ceiling is None or t <= ceiling + 1e-9]


def _epoch_ticks(first: int, last: int) -> list[int]:
    if last - first <= 5:
        return list(range(first, last + 1))
    step = next(s for s in _round_steps() if (last - first) / s <= 5)
    ticks = [e for e in range(step * math.ceil(first / step), last + 1, step) if e >= first]
    # Name the first epoch too, unless it would collide with the first round one.
    return ticks if ticks[0] - first < step / 2 else [first, *ticks]


def _round_steps() -> list[int]:
    return [factor * 10**power for power in range(7) for factor in (1, 2, 5)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A path through the points; an epoch without a value is bridged by a straight line."""
    return "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))


def _summary(
    title: str,
    measured: Sequence[tuple[str, Sequence[tuple[int, float]]]],
    show: Callable[[float], str],
) -> str:
    """The chart in one sentence, for readers who do not see it."""
    parts = []
    for name, known in measured:
        if known:
            (e0, v0), (e1, v1) = known[0], known[-1]
            what = f"{name} from" if name else "from"
            parts.append(f"{what} {show(v0)} in epoch {e0} to {show(v1)} in epoch {e1}")
    return f"{title}: {'; '.join(parts)}."


def _measured(epochs: Sequence[int], values: Sequence[float | None]) -> list[tuple[int, float]]:
    """The epochs that have a value, with it."""
    pairs = zip(epochs, values, strict=True)
    return [(e, v) for e, v in pairs if v is not None and math.isfinite(v)]
