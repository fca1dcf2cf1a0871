"""What all ranks must have in common before they train together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thresher.errors import UserError

_SHOWN = 80


def first_difference(facts: Sequence[Mapping[str, Any]]) -> str | None:
    """What differs between the first rank and another, in words; None if nothing does."""
    first = facts[0]
    for rank, other in enumerate(facts[1:], start=1):
        for name in dict.fromkeys([*first, *other]):
            if first.get(name) != other.get(name):
                return (
                    f"{name} is {_show(other.get(name))} on rank {rank}, but"
                    f" {_show(first.get(name))} on rank 0"
                )
    return None


def join_errors(errors: Sequence[str | None]) -> str | None:
    """One sentence of what went wrong on any rank, None if all is well."""
    failed = [rank for rank, error in enumerate(errors) if error is not None]
    if not failed:
        return None
    message = errors[failed[0]]
    assert message is not None
    if len(failed) == len(errors):
        return message
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"rank {failed[0]}{more}: {message}"


class RanksDifferError(UserError):
    """The ranks were not started alike."""

    def __init__(self, difference: str, *, told: bool = False) -> None:
        super().__init__(
            f"The processes do not agree: {difference}. Start all of them with the same command,"
            " the same version and the same data.",
            told=told,
        )


def _show(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
