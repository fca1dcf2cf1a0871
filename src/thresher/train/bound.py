"""What a run spends its time on beside computing, and what to change, in one clause."""

from __future__ import annotations

WORTH_SAYING = 0.15
"""Share of the time from which a wait is named; chosen, not derived."""


def bound_by(data: float, exchange: float, *, filling: bool = False) -> str | None:
    """Whether data or the other processes hold a run up; None where its own step does.

    Args:
        data: share of the time spent waiting for the loader, 0 to 1.
        exchange: share spent waiting for other processes, 0 to 1.
        filling: whether images are being decoded to be kept, so that the wait will end by itself.
    """
    if max(data, exchange) < WORTH_SAYING:
        return None
    if data >= exchange and filling:
        return f"bound by data {data:.0%} (in this epoch, in which images are decoded to be kept)"
    if data >= exchange:
        return f"bound by data {data:.0%} (try thresher pack, --cache host, more --threads)"
    return (
        f"bound by communication {exchange:.0%} (try a larger --batch-size,"
        " --compress-gradients bf16)"
    )
