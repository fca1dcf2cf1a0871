"""Numbers and names as a reader wants to see them."""

from __future__ import annotations

import math

_THIN = " "  # narrow no-break space, as set between a number and its per-cent sign


def percent(share: float | None, decimals: int | None = None) -> str:
    """A share in 0..1 as per cent: '39 %', below ten with one decimal ('4.2 %'), '–' if NaN."""
    if share is None or not math.isfinite(share):
        return "–"
    value = 100 * share
    if decimals is None:
        decimals = 0 if value >= 9.95 or value < 0.05 else 1
    if 0 < value < 0.05:
        return f"<0.1{_THIN}%"
    return f"{value:.{decimals}f}{_THIN}%"


def probability(value: float) -> str:
    """A probability in 0..1 with two decimals; never rounded up to 1 or down to 0."""
    if not math.isfinite(value):
        return "–"
    if 0 < value < 0.005:
        return "<0.01"
    if 0.995 < value < 1:
        return ">0.99"
    return f"{value:.2f}"


def count(number: float) -> str:
    """A whole number with thousands set off: '2,000'."""
    return f"{round(number):,}"


def about(number: float) -> str:
    """An estimate to two or three digits, so that it does not look exact: 793.4 is '790'."""
    digits = max(0, int(math.log10(max(number, 1))) - 1)
    return f"{round(number / 10**digits) * 10**digits:,}"


def duration(seconds: float) -> str:
    """'48 s', '3 min 20 s' or '5 h 12 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def middle(text: str, length: int = 24) -> str:
    """Shorten in the middle: the end of a file name tells more than its centre."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[-(length - 1 - head) :]}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """'1 label', '2,000 labels'."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
