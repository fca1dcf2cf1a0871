"""How well ``thresher plan`` predicts: against swCaffe's published speed-ups, and our own runs.

    python benchmarks/plan_check.py [--out docs/figures]
    python benchmarks/plan_check.py --sets SETS --cores 2 [--out docs/figures]

prints the comparison and a last line of JSON; with --out it writes scaling.json and scaling.svg
there. The swCaffe part needs no machine but this one and takes a second.

--sets is the folder that ``plan_sets.py`` wrote: sets of profiles and of the runs that they are to
predict, taken right after one another; --cores are those that all processes shared. Even within
these minutes the machine may be a third slower when the profile is taken than when the run is. So a
run of several processes also times one of them while the others sleep, and the profile's step is
brought to that time: the error is that of what the planner says of many processes beside one. A run
of one process is held against the profile as it is, and so is "as profiled" for all. With several
sets these are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from charts.efficiency import Panel, Series, draw

from thresher.plan.line import Line
from thresher.plan.link import Link
from thresher.plan.link_file import load_link
from thresher.plan.predict import Job, Prediction, predict
from thresher.plan.profile import Profile
from thresher.plan.published import CASES, NODES, STORAGE, Published, machine

IMAGES = 1_281_167
"""ImageNet's training set."""
COUNTS = [2**p for p in range(11)]


def swcaffe(
    case: Published, nodes: int = NODES, link: Link | None = None, **change: Any
) -> Prediction:
    """The planner's prediction from published figures alone; ``change`` for sensitivity."""
    profile = change.pop("profile", case.profile)
    options: dict[str, Any] = {
        "batch_per_process": case.batch_per_node,
        "algorithm": "hierarchical",
        "storage": STORAGE,
        **change,
    }
    job = Job(images=IMAGES, overlap=False, **options)
    return predict(profile, link or machine(), job, nodes)


