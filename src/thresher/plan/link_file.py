"""Links by name or in YAML files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from thresher.errors import UserError, unknown_name
from thresher.files import write_atomically
from thresher.plan.link import Level, Link
from thresher.plan.presets import LINKS


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
