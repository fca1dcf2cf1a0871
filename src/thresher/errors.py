"""The one exception for mistakes a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A bad input. The message is a plain sentence: what is wrong, where, and what to do.

    The command line prints it and exits with code 2. Errors inside Thresher are never of this
    class, so that they keep their traceback.

    Args:
        message: the sentence.
        told: another process reports it, so this one keeps silent.
    """

    def __init__(self, message: str, *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Build the error for a name that does not exist, naming the nearest ones that do."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(choices[:20])}."
    return UserError(f"Unknown {kind} '{name}'. {hint}")
