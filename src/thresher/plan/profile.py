"""What one process does and needs, measured: the planner's view of hardware, network and method."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thresher.errors import UserError
from thresher.files import write_atomically
from thresher.plan.line import Line


@dataclass(frozen=True)
class Profile:
    """One process, measured by ``thresher bench profile`` or taken from a publication.

    Times are of one step with all of the method's networks, of the process alone on its cores.

    Attributes:
        hardware: the processor or accelerator in words.
        network: its name.
        method: its name.
        networks: of the method, 1 or 2.
        parameters: of one network.
        gradient_bytes: of one network, as exchanged.
        batch: largest batch per process that was measured, images.
        cores: CPU cores that the process kept busy.
        decodes_beside: whether decoding runs beside the step (an accelerator computes) or takes
            the step's own cores.
        forward: forward passes and loss.
        backward: backward passes.
        update: optimizers and averages; does not depend on the batch, as a rule.
        augment: views made of decoded images.
        ledger: reading and writing what is known of each sample.
        ready: how one network's gradients become ready: (share of its backward's time, share of its
            gradient bytes) from above (0, 0) to (1, 1), both ascending.
        decode_rate: images per second that one core decodes.
        cached_rate: images per second that one core serves from memory.
        image_bytes: mean size of an image on disk.
        weight_bytes: of all networks, with averages and gradients.
        optimizer_bytes: of all networks.
        activation_bytes: per image of the batch.
        ledger_bytes: per sample that the process owns.
        cache_bytes: per image kept decoded.
        peer_bytes: per sample that two networks apart would tell each other.
        peer_messages: of them in a step.
        variation: standard deviation of a step's time over its mean; 0 if not measured.
        message_seconds: of a processor, for each message of an exchange however short: a process
            wakes up for it, copies and goes back to sleep; 0 if not measured, or if an accelerator
            computes.
        crowded_message_seconds: the same where more processes than cores take turns on them; 0 if
            not measured.
        exchange_seconds: of a step, what an exchange of all networks' gradients takes before a byte
            travels (hooks, copies, what rides along); 0 if not measured, or if an accelerator
            computes.
        beside: (images, how many times as long a step takes while other processes compute on cores
            of their own), ascending in images; empty if not measured.
        turns: (images, how many times as long steps take whose processes take turns on the same
            cores as one after the other), ascending in images; empty if not measured.
        pace_seconds: of ``bench/pace.py``'s fixed piece of work in the same minutes; 0 if not
            measured.
        source: where the figures come from.
    """

    hardware: str
    network: str
    method: str
    networks: int
    parameters: int
    gradient_bytes: float
    batch: int
    cores: int
    decodes_beside: bool
    forward: Line
    backward: Line
    update: Line
    augment: Line
    ledger: Line
    ready: tuple[tuple[float, float], ...]
    decode_rate: float
    cached_rate: float
    image_bytes: float
    weight_bytes: float
    optimizer_bytes: float
    activation_bytes: float
    ledger_bytes: float
    cache_bytes: float
    peer_bytes: float = 0.0
    peer_messages: float = 1.0
    variation: float = 0.0
    message_seconds: float = 0.0
    crowded_message_seconds: float = 0.0
    exchange_seconds: float = 0.0
    beside: tuple[tuple[float, float], ...] = ()
    turns: tuple[tuple[float, float], ...] = ()
    pace_seconds: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        _check(self)

    def waking_seconds(self, *, crowded: bool) -> float:
        """Of a processor for each message, where processes take turns on cores or do not."""
        # A profile of an earlier version knows neither; one figure stands for a missing other.
        return (crowded and self.crowded_message_seconds) or self.message_seconds

    def beside_others(self, images: float) -> float:
        """How many times as long a step of so many images takes, at least 1, while other processes
        compute on cores of their own.
        """
        return _between(self.beside, images)

    def taking_turns(self, images: float) -> float:
        """How many times as long steps of so many images take, at least 1, where processes take
        turns on cores.
        """
        return _between(self.turns, images)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False)
        with write_atomically(path) as temporary:
            temporary.write_text(text + "\n")

    @staticmethod
    def load(path: Path) -> Profile:
        """Read what ``save`` wrote.

        Raises:
            UserError: no such file, no JSON, a missing, unknown or impossible figure.
        """
        try:
            values = json.loads(path.read_text())
        except FileNotFoundError:
            raise UserError(
                f"There is no profile {path}. Measure one with: thresher bench profile --out {path}"
            ) from None
        except OSError as error:
            raise UserError(f"The profile {path} cannot be read: {error.strerror}.") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"The profile {path} cannot be read as JSON: {error}.") from None
        if not isinstance(values, dict):
            raise UserError(f"The profile {path} must be a JSON object of names and figures.")
        try:
            return _from_values(values)
        except UserError as error:
            raise UserError(f"The profile {path} is wrong: {error}") from None


def _between(factors: tuple[tuple[float, float], ...], images: float) -> float:
    """What was measured, on a straight line; beyond it as at its end, 1 if there is nothing."""
    if not factors:
        return 1.0
    sizes, longer = zip(*factors, strict=True)
    return float(np.interp(images, sizes, longer))


_LINES = ("forward", "backward", "update", "augment", "ledger")
_FACTORS = ("beside", "turns")
_WORDS = ("hardware", "network", "method", "source")
_POSITIVE = ("parameters", "gradient_bytes", "batch", "cores", "decode_rate", "cached_rate")


def _from_values(values: dict[str, Any]) -> Profile:
    fields = {field.name: field for field in dataclasses.fields(Profile)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise UserError(f"it has the unknown figure '{unknown[0]}'.")
    required = [n for n, f in fields.items() if f.default is dataclasses.MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise UserError(f"the figure '{missing[0]}' is missing.")
    given = dict(values)
    for name in _LINES:
        line = values[name]
        # Profiles of earlier versions have no points, which makes their lines straight.
        if not isinstance(line, dict) or set(line) - {"points"} != {"intercept", "slope"}:
            raise UserError(f"'{name}' must have an 'intercept' and a 'slope'.")
        points = _pairs(f"{name}.points", line.get("points", ()))
        given[name] = Line(line["intercept"], line["slope"], points)
    given["ready"] = _pairs("ready", values["ready"])
    for name in _FACTORS:
        given[name] = _pairs(name, values.get(name, ()))
    return Profile(**given)


def _pairs(name: str, values: Any) -> tuple[tuple[float, float], ...]:
    try:
        return tuple((float(x), float(y)) for x, y in values)
    except (TypeError, ValueError):
        raise UserError(f"'{name}' must be a list of pairs of numbers.") from None


def _check(profile: Profile) -> None:
    """Refuse figures that cannot be, by name."""
    for field in dataclasses.fields(profile):
        name, value = field.name, getattr(profile, field.name)
        if name in _WORDS:
            if not isinstance(value, str):
                raise UserError(f"'{name}' must be text.")
        elif name in _LINES:
            for part in ("intercept", "slope"):
                _check_number(f"{name}.{part}", getattr(value, part), positive=False)
            _check_points(f"{name}.points", value.points)
        elif name == "decodes_beside":
            if not isinstance(value, bool):
                raise UserError("'decodes_beside' must be true or false.")
        elif name in _FACTORS:
            _check_points(name, value)
            for _, factor in value:
                if factor < 1:
                    raise UserError(f"'{name}' is {factor:g}; it must be at least 1.")
        elif name != "ready":
            _check_number(name, value, positive=name in _POSITIVE)
    if profile.networks not in (1, 2):
        raise UserError(f"'networks' is {profile.networks}; it must be 1 or 2.")
    if profile.forward(1) + profile.backward(1) <= 0:
        raise UserError("'forward' and 'backward' take no time; a step cannot.")
    _check_ready(profile.ready)


def _check_number(name: str, value: object, *, positive: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"'{name}' must be a number, not {value!r}.")
    if value < 0 or (positive and value == 0):
        raise UserError(f"'{name}' is {value:g}; it must be {'above 0' if positive else '>= 0'}.")


def _check_points(name: str, points: tuple[tuple[float, float], ...]) -> None:
    previous = 0.0
    for images, value in points:
        _check_number(name, images, positive=True)
        _check_number(name, value, positive=False)
        if images <= previous:
            raise UserError(f"'{name}' must ascend in images.")
        previous = images


def _check_ready(ready: tuple[tuple[float, float], ...]) -> None:
    previous = (0.0, 0.0)
    for pair in ready:
        if not (previous[0] <= pair[0] <= 1 and previous[1] <= pair[1] <= 1):
            raise UserError("'ready' must ascend in both shares, from 0 to 1.")
        previous = pair
    if previous != (1.0, 1.0):
        raise UserError("'ready' must end with all bytes at the backward's end, the pair 1, 1.")
