"""How processes reach each other: levels from inside a node outwards, each with its own wires."""

from __future__ import annotations

import math
from dataclasses import dataclass

from thresher.errors import UserError


@dataclass(frozen=True)
class Level:
    """One kind of wire.

    Attributes:
        name: such as node, supernode, across.
        latency: seconds until the first byte of a message arrives (Hockney's alpha).
        bandwidth: bytes per second and direction, of one process inside a node, of a whole node
            beyond it (its processes share it).
        size: how many units of the level below one unit of this level joins; those of the first
            level are processes. None in the first of several levels stands for the processes of a
            node, in the last for any number.
        oversubscription: by how much bandwidth falls when all nodes send at once; at least 1.
        shared: whether all members share one bandwidth, as on a bus or inside one machine.
    """

    name: str
    latency: float
    bandwidth: float
    size: int | None = None
    oversubscription: float = 1.0
    shared: bool = False


@dataclass(frozen=True)
class Link:
    """A machine's wires.

    Attributes:
        name: of the machine or kind of network.
        levels: from the inside outwards, at least one.
        reduction: bytes per second that a process adds up while it exchanges; None for no cost.
        host_seconds_per_byte: by which work on a process's cores takes longer for each byte that
            the process sends meanwhile, with all that receiving and adding up costs; what an
            exchange takes from a step on the same cores.
        source: where the figures come from.
    """

    name: str
    levels: tuple[Level, ...]
    reduction: float | None = None
    host_seconds_per_byte: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        if not self.levels:
            raise UserError("the link has no level.")
        for place, level in enumerate(self.levels):
            _check(level, first=place == 0, last=place == len(self.levels) - 1)
        if self.reduction is not None and not self.reduction > 0:
            raise UserError("'reduction' must be above 0.")
        if not self.host_seconds_per_byte >= 0:
            raise UserError("'host_seconds_per_byte' must be 0 or more.")

    def layout(self, nodes: int, processes_per_node: int) -> tuple[Stage, ...]:
        """The levels that this many processes use, with the number of members in each.

        Args:
            nodes: at least 1.
            processes_per_node: at least 1.

        Raises:
            UserError: the outermost level does not join so many.
        """
        units = nodes * processes_per_node
        inner = self.levels[0].size is None and len(self.levels) > 1
        stages = []
        for place, level in enumerate(self.levels):
            inside_node = inner and place == 0
            size = processes_per_node if inside_node else level.size
            if place == len(self.levels) - 1:
                if size is not None and units > size:
                    raise UserError(
                        f"{nodes:,} nodes are too many: level '{level.name}' of the link"
                        f" '{self.name}' joins {size}, not {units:,}."
                    )
                size = units
            members = min(size or 1, units)
            # A last group that is not full waits for the full ones, so groups count as full.
            units = math.ceil(units / members)
            if members > 1:
                sharing = processes_per_node if inner and not inside_node else 1
                stages.append(Stage(level, members, sharing))
        return tuple(stages)


@dataclass(frozen=True)
class Stage:
    """A level in use.

    Attributes:
        level: its wires.
        members: units that exchange with each other in one group, at least 2.
        sharing: processes that share the level's bandwidth when all send at once.
    """

    level: Level
    members: int
    sharing: int

    @property
    def alone(self) -> float:
        """Bytes per second where one process of a node sends, as in a ring."""
        return self.level.bandwidth / (self.members if self.level.shared else 1)

    @property
    def crowded(self) -> float:
        """Bytes per second and process where all processes send at once."""
        return self.alone / (self.level.oversubscription * self.sharing)


def _check(level: Level, *, first: bool, last: bool) -> None:
    if not level.latency >= 0:
        raise UserError(f"level '{level.name}': the latency must be 0 or more seconds.")
    if not level.bandwidth > 0:
        raise UserError(f"level '{level.name}': the bandwidth must be above 0 bytes per second.")
    if not level.oversubscription >= 1:
        raise UserError(f"level '{level.name}': the oversubscription must be 1 or more.")
    if level.size is None and not first and not last:
        raise UserError(f"level '{level.name}' needs a size; only the first and last may lack one.")
    if level.size is not None and level.size < 1:
        raise UserError(f"level '{level.name}': the size must be 1 or more.")
