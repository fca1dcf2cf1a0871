"""How fast photographs reach a trainer, beside other loaders on the same files.

    python benchmarks/loader.py --photos DIR [--rounds 5] [--images 4096] [--min-crop-area 0.08]

Every loader does the same work in two workers: JPEG files -> random part of the image, antialiased
to 224 x 224 (and a mirror image at random where the loader does that on the host; Thresher does it
on the device) -> batches of 128 in uint8. Parts show 8 to 100 % of an image, the default of
torchvision and timm; Thresher's own is 25 to 100 % (--min-crop-area 0.25). All take turns in one
run, so that a busy machine slows all of them. A loader's clock starts after its first batches, so
that starting workers costs none of them anything. CPU time is measured beside it: it depends less
on what else the machine does.

DIR is a folder of photographs; a few are repeated under other names until there are --images.
Without --photos, photograph-like JPEGs are made; quote figures from real ones only. WebDataset
(`pip install 'thresher[bench]'`) and DALI (`pip install nvidia-dali-cuda120`) are left out where
they are missing. The last line is JSON; ratios are medians over rounds to the baseline (torchvision
ImageFolder + PIL + DataLoader on the original files) of the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import torch
from loaders import others, ours, photos

WARM_UP = 3
"""Batches before the clock starts: workers have started, and what they made ahead is taken."""
Feed = Callable[[], Iterator[int]]
"""Starts a loader afresh and yields the size of each batch."""


class Rate:
    """Images per second and milliseconds of CPU per image, of one pass."""

    def __init__(self, feed: Feed) -> None:
        before, started, images, total = _cpu(), 0.0, 0, 0
        for step, num in enumerate(feed()):
            total += num
            if step == WARM_UP:
                started = time.perf_counter()
            elif step > WARM_UP:
                images += num
        self.rate = images / (time.perf_counter() - started)
        self.cpu = (_cpu() - before) / total * 1e3


def _cpu() -> float:
    """CPU seconds of this process and of its children, ended ones and living ones."""
    own = psutil.Process().cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system
    return float(total)


def feeds(tree: Path, packed: Path, files: list[str], min_area: float) -> dict[str, Feed]:
    found: dict[str, Feed | None] = {
        "torchvision, files (baseline)": partial(others.torchvision_loader, tree, min_area),
        "torchvision, packed": partial(others.torchvision_on_tars, packed, min_area),
        "timm, files": partial(others.timm_loader, tree, min_area),
        "WebDataset + PIL, packed": others.webdataset_loader(packed, min_area),
        "DALI on the CPU, files": others.dali_loader(files, min_area),
        "decoding only, files": partial(ours.decode_only, files),
        "Thresher, files": ours.Thresher(tree, "none", min_area=min_area),
        "Thresher, files, in processes": ours.Thresher(
            tree, "none", "processes", min_area=min_area
        ),
        "Thresher, packed": ours.Thresher(packed, "none", min_area=min_area),
        "Thresher, kept in memory": ours.Thresher(tree, "host", min_area=min_area),
    }
    return {name: feed for name, feed in found.items() if feed is not None}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--min-crop-area", type=float, default=0.08)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")  # the others' loaders have deprecations of their own
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="loader-benchmark-") as folder:
        source = given.photos
        if source is None:
            print("No --photos DIR: made JPEGs stand in for photographs. Do not quote the figures.")
            source = photos.make(Path(folder, "made"), num=min(given.images, 50))
        tree, packed = Path(folder, "tree"), Path(folder, "packed")
        files = photos.spread(source, tree, given.images)
        photos.pack_tree(tree, packed)
        results: dict[str, list[Rate]] = {}
        all_feeds = feeds(tree, packed, files, given.min_crop_area)
        for _ in range(given.rounds):
            for name, feed in all_feeds.items():
                results.setdefault(name, []).append(Rate(feed))
        memory = psutil.Process().memory_info().rss
    report(results, len(files), given, memory)


def report(
    results: dict[str, list[Rate]], num: int, given: argparse.Namespace, memory: int
) -> None:
    base = results["torchvision, files (baseline)"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"{num} images, {given.rounds} rounds, parts of {given.min_crop_area:.0%} or more,"
        f" {cores} cores, load {os.getloadavg()[0]:.1f};"
        " medians, with the lowest and highest in brackets"
    )
    print(f"{'':32s} {'images/s':>22s} {'ratio':>20s} {'CPU ms/image':>13s}")
    for name, rates in results.items():
        print(
            f"{name:32s} {_range([r.rate for r in rates], 0):>22s}"
            f" {_range(_ratios(rates, base), 2):>20s}"
            f" {statistics.median(r.cpu for r in rates):13.2f}"
        )
    main_ones = {
        "ratio_files": _ratios(results["Thresher, files"], base),
        "ratio_packed": _ratios(results["Thresher, packed"], base),
        "ratio_cached": _ratios(results["Thresher, kept in memory"], base),
        "decode_limit_share": _ratios(results["Thresher, files"], results["decoding only, files"]),
    }
    summary: dict[str, object] = {
        name: round(statistics.median(values), 3) for name, values in main_ones.items()
    }
    summary["spread"] = {
        name: [round(min(values), 3), round(max(values), 3)] for name, values in main_ones.items()
    }
    rivals = {
        name: round(statistics.median(_ratios(rates, base)), 3)
        for name, rates in results.items()
        if not name.startswith(("Thresher", "decoding"))
    }
    packed = {name: rivals.pop(name) for name in list(rivals) if "packed" in name}
    best, best_packed = (max(names, key=names.__getitem__) for names in (rivals, packed))
    summary |= {
        "best_other": best,
        "ratio_best_other": rivals[best],
        "best_other_packed": best_packed,
        "ratio_best_other_packed": packed[best_packed],
        "images": num,
        "min_crop_area": given.min_crop_area,
        "n": given.rounds,
        "cores": cores,
        "rss_mb": round(memory / 1e6),
    }
    print(json.dumps(summary))


def _ratios(rates: list[Rate], to: list[Rate]) -> list[float]:
    return [a.rate / b.rate for a, b in zip(rates, to, strict=True)]


def _range(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f} {high:.{digits}f}]"


if __name__ == "__main__":
    main()
