"""Thresher's training step beside others': the same network on the same folder of images.

    python benchmarks/step.py --rounds 7 --out step.jsonl       all that this machine is fit for
    python benchmarks/step.py --cases small --timm-train pytorch-image-models/train.py
    python benchmarks/step.py --device cuda --cases preact photo --timm-train ...   a GPU's targets
    python benchmarks/step.py --cases small --loop-only --rounds 30     the loop's own share
    python benchmarks/step.py --guard                           what the tests hold fast

The sides, block by block in turn: Thresher's own loop with its loader, ledger and meter; a bare
step (the same network, precision, views, SGD and average, and nothing else); PyTorch as its
tutorials have it, in float32 and with bfloat16 and channels_last; a step put together from timm's
parts; timm's ``train.py`` itself where its path is given; noisypy's cross-entropy where noisypy is
installed. The last two start anew in every round, and their start is not counted. PyTorch and
timm's parts have a process of their own, the bare step has Thresher's with its settings. These
have all images decoded in memory; ``train.py`` and noisypy read them in every epoch, with their
own workers. See ``steps/timm_train.py`` for what of it is counted.

| case | network | images | for |
|---|---|---|---|
| small | ``small_cnn`` | examples/fashion-noisy, 28 px, batch 128 | the demo's step |
| preact | PreActResNet-18 | made, 32 px, batch 256 | a GPU's images/s; slow on a CPU |
| photo | ResNet-50 | made, 224 px, batch 16; on a GPU 256 | photographs |

Of photographs Thresher crops anew each time; those who have them in memory take the middle.

Ratios are medians over the rounds of the ratios within each; above 1 Thresher is quicker. The bare
step takes turns with Thresher's in much shorter blocks of its own, see ``steps/pairs.py``.
``mct_over_ce``, ``mct_views_1_over_ce`` (``--mct.views 1``) and ``overhead_over_bare_step`` are
Thresher's own costs. On a GPU the bare step is recorded as a CUDA graph, as Thresher's is, and
Thresher and PyTorch are timed with ``torch.compile`` too. ``vs_timm`` is against ``train.py`` if it
was given, else against timm's parts: ``vs_timm_is`` says which. ``cpu`` has ratios of the
processor's time. Mutual calibration's step is the mean over a round, in whose last 40 % teachers
are asked; judging between the rounds is not in it. Every step has the batch's full shape; in
Thresher's some places may repeat others, where the images do not come out even. The last line is
JSON; ``--out`` gets every figure as it comes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from steps import cases, noisypy, timm_train
from steps.alone import Alone, sides_on
from steps.cases import Case
from steps.figures import (
    BARE,
    COMPILED,
    MCT,
    MCT_1,
    MCT_COMPILED,
    NOISYPY,
    OURS,
    OURS_COMPILED,
    TIMM,
    Found,
    Record,
    ratios,
    show,
)  # fmt: skip
from steps.others import bare
from steps.own import compiled, decoded, round_of, steps_of, work_of
from steps.pairs import Pairs
from steps.spent import Block

from thresher.config import Precision
from thresher.dist.runtime import Runtime
from thresher.train.resolve import accelerator_of, best_precision


def sides_of(
    case: Case,
    runtime: Runtime,
    precision: Precision,
    given: argparse.Namespace,
    until: contextlib.ExitStack,
) -> tuple[dict[str, Block], list[str], Pairs]:
    """Every side by name, a line for each absent side, and the loop's pairs with a bare step.

    ``until`` closes what the sides use.
    """
    ours = work_of(case, "ce", runtime, precision)
    until.callback(ours.feed.close)
    absent: list[str] = []
    images, bf16 = decoded(ours), precision == "bf16"
    pairs = Pairs(ours, bare(images, bf16))
    found: dict[str, Block] = {BARE: pairs.block}
    if given.loop_only:
        return found, absent, pairs
    found[OURS] = lambda steps: steps_of(ours, steps)
    folder = Path(until.enter_context(tempfile.TemporaryDirectory()))
    alone = Alone(images, bf16, folder)
    until.callback(alone.close)
    found |= {name: alone.block(name) for name in sides_on(runtime.device)}
    if case.mct:
        for name, views in ((MCT, 2), (MCT_1, 1)):
            mct = work_of(case, "mct", runtime, precision, like=ours, rounds=1, views=views)
            found[name] = lambda _, mct=mct: round_of(mct)
    if COMPILED in found:
        found[OURS_COMPILED] = lambda steps: steps_of(compiled(ours), steps)
        if case.mct:
            mct = work_of(case, "mct", runtime, precision, like=ours, rounds=1)
            found[MCT_COMPILED] = lambda _: round_of(compiled(mct))
    if given.timm_train is not None:
        found[TIMM] = timm_train.block_of(given.timm_train, case, runtime.device, bf16, images.lr)
    else:
        absent.append("timm's train.py: not given (--timm-train)")
    lacking = noisypy.missing()
    if lacking is None:
        found[NOISYPY] = noisypy.block_of(case, runtime.device, images.lr)
    else:
        absent.append(f"noisypy: not present ({lacking} is not installed)")
    return found, absent, pairs


def measure(
    case: Case, runtime: Runtime, precision: Precision, given: argparse.Namespace, record: Record
) -> dict[str, Any]:
    with contextlib.ExitStack() as until:
        return compare(case, *sides_of(case, runtime, precision, given, until), given, record)


def compare(
    case: Case,
    sides: dict[str, Block],
    absent: list[str],
    pairs: Pairs,
    given: argparse.Namespace,
    record: Record,
) -> dict[str, Any]:
    found: Found = {name: [] for name in sides}
    for name, side in sides.items():
        if name not in (BARE, MCT, MCT_1, MCT_COMPILED, TIMM, NOISYPY):
            side(min(case.steps, 5))  # allocates, chooses kernels
    for turn in range(given.rounds):
        names = list(sides)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            spent = sides[name](case.steps)
            found[name].append(spent)
            record.add(case, turn, name, spent)
        print(f"{case.name}: round {turn + 1} of {given.rounds}", file=sys.stderr)
    show(case, found, absent)
    return ratios(case.batch, found, pairs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=cases.NAMES, help="default: by the device")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="of PyTorch on the processor")
    parser.add_argument(
        "--timm-train", type=Path, default=timm_train.find(), help="your copy of timm's train.py"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two rounds of few steps with one thread"
    )
    parser.add_argument(
        "--loop-only", action="store_true", help="nothing but Thresher's loop and the bare step"
    )
    parser.add_argument(
        "--guard", action="store_true",
        help="few steps of the loop and what it is held against, with one thread",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="every figure as it comes, one line of JSON each")
    given = parser.parse_args()
    if given.timm_train is not None and not given.timm_train.is_file():
        parser.error(f"there is no {given.timm_train}")
    if given.quick or given.guard:
        given.cases, given.device = ["small"], "cpu"
        given.threads = 1
        given.loop_only |= given.guard
    if given.quick:
        given.rounds = 2
    return given


def main() -> None:
    given = parse()
    if given.threads:
        torch.set_num_threads(given.threads)
    kind = accelerator_of(given.device)
    on_gpu = kind == "cuda"
    precision = best_precision(kind)
    runtime = Runtime(kind, precision, alone=True)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if on_gpu else kind, "precision": precision,
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    record = Record(given.out, result)
    names = given.cases or (["preact", "photo", "small"] if on_gpu else ["small", "photo"])
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            case = cases.make(name, given.quick or given.guard, on_gpu, Path(folder) / name)
            result[name] = measure(case, runtime, precision, given, record)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
