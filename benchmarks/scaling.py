"""How training scales over processes, and what travels between them.

    python benchmarks/scaling.py [--rounds 7] [--only WORDS …] [--out scaling.json]
    python benchmarks/scaling.py --only small_resnet --compress-gradients bf16

On this machine: 1, 2 and 4 processes of one core each, weak (the same batch for each process) and
strong (the same batch over all), by cross-entropy, beside plain DistributedDataParallel training
the same network on the same batches, block by block in turn. Between hosts (network namespaces
on a link of 1 Gbit/s and 1 ms round trip; needs root): 2 and 4 processes with both networks of
Thresher's own method on each, and with one of the two on each (--placement apart).

"exposed" is how long gradients still travel when the last rank has computed its last one; what
`thresher plan` calls so, too. "added" is all that an exchange adds to a step: the time of a step
less that of one in which ranks exchange nothing but four flags, so that they still go in step. It
has "exposed" in it, and the work of sending and adding up, which a CPU that trains does by itself.
"waiting" is what going in step adds to a mean rank's step if ranks exchange nothing at all: each
takes as long as the slowest. "emulation" is what of the step the cores spent on carrying packets
between the hosts, which real hosts leave to their network; it is part of "added".
Prints a table and a last line of JSON; --out writes every record, as plan_check.py takes them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import hosts, launch
from rich.console import Console
from rich.table import Table

BATCH = 128
"""Per process where the batch is the same for each; over all processes where it is shared out."""
RANK = Path(__file__).parent / "cluster" / "rank.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Case:
    """One set of processes.

    Attributes:
        mode: weak or strong.
        link: what joins them.
        batch: per process.
        steps: of one block.
    """

    processes: int
    mode: str
    link: str
    method: str
    placement: str
    batch: int
    model: str = "small_cnn"
    steps: int = 12

    def __str__(self) -> str:
        what = f"{self.model} {self.method} {self.placement}"
        return f"{self.processes} x {self.batch} {what}, {self.mode}, {self.link}"


def measure(case: Case, rounds: int, net: hosts.Network | None, compression: str) -> dict[str, Any]:
    """What rank 0 found."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rank.json"
        words = [
            str(RANK), "--batch", str(case.batch), "--model", case.model, "--method", case.method,
            "--placement", case.placement, "--rounds", str(rounds), "--steps", str(case.steps),
            "--compress-gradients", compression, "--out", str(out),
            "--interface", "lo" if net is None else "eth0",
        ]  # fmt: skip
        if net is not None and net.relay is not None:
            words += ["--relay", str(net.relay)]
        if net is None:
            torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
            command = [sys.executable, *torchrun, str(case.processes), *words]
            done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
            failed = done.stderr if done.returncode else ""
        else:
            ends = launch.torchrun(net, words, env=ENVIRONMENT)
            failed = "".join(end.stderr for end in ends if end.code)
        if failed:
            raise SystemExit(f"{case} failed:\n{failed[-3000:]}")
        found: dict[str, Any] = json.loads(out.read_text())
        found["compress_gradients"] = compression
        return found


def run(case: Case, rounds: int, compression: str = "none") -> dict[str, Any]:
    """Measure a case, between hosts if its processes are on several, and work out its figures."""
    with contextlib.ExitStack() as stack:
        here = case.link == "lo"
        net = None if here else stack.enter_context(hosts.network(case.processes))
        return record(case, measure(case, rounds, net, compression))


