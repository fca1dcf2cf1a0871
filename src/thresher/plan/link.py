"""How processes reach each other: levels from inside a node outwards, each with its own wires."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from thresher.errors import UserError, unknown_name
from thresher.files import write_atomically


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
        host_seconds_per_byte: time of a processor per byte that a process sends (and receives, and
            adds up): work that an exchange takes from a step on the same cores.
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


def save_link(link: Link, path: Path) -> None:
    """Write a description that ``load_link`` reads."""
    values = {key: value for key, value in dataclasses.asdict(link).items() if value is not None}
    values["levels"] = [dataclasses.asdict(level) for level in link.levels]
    with write_atomically(path) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False))


def load_link(name: str) -> Link:
    """A preset by name, or a YAML file.

    Raises:
        UserError: neither, or a figure that cannot be.
    """
    from thresher.plan.presets import LINKS

    path = Path(name)
    if name in LINKS:
        return LINKS[name]
    if not path.exists():
        if path.suffix in (".yaml", ".yml"):
            raise UserError(f"There is no link description {path}.")
        raise unknown_name("link", name, LINKS)
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"The link description {path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"The link description {path} cannot be read as YAML: {reason}") from None
    try:
        return _from_values(values, path.stem)
    except UserError as error:
        raise UserError(f"The link description {path} is wrong: {error}") from None


def _from_values(values: Any, name: str) -> Link:
    if not isinstance(values, dict) or not isinstance(values.get("levels"), list):
        raise UserError("it must have 'levels', a list from the inside outwards.")
    extra = sorted(set(values) - {field.name for field in dataclasses.fields(Link)})
    if extra:
        raise UserError(f"unknown key '{extra[0]}'.")
    levels = tuple(_level(entry) for entry in values["levels"])
    reduction = values.get("reduction")
    if reduction is not None:
        reduction = _number("reduction", reduction)
    return Link(
        name=str(values.get("name", name)),
        levels=levels,
        reduction=reduction,
        host_seconds_per_byte=_number(
            "host_seconds_per_byte", values.get("host_seconds_per_byte", 0.0)
        ),
        source=str(values.get("source", "")),
    )


def _level(entry: Any) -> Level:
    if not isinstance(entry, dict):
        raise UserError("each level must be a list of keys and values.")
    fields = {field.name for field in dataclasses.fields(Level)}
    extra = sorted(str(key) for key in set(entry) - fields)
    if extra:
        raise UserError(f"a level has the unknown key '{extra[0]}'.")
    missing = [key for key in ("name", "latency", "bandwidth") if key not in entry]
    if missing:
        raise UserError(f"a level has no '{missing[0]}'.")
    size = entry.get("size")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        raise UserError(f"'size' must be a whole number, not {size!r}.")
    return Level(
        name=str(entry["name"]),
        latency=_number("latency", entry["latency"]),
        bandwidth=_number("bandwidth", entry["bandwidth"]),
        size=size,
        oversubscription=_number("oversubscription", entry.get("oversubscription", 1.0)),
        shared=bool(entry.get("shared", False)),
    )


def _number(name: str, value: Any) -> float:
    try:
        # YAML reads 1e-6 without a dot as text.
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"'{name}' must be a number, not {value!r}.") from None


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
