"""What the ledger and the order of samples cost a rank at scale: memory and time, no images.

    python benchmarks/ledger.py [--samples 10000000] [--classes 1000] [--ranks 1 4 64 1024]

Labels are drawn at random, and beliefs of the full width are filled in where a run would have
recorded them. Each line is one rank of so many, in a process of its own with one thread. Seconds
are the processor's, so that other work on the machine counts little; waiting for the disk is not in
them, nor is what ranks say to each other (one C x C matrix per EM step). "more" is the highest
memory beyond the ledger while the step ran. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from thresher.ledger.history import LedgerHistory
from thresher.ledger.ledger import Ledger
from thresher.ledger.repartition import gather_rows
from thresher.ledger.table import write_ledger
from thresher.loader.order import Order, choose_num_homes
from thresher.methods import all_methods
from thresher.methods.base import Method, Task
from thresher.methods.belief import WIDTH, Belief, as_columns
from thresher.sources.manifest import make_manifest
from thresher.types import Progress, Rows

BATCH = 4096
FILL_CHUNK = 2**16
MEGA = 2**20


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since ``measured`` began."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What ``work`` returns, its processor seconds, and its memory over that before, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
    before, started = resident("VmRSS"), time.process_time()
    result = work()
    return result, time.process_time() - started, (resident("VmHWM") - before) / MEGA


def make_order(samples: int, ranks: int, rank: int) -> Order:
    homes = choose_num_homes(samples)
    return Order(samples, BATCH, 1, rank=rank, world_size=ranks, num_homes=homes)


def random_beliefs(ledger: Ledger, name: str, num_classes: int) -> Iterator[Rows]:
    """Beliefs of the full width in random classes, the given label about as likely as others."""
    width = min(WIDTH, num_classes)
    draw = np.random.default_rng(len(name))
    for start in range(0, len(ledger), FILL_CHUNK):
        labels = ledger.labels[start : start + FILL_CHUNK]
        first = torch.from_numpy(draw.integers(num_classes - 1, size=(len(labels), 1)))
        others = (first + 61 * torch.arange(width - 1)) % (num_classes - 1)
        classes = torch.cat([labels[:, None], (labels[:, None] + 1 + others) % num_classes], dim=1)
        probs = torch.from_numpy(draw.random((len(labels), width), dtype=np.float32)) ** 4
        belief = Belief(classes, probs / probs.sum(dim=1, keepdim=True))
        yield as_columns(name, belief, num_classes)


def make_ledger(method: Method, ids: np.ndarray, num_classes: int) -> Ledger:
    """A ledger as it is late in a run, every page of it written."""
    labels = np.random.default_rng(2).integers(num_classes, size=len(ids))
    ledger = Ledger(ids, labels, method.columns)
    for name in ledger.columns:
        belief, _, kind = name.rpartition("_")
        if belief and kind in ("prob", "probs"):
            ledger.overwrite(random_beliefs(ledger, belief, num_classes))
    if "record_weight" in ledger.columns:
        ledger.columns["record_weight"].fill_(1.0)
    return ledger


def measure_rank(name: str, ranks: int, samples: int, num_classes: int) -> dict[str, Any]:
    """One rank's share of the work, with one method."""
    rank = ranks // 3
    order = make_order(samples, ranks, rank)
    _, order_seconds, order_memory = measured(lambda: (order.owned, order.positions(0)))
    _, epoch_seconds, epoch_memory = measured(lambda: order.positions(1))
    kind = all_methods()[name]
    options = kind.Options(rounds=3) if name == "mct" else kind.Options()
    method = kind(options, Task(num_classes, samples, 60, False))
    make_ledger(method, order.owned[:FILL_CHUNK], num_classes)  # what filling itself leaves behind
    before = resident("VmRSS")
    ledger = make_ledger(method, order.owned, num_classes)
    rows = len(ledger)
    result = {
        "method": name,
        "ranks": ranks,
        "samples_of_rank": rows,
        "column_bytes_per_sample": ledger.bytes_per_sample,
        # Labels lie beside the columns; ids are the order's own.
        "ledger_mib": (resident("VmRSS") - before) / MEGA,
        "order_seconds": order_seconds,
        "order_more_mib": order_memory,
        "epoch_seconds": epoch_seconds,
        "epoch_more_mib": epoch_memory,
    }
    history = LedgerHistory(ledger, lambda values: values)
    progress = Progress(16, 60, 0, 60, round=1, rounds=3)
    _, result["begin_seconds"], result["begin_more_mib"] = measured(
        lambda: ledger.overwrite(method.begin_epoch(history, progress))
    )
    if "record_weight" in ledger.columns:
        ledger.columns["record_weight"].fill_(1.0)
    _, result["judge_seconds"], result["judge_more_mib"] = measured(lambda: method.judge(history))
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "ledger.pt"
        _, result["save_seconds"], _ = measured(lambda: torch.save(ledger.state_dict(), saved))
        result["file_bytes_per_sample"] = round(saved.stat().st_size / rows, 1)
        result |= measure_move(method, saved, order)
    return result


