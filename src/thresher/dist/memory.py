"""Memory that a step gives back stays with the process, for the next step to take."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of glibc's options, see mallopt(3)."""
_NEVER = 2**31 - 1
_LARGE = 2**30
_LARGE_BEFORE_2_35 = 32 * 2**20


def keep_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Have the C library keep large blocks that are freed, where it is glibc.

    By itself it returns blocks of many megabytes to the system as soon as they are free, and every
    step fetches them again, a page and a fault at a time: a third of a step of a small network on a
    CPU, and more in one minute than in the next. A process then holds on to the most that it ever
    needed, which in training it soon needs again.

    Args:
        environment: of the process; who has set glibc's options there knows better.

    Returns:
        Whether it will.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in environment):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    large = mallopt(_MMAP_THRESHOLD, _LARGE) or mallopt(_MMAP_THRESHOLD, _LARGE_BEFORE_2_35)
    return bool(large and mallopt(_TRIM_THRESHOLD, _NEVER))
