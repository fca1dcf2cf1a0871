"""Numbers as people write them: 100M, 25G, 1..4096."""

from __future__ import annotations

import re

from thresher.errors import UserError

_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def count(text: str, name: str) -> float:
    """``1200``, ``1.2M``, ``5G``: thousands, millions, billions (powers of ten).

    Args:
        text: as typed.
        name: of the option, for the error.

    Raises:
        UserError: no such number, or not above 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:[_,]\d{3})*(?:\.\d+)?(?:e\d+)?)\s*([kmgt]?)\s*", text.lower())
    value = float(re.sub("[_,]", "", found[1])) * _FACTORS[found[2]] if found else 0.0
    if value <= 0:
        raise UserError(
            f"--{name} takes a number above 0, perhaps with k, M, G or T (as 100M), not '{text}'."
        )
    return value


def whole(text: str, name: str) -> int:
    """Like ``count``, for things that come whole.

    Raises:
        UserError: no such number.
    """
    value = count(text, name)
    if value != int(value):
        raise UserError(f"--{name} takes a whole number, not '{text}'.")
    return int(value)


def node_counts(text: str) -> list[int]:
    """``1..4096``: both ends and the powers of two between; or a list, ``1,2,8``.

    Raises:
        UserError: neither, or an empty range.
    """
    if not re.fullmatch(r"[^,.\s]+(\.\.[^,.\s]+|(,[^,.\s]+)*)", re.sub(r"\s", "", text)):
        raise UserError(
            f"--nodes takes a range such as 1..4096 or a list such as 1,2,8, not '{text}'."
        )
    if ".." in text:
        low, high = (whole(end, "nodes") for end in text.split(".."))
        if low > high:
            raise UserError(f"--nodes {text} is empty: the first number is the larger.")
        powers = {2**p for p in range(low.bit_length() - 1, high.bit_length())}
        return sorted({low, high} | {p for p in powers if low <= p <= high})
    return sorted({whole(part, "nodes") for part in text.split(",")})


def duration(seconds: float) -> str:
    """Seconds to a few characters: 8.2 ms, 3.1 s, 12 min, 5.2 h, 3.4 d."""
    if seconds == 0:
        return "0 s"
    for unit, size, limit in (("ms", 1e-3, 1), ("s", 1, 120), ("min", 60, 7200), ("h", 3600, 2e5)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:,.3g} d" if seconds < 8.64e7 else f"{seconds / 86400:,.0f} d"


def size(num_bytes: float) -> str:
    """Bytes to a few characters, in powers of ten."""
    for unit, factor in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if num_bytes < 1000 * factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes / 1e12:.3g} TB"
