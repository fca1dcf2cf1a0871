"""Whether decoded images are kept after their first use, where, and why (not), in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from thresher.config import Cache
from thresher.errors import UserError

Place = Literal["none", "host", "device"]

_AUTO_SHARE = 0.25
"""Of the free memory: a run has up to three sets of images, and the machine other users."""
_AUTO_DEVICE_SHARE = 0.4
"""Of the device's free memory: networks, activations and optimizers come later."""
_MOST_SHARE = 0.8
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Decision:
    """Where decoded images are kept, and a clause for people that says why."""

    place: Place
    why: str


def decide(cache: Cache, num_bytes: int, device: torch.device, processes: int = 1) -> Decision:
    """Choose where images are kept.

    Args:
        cache: what the user wants.
        num_bytes: of all images of this process.
        device: that trains.
        processes: that share the machine's memory.

    Raises:
        UserError: the user wants what cannot be.
    """
    if cache == "none":
        return Decision("none", "images are decoded in every epoch (--cache none)")
    needed = _shown(num_bytes)
    if cache == "device":
        if device.type != "cuda":
            raise UserError(
                "--cache device keeps images in a CUDA device's memory, but this run trains on"
                f" {device.type}. Choose --cache auto, host or none."
            )
        free = free_device_memory(device)
        if num_bytes > free * _MOST_SHARE:
            raise UserError(
                f"--cache device needs {needed}, but the device has {_shown(free)} free. Choose"
                " --cache auto, host or none."
            )
        return Decision("device", f"decoded images stay on the device ({needed})")
    if (
        cache == "auto"
        and device.type == "cuda"
        and num_bytes <= free_device_memory(device) * _AUTO_DEVICE_SHARE
    ):
        return Decision("device", f"decoded images stay on the device ({needed})")
    free = free_memory() // processes
    if cache == "host" and num_bytes > free * _MOST_SHARE:
        raise UserError(
            f"--cache host needs {needed} of memory, but {_shown(free)} are free. Choose --cache"
            " auto or none."
        )
    if cache == "auto" and num_bytes > free * _AUTO_SHARE:
        return Decision(
            "none",
            f"images are decoded in every epoch: keeping them needs {needed}, more than a quarter"
            f" of the {_shown(free)} of free memory",
        )
    instead = ", since they need more than 40 % of what the device has free"
    instead = instead if cache == "auto" and device.type == "cuda" else ""
    return Decision("host", f"decoded images stay in memory ({needed}){instead}")


def free_device_memory(device: torch.device) -> int:
    """Bytes of a CUDA device that nobody has taken."""
    return int(torch.cuda.mem_get_info(device)[0])


def free_memory() -> int:
    """Bytes this process may still take: of the machine, or of its container if that is less."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, no limit ("max"), or another system
        return free
    return max(0, min(free, limit - used))


def _shown(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
