"""Efficiency over the number of processes as an SVG: lines predicted, dots measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 420, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 34, 44
# Readable on white and on black, and apart from each other for most colour-blind eyes.
COLOURS = ("#2f7fc1", "#d1711f", "#3f9b57", "#a45bb5", "#b8902a", "#c14f5b")


@dataclass(frozen=True)
class Series:
    """Points (processes, share of a reference); dots stand for measurements."""

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


@dataclass(frozen=True)
class Panel:
    """One chart; the label under it says what is drawn over what."""

    title: str
    x_label: str
    series: Sequence[Series] = field(default_factory=tuple)


def draw(panels: Sequence[Panel]) -> str:
    """All panels beside each other, as the text of an SVG file."""
    width = WIDTH * len(panels)
    rows = max(len(panel.series) for panel in panels)
    height = HEIGHT + 18 * rows + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape('; '.join(panel.title for panel in panels))}: efficiency</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for index, panel in enumerate(panels):
        parts.append(f'<g transform="translate({index * WIDTH} 0)">{_panel(panel)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel) -> str:
    most = max(x for series in panel.series for x, _ in series.points)
    doublings = max(1, math.ceil(math.log2(most)))

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * math.log2(x) / doublings,
            HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * min(y, 1.1) / 1.1,
        )

    out = [f'<text x="{LEFT}" y="20" font-weight="bold">{escape(panel.title)}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        _, y = at(1, share)
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for power in range(0, doublings + 1, max(1, math.ceil(doublings / 6))):
        x, y = at(2**power, 0)
        out.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{2**power:,}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(panel.x_label)}</text>'
    )
    names = [series.name.rsplit(",", 1)[0] for series in panel.series]
    for row, series in enumerate(panel.series):
        # A measurement has the colour of its prediction.
        colour = COLOURS[sorted(set(names)).index(names[row]) % len(COLOURS)]
        out.append(_series(series, colour, at, HEIGHT + 14 + 18 * row))
    return "".join(out)


def _series(series: Series, colour: str, at: object, legend_y: float) -> str:
    assert callable(at)
    placed = [at(x, y) for x, y in series.points]
    if series.dots:
        marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>' for x, y in placed)
        key = f'<circle cx="{LEFT + 10}" cy="{legend_y - 4}" r="4.5"/>'
        shape = f'<g fill="{colour}">{marks}{key}</g>'
    else:
        path = "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(placed))
        key = f"M{LEFT} {legend_y - 4}h20"
        shape = f'<path d="{path}{key}" fill="none" stroke="{colour}" stroke-width="2"/>'
    x, y = series.points[-1]
    text = f"{series.name}: {y:.1%} on {x:,.0f}"
    return shape + f'<text x="{LEFT + 28}" y="{legend_y}">{escape(text)}</text>'
