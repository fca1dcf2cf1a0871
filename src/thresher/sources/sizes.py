"""How large shards are now, and of which version: whether they are still what was indexed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from thresher.sources.places import is_url
from thresher.sources.remote.store import store_for
from thresher.sources.several import for_each


def version_of(place: str) -> tuple[int | None, str]:
    """Size in bytes (None: a server does not tell) and what else changes with the content.

    Raises:
        OSError: it is not there, or cannot be read.
        UserError: no access at all.
    """
    if is_url(place):
        found = store_for(place).stat(place)
        return found.size, found.version
    status = os.stat(place)  # noqa: PTH116
    return status.st_size, str(status.st_mtime_ns)


def versions_now(places: Sequence[str]) -> list[tuple[int | None, str] | OSError]:
    """The size and version of each, or why they cannot be told.

    Raises:
        UserError: no access at all.
    """

    def ask(place: str) -> tuple[int | None, str] | OSError:
        try:
            return version_of(place)
        except OSError as error:
            return error

    return for_each(places, ask)
