"""How fast ``thresher scan`` goes over photographs, beside only decoding the same files.

    python benchmarks/scan.py --photos DIR [--images 8000] [--rounds 5] [--processes 2]

Three measurements by turns, each of the same files in the same number of processes: Pillow and
torchvision decoding every file in full and doing nothing else, and a scan into a new directory.
Small sets of photographs are repeated by hard links. The decoders' clock starts when their
processes are ready; the scan's includes starting its processes, and once more the whole command
with opening, comparing and the page. The last line is JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from thresher.scan.run import scan


def decode_with_pillow(data: bytes) -> None:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.load()


def decode_with_torchvision(data: bytes) -> None:
    import torch
    from torchvision.io import ImageReadMode, decode_image

    decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)


DECODERS = {"Pillow": decode_with_pillow, "torchvision": decode_with_torchvision}


def work(name: str, files: list[str], barrier: Barrier) -> None:
    if name == "torchvision":
        import warnings

        import torch

        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
    decode = DECODERS[name]
    decode(Path(files[0]).read_bytes())
    barrier.wait()
    for file in files:
        decode(Path(file).read_bytes())
    barrier.wait()


def decode_rate(name: str, files: list[str], processes: int) -> float:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    workers = [
        context.Process(target=work, args=(name, files[i::processes], barrier))
        for i in range(processes)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    started = time.perf_counter()
    barrier.wait()
    seconds = time.perf_counter() - started
    for worker in workers:
        worker.join()
    return len(files) / seconds


def repeat(photos: Path, into: Path, images: int) -> list[str]:
    """Hard links to the photographs (copies across file systems), at least ``images``."""
    sources = sorted(path for path in photos.rglob("*") if path.is_file())
    for copy in range(-(-images // len(sources))):
        folder = into / f"{copy:04d}"
        folder.mkdir(parents=True)
        for source in sources:
            try:
                os.link(source, folder / source.name)
            except OSError:
                (folder / source.name).write_bytes(source.read_bytes())
    return sorted(str(path) for path in into.rglob("*") if path.is_file())


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):8.0f} {min(values):8.0f} {max(values):8.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in [*DECODERS, "scan", "whole command"]}
    with tempfile.TemporaryDirectory(dir=given.photos.parent) as folder:
        files = repeat(given.photos, Path(folder, "photos"), given.images)
        for round_ in range(given.rounds):
            for name in DECODERS:
                rates[name].append(decode_rate(name, files, given.processes))
            result = scan(
                str(Path(folder, "photos")), Path(folder, f"out{round_}"), workers=given.processes
            )
            assert result.touched == len(files)
            rates["scan"].append(len(files) / result.looking_seconds)
            rates["whole command"].append(len(files) / result.seconds)
    print(f"{len(files)} files, {given.processes} processes, {given.rounds} rounds; images/s")
    print(f"{'':14s} {'median':>8s} {'lowest':>8s} {'highest':>8s}")
    for name, values in rates.items():
        print(f"{name:14s} {spread(values)}")
    # Against the faster decoder of the same round, so that a busy machine slows both.
    fastest = [max(pair) for pair in zip(*(rates[name] for name in DECODERS), strict=True)]
    ratios = [a / b for a, b in zip(rates["scan"], fastest, strict=True)]
    whole = [a / b for a, b in zip(rates["whole command"], fastest, strict=True)]
    summary: dict[str, Any] = {
        "ratio_to_decode": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "ratio_whole_command": round(statistics.median(whole), 3),
        "images_per_second": round(statistics.median(rates["scan"]), 1),
        "n": given.rounds,
        "images": len(files),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
