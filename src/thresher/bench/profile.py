"""From measured steps to a ``Profile`` that ``thresher plan`` takes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from thresher.bench.clock import Clock
from thresher.bench.handling import measure_handling
from thresher.bench.images import measure
from thresher.bench.neighbours import Neighbours, has_room, measure_neighbours
from thresher.bench.pace import Pace
from thresher.bench.step import PHASES, PIECES, Setting, Step
from thresher.dist.memory import keep_memory
from thresher.plan.line import Line
from thresher.plan.profile import Profile

_READY_POINTS = 64
_FEW_IMAGES = 16
"""In whose step a fixed cost is plain to see."""


def measure_profile(
    setting: Setting,
    batch: int,
    *,
    repeats: int,
    data: str | None,
    report: Callable[[str], None],
) -> Profile:
    """Measure one process on this machine.

    Each piece is timed at up to three batch sizes, a quarter, a half and the whole of ``batch``,
    each at ``PHASES`` points of a run; medians over ``repeats`` are averaged over the points. The
    three are kept beside the line through them: a step is bent by its fixed cost and by caches.
    Pieces are timed with waits between them, then scaled to add up to whole steps timed without.
    On a CPU the sizes are brought to one pace, see ``Pace``: a machine that others use, too, may be
    faster for one of them than for the next, which would bend what is read between.

    Args:
        setting: what to measure.
        batch: largest number of images per step, at least 1.
        repeats: of every step and comparison.
        data: images to decode; None for made ones.
        report: hears what is being measured.

    Raises:
        UserError: images that cannot be opened or decoded.
    """
    if setting.device.type == "cpu":
        keep_memory()  # as training does
    report("decoding")
    rates = measure(data, setting.image_size, setting.small)
    step = Step(setting)
    sizes = sorted({max(1, batch // 4), max(1, batch // 2), batch})
    pace = Pace()
    paces: list[float] = []
    pieces: list[dict[str, float]] = []
    saved: list[float] = []
    variation = 0.0
    for size in sizes:
        report(f"steps of {size} images")
        step.resize(size)
        found, variation, own_pace = _time_pieces(step, repeats, pace)
        pieces.append(found)
        paces.append(own_pace)
        saved.append(float(step.saved_bytes(PHASES - 1)))
    report("order of the gradients")
    ready = ready_schedule([step.gradients_over_time(0) for _ in range(max(3, repeats))])
    for net in step.nets:
        net.logits = net.passes = 0
    for phase in range(PHASES):
        step.run(phase, Clock(setting.device))
    # What a network says is sent in the precision that it is computed in.
    width = 4 if setting.precision is None else 2
    two = len(step.nets) == 2
    peer_bytes = width * step.nets[0].logits / (PHASES * batch) if two else 0.0
    usual_pace = statistics.median(paces)
    if setting.device.type == "cpu":
        for found, own_pace in zip(pieces, paces, strict=True):
            found.update({name: took * usual_pace / own_pace for name, took in found.items()})
    lines: dict[str, Line] = {}
    for name in PIECES:
        points = tuple((float(s), p[name]) for s, p in zip(sizes, pieces, strict=True))
        lines[name] = replace(fit(*zip(*points, strict=True)), points=points)
    weight_bytes = sum(net.weight_bytes for net in step.nets)
    optimizer_bytes = sum(net.optimizer_bytes for net in step.nets)
    neighbours, handling = None, 0.0
    if setting.device.type == "cpu":
        room = has_room(weight_bytes + optimizer_bytes + max(saved))
        if room:
            report("what an exchange takes from a step")
            handling = measure_handling(setting, min(_FEW_IMAGES, sizes[0])) or 0.0
        report("processes on the same machine")
        ends = sorted({sizes[0], sizes[-1]}) if room else []
        neighbours = measure_neighbours(setting, ends, torch.get_num_threads(), repeats)
    around = neighbours or Neighbours(0.0, 0.0, (), ())
    return Profile(
        hardware=_hardware(setting.device),
        network=setting.model,
        method=setting.method,
        networks=len(step.nets),
        parameters=sum(weight.numel() for weight in step.nets[0].module.parameters()),
        gradient_bytes=step.nets[0].gradient_bytes,
        batch=batch,
        cores=torch.get_num_threads() if setting.device.type == "cpu" else 1,
        decodes_beside=setting.device.type != "cpu",
        forward=lines["forward"],
        backward=lines["backward"],
        update=lines["update"],
        augment=lines["augment"],
        ledger=lines["ledger"],
        ready=ready,
        decode_rate=rates.decoded,
        cached_rate=rates.cached,
        image_bytes=rates.image_bytes,
        weight_bytes=weight_bytes,
        optimizer_bytes=optimizer_bytes,
        activation_bytes=fit([float(s) for s in sizes], saved).slope,
        ledger_bytes=step.ledger_bytes,
        cache_bytes=rates.cache_bytes,
        peer_bytes=peer_bytes,
        peer_messages=step.nets[0].passes / PHASES if two else 0.0,
        variation=variation,
        message_seconds=around.message,
        crowded_message_seconds=around.crowded_message,
        exchange_seconds=handling,
        beside=around.beside,
        turns=around.turns,
        pace_seconds=usual_pace,
        source=f"thresher bench profile: {repeats} x {PHASES} steps at {sizes} images of"
        f" {setting.image_size} pixels, {setting.num_classes} classes, {_precision(setting)},"
        f" PyTorch {torch.__version__}; decoding of {rates.words}; processes on the same"
        f" machine {'not ' if neighbours is None else ''}measured",
    )


def _time_pieces(
    step: Step, repeats: int, pace: Callable[[], float]
) -> tuple[dict[str, float], float, float]:
    """Seconds of each piece of a mean step, the variation of whole steps, and the pace."""
    device = step.setting.device
    # The first steps allocate, choose kernels and make the optimizer's state.
    for phase in (0, PHASES - 1):
        step.run(phase, Clock(device))
    parts: dict[str, float] = dict.fromkeys(PIECES, 0.0)
    whole, spreads, paces = 0.0, [], []
    for phase in range(PHASES):
        apart, totals = [], []
        for _ in range(repeats):
            paces.append(pace())
            clock = Clock(device)
            step.run(phase, clock)
            apart.append(clock.seconds)
            clock = Clock(device, waits=False)
            step.run(phase, clock)
            totals.append(sum(clock.seconds.values()) + clock.rest())
        for name in PIECES:
            parts[name] += statistics.median(one[name] for one in apart) / PHASES
        whole += statistics.median(totals) / PHASES
        if repeats > 1:
            spreads.append(statistics.stdev(totals) / statistics.mean(totals))
    scale = whole / sum(parts.values())
    return (
        {name: value * scale for name, value in parts.items()},
        statistics.median(spreads) if spreads else 0.0,
        statistics.median(paces),
    )


def fit(sizes: Sequence[float], seconds: Sequence[float]) -> Line:
    """The line nearest to the measurements whose parts are not negative.

    Args:
        sizes: images, at least one number above 0.
        seconds: of each.
    """
    mean_x, mean_y = statistics.mean(sizes), statistics.mean(seconds)
    spread = sum((x - mean_x) ** 2 for x in sizes)
    if spread > 0:
        slope = sum(
            (x - mean_x) * (y - mean_y) for x, y in zip(sizes, seconds, strict=True)
        ) / spread  # fmt: skip
        intercept = mean_y - slope * mean_x
        if slope < 0:
            return Line(mean_y, 0.0)
        if intercept >= 0:
            return Line(intercept, slope)
    through_zero = sum(x * y for x, y in zip(sizes, seconds, strict=True))
    return Line(0.0, max(0.0, through_zero / sum(x * x for x in sizes)))


def ready_schedule(
    runs: Sequence[Sequence[tuple[float, int]]],
) -> tuple[tuple[float, float], ...]:
    """(share of time, share of bytes) as gradients become ready: medians over runs, thinned.

    Args:
        runs: per run (share of the backward's time, bytes) of each gradient in order.
    """
    total = sum(size for _, size in runs[0])
    times = [statistics.median(run[i][0] for run in runs) for i in range(len(runs[0]))]
    points: list[tuple[float, float]] = []
    done, shown, latest = 0, 0.0, 0.0
    for time, (_, size) in zip(times, runs[0], strict=True):
        done += size
        latest = min(1.0, max(latest, time))
        share = done / total
        if share - shown >= 1 / _READY_POINTS or done == total:
            points.append((latest, share))
            shown = share
    if points[-1] != (1.0, 1.0):
        points.append((1.0, 1.0))
    return tuple(points)


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    bf16 = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else ""
    return f"{device.type}, {torch.get_num_threads()} threads, {bf16}".rstrip(", ")


def _precision(setting: Setting) -> str:
    return "fp32" if setting.precision is None else "bf16"
