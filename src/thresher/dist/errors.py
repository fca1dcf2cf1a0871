"""What can go wrong between ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch.distributed as dist

PEERS_LOST = 75
"""Exit code when another process is gone or stalls: EX_TEMPFAIL of sysexits.h, try again."""

_SIGNS = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out",
          "socket", "tcpstore")  # fmt: skip


class PeersLostError(Exception):
    """Another process ended or fell silent; all that was saved so far is whole."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the connection to another process is lost ({reason}). Its own message says why, if it"
            " had one"
        )


@contextlib.contextmanager
def name_lost_peers(world_size: int) -> Iterator[None]:
    """Turn what a broken collective raises into ``PeersLostError``."""
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        text = str(error).strip()
        if world_size == 1 or not any(sign in text.lower() for sign in _SIGNS):
            raise
        raise PeersLostError(_shortened(text)) from error


def _shortened(text: str) -> str:
    """The last sentence of what gloo or NCCL say; the rest are places in their source."""
    line = text.splitlines()[0].split(". This is typically")[0]
    return line.rsplit("pp:", 1)[-1].split("] ", 1)[-1].rstrip(".")[:160]