def sensitivity(case: Published) -> dict[str, float]:
    """Predicted speed-up on 1,024 nodes under one change at a time; none of them is a fit."""
    base = machine()

    def wires(factor: float = 1.0, latency: float = 1.0) -> Link:
        levels = [
            replace(level, bandwidth=level.bandwidth * factor, latency=level.latency * latency)
            for level in base.levels
        ]
        return replace(base, levels=tuple(levels))

    def speed(factor: float) -> Profile:
        lines = {
            name: Line(0.0, getattr(case.profile, name).slope / factor)
            for name in ("forward", "backward")
        }
        return replace(case.profile, **lines)

    found = {
        "as published": swcaffe(case),
        "all-reduce blind to supernodes": swcaffe(case, algorithm="halving-doubling"),
        "peak bandwidth, 16 GB/s": swcaffe(case, link=wires(16 / 12)),
        "half the bandwidth, 6 GB/s": swcaffe(case, link=wires(0.5)),
        "ten times the latency": swcaffe(case, link=wires(latency=10)),
        "adding up at 10 GB/s": swcaffe(case, link=replace(base, reduction=10e9)),
        "nodes twice as fast": swcaffe(case, profile=speed(2)),
        "nodes half as fast": swcaffe(case, profile=speed(0.5)),
        "half the images per node": swcaffe(case, batch_per_process=case.batch_per_node // 2),
        "a quarter of the images per node": swcaffe(
            case, batch_per_process=case.batch_per_node // 4
        ),
        "step times vary by 5 %": swcaffe(case, variation=0.05),
        "all storage through 32 GB/s": swcaffe(case, storage=32e9),
    }
    return {name: one.speedup for name, one in found.items()}


def compare(case: Published) -> dict[str, Any]:
    found = swcaffe(case)
    # What the exchange must have taken if everything else were as in the model.
    implied = found.compute * (NODES / case.speedup - 1)
    size = case.profile.gradient_bytes
    return {
        "network": case.profile.network,
        "batch_per_node": case.batch_per_node,
        "published": case.speedup,
        "predicted": round(found.speedup, 2),
        "error": round(found.speedup / case.speedup - 1, 4),
        "exchange_seconds": round(found.exposed, 4),
        "implied_exchange_seconds": round(implied, 3),
        "implied_bytes_per_second": round(2 * size * (NODES - 1) / NODES / implied),
        "sensitivity": {name: round(value, 1) for name, value in sensitivity(case).items()},
    }


def swapped() -> list[Published]:
    """The same speed-ups with the networks the other way round, see docs/scaling.md."""
    first, second = CASES
    return [
        replace(first, speedup=second.speedup, source="abstract, swapped"),
        replace(second, speedup=first.speedup, source="abstract, swapped"),
    ]


def check_set(folder: Path, cores: int) -> list[dict[str, Any]]:
    """Every run of a set with its prediction: all processes share the cores of one node.

    A process that holds one of two networks serves its own images and its twin's; the planner
    counts them once.
    """
    profiles = [Profile.load(path) for path in sorted(folder.glob("*.profile.json"))]
    here, hosts = (load_link(str(folder / f"{name}.link.yaml")) for name in ("here", "hosts"))
    rows = []
    for run in json.loads((folder / "measured.json").read_text()):
        job = Job(
            images=IMAGES,
            batch_per_process=int(run["batch_per_process"])
            // (2 if run["placement"] == "apart" else 1),
            processes_per_node=int(run["processes"]),
            placement=run["placement"],
            cores_per_node=cores,
            cached=True,
        )
        profile, link = _profile_for(run, profiles), here if run["link"] == "lo" else hosts
        as_profiled = predict(profile, link, job, 1).images_per_second
        if int(run["processes"]) > 1:
            profile = at_speed_of(run, profile)
        found = predict(profile, link, job, 1)
        predicted = {
            "predicted_images_per_second": round(found.images_per_second, 2),
            "predicted_exposed_seconds": round(found.exposed, 5),
            "error": round(found.images_per_second / run["images_per_second"] - 1, 4),
            "error_as_profiled": round(as_profiled / run["images_per_second"] - 1, 4),
        }
        rows.append({**run, **predicted})
    return rows


def at_speed_of(run: dict[str, Any], profile: Profile) -> Profile:
    """The profile as it would be where a process's step takes as long as one did in this run."""
    batch, half = run["batch_per_process"], 0.5 if run["placement"] == "apart" else 1.0
    networks = ("forward", "backward", "update")
    own = half * sum(getattr(profile, name)(batch) for name in networks)
    longer = run["alone_seconds"] / (own + profile.augment(batch) + profile.ledger(batch))
    times = {
        name: Line(
            line.intercept * longer,
            line.slope * longer,
            tuple((images, seconds * longer) for images, seconds in line.points),
        )
        for name in (*networks, "augment", "ledger")
        for line in [getattr(profile, name)]
    }
    return replace(profile, **times, exchange_seconds=longer * profile.exchange_seconds)


def over_sets(sets: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The same runs in each set as one, by medians; of spreads the lowest and the highest."""
    rows = []
    for same in zip(*sets, strict=True):
        row = dict(same[0])
        for name, value in row.items():
            values = [one[name] for one in same]
            if isinstance(value, float):
                row[name] = round(statistics.median(values), 6)
            elif isinstance(value, list):
                row[name] = [min(low for low, _ in values), max(high for _, high in values)]
        errors = [one["error"] for one in same]
        rows.append({**row, "error_spread": [min(errors), max(errors)]})
    return rows


def _profile_for(run: dict[str, Any], profiles: list[Profile]) -> Profile:
    for profile in profiles:
        if (profile.method, profile.network) == (run["method"], run["model"]):
            return profile
    raise SystemExit(f"No profile of the set is of {run['model']} by '{run['method']}'.")


def published_panel() -> Panel:
    series = []
    for case in CASES:
        points = [(n, swcaffe(case, n).speedup / n) for n in COUNTS]
        series.append(Series(f"{case.profile.network}, predicted", points))
    for case in CASES:
        point = [(NODES, case.speedup / NODES)]
        series.append(Series(f"{case.profile.network}, published", point, dots=True))
    return Panel("swCaffe on Sunway TaihuLight", "nodes; efficiency against one", series)


def measured_panel(rows: list[dict[str, Any]]) -> Panel:
    """Images per second and process, measured and predicted, over the first measured."""
    series = []
    kinds = sorted({_kind(row) for row in rows})
    for kind in kinds:
        mine = sorted(
            (row for row in rows if _kind(row) == kind),
            key=lambda row: int(row["processes"]),
        )
        for key, word in (("predicted_images_per_second", "predicted"),
                          ("images_per_second", "measured")):  # fmt: skip
            first = mine[0]["images_per_second"] / mine[0]["processes"]
            points = [(row["processes"], row[key] / row["processes"] / first) for row in mine]
            series.append(Series(f"{_words(mine[0])}, {word}", points, dots=word == "measured"))
    return Panel(
        "Our own processes", "processes; images/s of each, over the first measured", series
    )


def _kind(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("link", "model", "method", "placement", "mode"))


def _words(row: dict[str, Any]) -> str:
    """For a chart's legend, which is narrow."""
    words = [row["model"], row["method"], row["placement"], row["link"].split(",")[0]]
    if row["method"] == "ce":
        words.remove(row["placement"])  # of one network
    return ", ".join([*words, *(["strong"] if row["mode"] == "strong" else [])])


def show(rows: list[dict[str, Any]], title: str) -> None:
    print(f"{title}\n{'network':10}{'batch':>6}{'published':>11}{'predicted':>11}{'error':>8}"
          f"{'exchange':>10}{'implied':>9}{'at GB/s':>9}")  # fmt: skip
    for row in rows:
        print(
            f"{row['network']:10}{row['batch_per_node']:6}{row['published']:10.1f}x"
            f"{row['predicted']:10.1f}x{row['error']:+8.1%}{row['exchange_seconds']:8.3f} s"
            f"{row['implied_exchange_seconds']:7.2f} s{row['implied_bytes_per_second'] / 1e9:9.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sets", type=Path, metavar="FOLDER")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    folders = sorted(args.sets.glob("set-*")) if args.sets else []
    if args.sets and not folders:
        parser.error(f"--sets: {args.sets} has no set-1; plan_sets.py writes such a folder")

    rows = [compare(case) for case in CASES]
    turned = [compare(case) for case in swapped()]
    show(rows, "swCaffe, 1,024 nodes; networks and speed-ups as the abstract orders them")
    for row in rows:
        print(f"\n{row['network']} under one change at a time (published {row['published']}x)")
        for name, value in row["sensitivity"].items():
            print(f"  {name:34}{value:9.1f}x{value / row['published'] - 1:+9.1%}")
    print()
    show(turned, "the same with the networks the other way round")

    panels = [published_panel()]
    measured = None
    if folders:
        measured = over_sets([check_set(folder, args.cores) for folder in folders])
        panels.append(measured_panel(measured))
        print(f"\n{len(folders)} sets; medians\n"
              f"{'processes':>9} {'link':16}{'network':14}{'method':7}{'placement':10}{'mode':8}"
              f"{'batch':>6}{'measured':>10}{'predicted':>11}{'as profiled':>13}"
              f"{'error':>8}")  # fmt: skip
        for row in measured:
            low, high = row["error_spread"]
            print(
                f"{row['processes']:9} {row['link']:16}{row['model']:14}{row['method']:7}"
                f"{row['placement']:10}{row['mode']:8}{row['batch_per_process']:6}"
                f"{row['images_per_second']:10.1f}{row['predicted_images_per_second']:11.1f}"
                f"{row['error_as_profiled']:+13.1%}{row['error']:+8.1%} ({low:+.1%} to {high:+.1%})"
            )
    result = {
        "command": "python benchmarks/plan_check.py",
        "link": asdict(machine()),
        "swcaffe": rows,
        "swcaffe_swapped": turned,
        "sets": len(folders),
        "measured": measured,
        "worst_measured_error": max((abs(r["error"]) for r in measured), default=None)
        if measured
        else None,
    }
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "scaling.json").write_text(json.dumps(result, indent=1) + "\n")
        (args.out / "scaling.svg").write_text(draw(panels))
    print(json.dumps({key: value for key, value in result.items() if key != "link"}))


if __name__ == "__main__":
    main()
