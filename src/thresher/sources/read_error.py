"""Why the bytes of one sample cannot be had."""

from __future__ import annotations


class ReadError(OSError):
    """One sample cannot be read. The message is the reason, fit for the manifest's state."""
