"""Doing the same with many files: one after the other, or at once where a server is waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from thresher.sources.places import is_url

T = TypeVar("T")
_AT_ONCE = 16  # waiting for answers is most of the time


def for_each(places: Sequence[str], call: Callable[[str], T]) -> list[T]:
    """What ``call`` returns for each path or URL, in their order.

    Raises:
        Exception: what ``call`` raised for the first of them that failed.
    """
    if not any(map(is_url, places)):
        return [call(place) for place in places]
    with ThreadPoolExecutor(min(_AT_ONCE, len(places))) as pool:
        return list(pool.map(call, places))
