"""How many cores' time a container may use, as Linux's control groups limit it.

A process in a container sees all cores of the machine; more threads than its quota only wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_MEMBERSHIP = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Quota:
    """A limit that some processes share.

    Attributes:
        cores: whose time they may use together.
        group: told apart from all other groups of this machine, also from within a container.
    """

    cores: float
    group: str


def cpu_quota(membership: Path = _MEMBERSHIP, root: Path = _ROOT) -> Quota | None:
    """The tightest limit on this process; None where nothing limits it."""
    found = []
    for folder in _folders(membership, root):
        cores = _limit(folder)
        if cores is not None:
            place = folder.stat()
            found.append(Quota(cores, f"{place.st_dev}:{place.st_ino}"))
    return min(found, key=lambda quota: quota.cores, default=None)


def _folders(membership: Path, root: Path) -> list[Path]:
    """Of the groups that this process is in, from its own to the outermost that can be seen."""
    text = _read(membership)
    folders = []
    for line in (text or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":  # version 2: one tree for everything
            top = root
        elif "cpu" in controllers.split(","):
            top = root / "cpu"
        else:
            continue
        # In a container the path may be one of the machine, which cannot be seen from there.
        own = top / path.lstrip("/")
        folders += [own, *(parent for parent in own.parents if parent.is_relative_to(top))]
    return list(dict.fromkeys(folders))


def _limit(folder: Path) -> float | None:
    text = _read(folder / "cpu.max")
    if text is not None:
        quota, period = text.split()[:2]
    else:
        quota = _read(folder / "cpu.cfs_quota_us") or "-1"
        period = _read(folder / "cpu.cfs_period_us") or "100000"
    if quota == "max" or int(quota) <= 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:  # not Linux, another version, or not for us to see
        return None