def measure_move(method: Method, saved: Path, order: Order) -> dict[str, Any]:
    """Two ranks of twice as many take over this rank's file: one of them is measured.

    The parts of the other ranks are there with their ids alone; none of their rows is ours. The
    memory has the pages of the mapped file in it, which the system may take back.
    """
    ranks, samples = order.world_size, order.num_samples
    heir = order.owned[::2]
    others = [
        {"ids": torch.from_numpy(make_order(samples, ranks, rank).owned), "columns": {}}
        for rank in range(ranks)
        if rank != order.rank
    ]

    def parts() -> Iterator[dict[str, Any]]:
        yield torch.load(saved, map_location="cpu", weights_only=True, mmap=True)
        yield from others

    ledger = Ledger(heir, np.zeros(len(heir)), method.columns)
    _, seconds, memory = measured(lambda: gather_rows(ledger, parts()))
    return {"move_seconds": seconds, "move_more_mib": memory}


def measure_table(samples: int, num_classes: int) -> dict[str, Any]:
    """Writing the table for people of all samples, as the first rank does in the end."""
    labels = np.random.default_rng(2).integers(num_classes, size=samples).astype(np.int32)
    names = pa.array(range(samples)).cast(pa.string())
    manifest = make_manifest(
        kind="files",
        shards=["/data"],
        classes=[f"class {index}" for index in range(num_classes)],
        source="/data",
        keys=names,
        labels=labels,
    )
    scores = np.random.default_rng(3).random(samples, dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.parquet"
        _, seconds, memory = measured(
            lambda: write_ledger(
                path,
                manifest,
                np.arange(samples),
                suggested=labels,
                confidence=scores,
                clean_probability=scores,
                weight=scores,
                loss=scores,
                prob_given=scores,
                seen=np.ones(samples, dtype=np.int16),
            )
        )
        size = path.stat().st_size / samples
    return {"table_seconds": seconds, "table_more_mib": memory, "table_bytes_per_sample": size}


SHOWN = (
    "column_bytes_per_sample", "ledger_mib", "order_seconds", "epoch_seconds",
    "begin_seconds", "begin_more_mib", "judge_seconds", "judge_more_mib", "save_seconds",
    "move_seconds", "move_more_mib",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4, 64, 1024])
    parser.add_argument("--methods", nargs="+", default=sorted(all_methods()))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        torch.set_num_threads(1)
        name, ranks = args.one
        measure = (
            measure_table(args.samples, args.classes)
            if name == "table"
            else measure_rank(name, int(ranks), args.samples, args.classes)
        )
        print(json.dumps(measure))
        return

    def in_a_process(name: str, ranks: int) -> dict[str, Any]:
        command = [sys.executable, __file__, "--one", name, str(ranks)]
        command += ["--samples", str(args.samples), "--classes", str(args.classes)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found

    print(f"{args.samples:,} samples, {args.classes:,} classes")
    print("| method | ranks | " + " | ".join(name.replace("_", " ") for name in SHOWN) + " |")
    results = []
    for name in args.methods:
        for ranks in args.ranks:
            results.append(in_a_process(name, ranks))
            cells = " | ".join(f"{results[-1][shown]:,.4g}" for shown in SHOWN)
            print(f"| {name} | {ranks} | {cells} |", flush=True)
    table = in_a_process("table", 1)
    print(f"table for people: {table}")
    print(json.dumps({"samples": args.samples, "classes": args.classes, "ranks": results, **table}))


if __name__ == "__main__":
    main()