def record(case: Case, found: dict[str, Any]) -> dict[str, Any]:
    """A case's figures; images are counted once, however many networks see them."""
    sides = found["sides"]
    ours = sides["ours"]
    holders = case.processes // (2 if case.placement == "apart" else 1)
    in_step, alone = sides.get("ours, in step", ours), sides.get("ours, alone", ours)
    free = statistics.mean(alone["own_seconds_per_step"])
    figures = {
        "processes": case.processes,
        "placement": case.placement,
        "model": case.model,
        "method": case.method,
        "mode": case.mode,
        "link": case.link,
        "batch_per_process": case.batch,
        "images_per_second": case.batch * holders / ours["seconds_per_step"],
        "seconds_per_step": ours["seconds_per_step"],
        # Of one of the processes while the others sleep, in the same minutes.
        "alone_seconds": sides.get("ours, the others idle", ours)["seconds_per_step"],
        "spread": [min(ours["all"]), max(ours["all"])],
        "exposed_seconds": ours["exposed_per_step"] if case.processes > 1 else 0.0,
        "added_seconds": max(0.0, ours["seconds_per_step"] - in_step["seconds_per_step"]),
        "waiting_seconds": max(0.0, in_step["seconds_per_step"] - free),
        "emulation_seconds": ours["carrying_per_step"] / (os.cpu_count() or 1),
        # The loopback interface carries what all processes of this machine send.
        "bytes_per_step": ours["bytes_per_step"] / (case.processes if case.link == "lo" else 1),
        "n": len(ours["all"]),
        "compress_gradients": found["compress_gradients"],
    }
    if "plain" in sides:
        figures["plain_images_per_second"] = (
            case.batch * holders / sides["plain"]["seconds_per_step"]
        )
        figures["plain_bytes_per_step"] = sides["plain"]["bytes_per_step"] / (
            case.processes if case.link == "lo" else 1
        )
        pairs = zip(ours["all"], sides["plain"]["all"], strict=True)
        ratios = sorted(a / b for a, b in pairs)
        if case.processes > 1:
            figures["plain_exposed_seconds"] = sides["plain"]["exposed_per_step"]
        figures["time_over_plain"] = ratios[len(ratios) // 2]
        figures["time_over_plain_spread"] = [ratios[0], ratios[-1]]
    return figures


def cases_here() -> list[Case]:
    weak = [Case(n, "weak", "lo", "ce", "together", BATCH) for n in (1, 2, 4)]
    strong = [Case(n, "strong", "lo", "ce", "together", BATCH // n) for n in (2, 4)]
    return weak + strong


def cases_between_hosts() -> list[Case]:
    name = "1 Gbit/s, 1 ms"
    apart = [
        # Both see a batch of the same size: half the processes hold one network each.
        Case(n, "weak", name, "mct", placement, BATCH * (2 if placement == "apart" else 1))
        for n in (2, 4)
        for placement in ("together", "apart")
    ]
    # Backward takes longer than the exchange only where a network is not that small.
    large = Case(2, "weak", name, "ce", "together", BATCH, "small_resnet", steps=3)
    return [Case(2, "weak", name, "ce", "together", BATCH), large, *apart]


def show(records: list[dict[str, Any]], console: Console) -> None:
    table = Table(title=f"{os.cpu_count()} cores, a thread per process; medians of n blocks")
    for name in ("link", "network", "method", "placement", "mode", "processes", "batch each",
                 "images/s", "plain DDP", "time / plain", "waiting", "exposed", "added",
                 "emulation", "KB sent a step", "n"):  # fmt: skip
        table.add_column(name, justify="left" if name in ("link", "network", "method") else "right")
    for r in records:
        low, high = r.get("time_over_plain_spread", (0, 0))
        table.add_row(
            r["link"], r["model"], r["method"], r["placement"], r["mode"], str(r["processes"]),
            str(r["batch_per_process"]), f"{r['images_per_second']:,.0f}",
            f"{r['plain_images_per_second']:,.0f}" if "plain_images_per_second" in r else "",
            f"{r['time_over_plain']:.3f} ({low:.2f}-{high:.2f})" if "time_over_plain" in r else "",
            f"{r['waiting_seconds'] / r['seconds_per_step']:.0%}",
            f"{r['exposed_seconds'] / r['seconds_per_step']:.1%}",
            f"{r['added_seconds'] / r['seconds_per_step']:.0%}",
            f"{r['emulation_seconds'] / r['seconds_per_step']:.0%}",
            f"{r['bytes_per_step'] / 1e3:,.0f}", str(r["n"]),
        )  # fmt: skip
    console.print(table)


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What all the cases on this machine came to, and those between hosts if they were measured."""

    def one(
        processes: int, link: str = "lo", mode: str = "weak", model: str = "small_cnn", **more: str
    ) -> dict[str, Any]:
        wanted = {"processes": processes, "link": link, "mode": mode, "model": model, **more}
        return next((r for r in records if wanted.items() <= r.items()), {})

    alone, two, four = one(1), one(2), one(4)
    out: dict[str, Any] = {
        "efficiency_2": two["images_per_second"] / 2 / alone["images_per_second"],
        "overhead_vs_ddp": two["time_over_plain"] - 1,
        "overhead_vs_ddp_spread": [value - 1 for value in two["time_over_plain_spread"]],
        "images_per_second_1_2_4": [r["images_per_second"] for r in (alone, two, four)],
    }
    names = ("small_cnn", "small_resnet")
    between = [one(2, "1 Gbit/s, 1 ms", method="ce", model=name) for name in names]
    if all(between):
        for part in ("exposed", "added", "emulation"):
            shares = [r[f"{part}_seconds"] / r["seconds_per_step"] for r in between]
            out[f"{part}_share_1gbit"] = dict(zip(names, shares, strict=True))
        both = [
            one(n, "1 Gbit/s, 1 ms", method="mct", placement=p)
            for n in (2, 4)
            for p in ("together", "apart")
        ]
        out["bytes_per_step_together_apart"] = [round(r["bytes_per_step"]) for r in both]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each side")
    parser.add_argument("--out", type=Path, help="write every record here")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORDS",
        help="cases whose name contains one of these, such as '2 x 128 small_cnn ce together';"
        " without a summary",
    )  # fmt: skip
    parser.add_argument(
        "--compress-gradients", choices=["none", "bf16"], default="none", help="Thresher's own"
    )
    given = parser.parse_args()
    console = Console(width=170)

    def wanted(cases: list[Case]) -> list[Case]:
        return [case for case in cases if any(words in str(case) for words in given.only)]

    here, between = wanted(cases_here()), wanted(cases_between_hosts())
    if not here and not between:
        names = "\n  ".join(map(str, [*cases_here(), *cases_between_hosts()]))
        parser.error(f"--only fits none of these cases:\n  {names}")
    reason = hosts.why_not() if between else None
    cases = here if reason is not None else [*here, *between]
    records = [run(case, given.rounds, given.compress_gradients) for case in cases]
    show(records, console)
    if reason is not None:
        console.print(f"Nothing was measured between hosts: this {reason}.")
    if given.out is not None:
        given.out.write_text(json.dumps(records, indent=1) + "\n")
    if given.only != [""]:
        return
    rounded = json.loads(
        json.dumps(summary(records)), parse_float=lambda text: round(float(text), 4)
    )
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
