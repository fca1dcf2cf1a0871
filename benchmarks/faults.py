"""Break a training of several processes in every way that happens, and see that nothing is lost.

    python benchmarks/faults.py

Trains a small network on made images in 2 processes, once undisturbed and then in episodes with
faults at random moments, many of them while a checkpoint is being written: kill -9 of one rank, of
all, of the launcher; SIGTERM; a full disk; a checkpoint truncated, flipped by one bit, deleted; a
rank that stalls. After each fault training must go on (by --max-restarts or --resume). At the end
of an episode the weights must equal the undisturbed run's to the bit, and every sample must have
been seen once an epoch. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from safetensors.torch import load_file

from thresher.ledger.rows import saved_columns

EPOCHS = 30
IMAGES = 1000
PEER_TIMEOUT = 15.0
"""Also bounds how long the ranks may take to meet again; machines may be busy."""
COMMON = (
    "--method", "mct", "--epochs", EPOCHS, "--batch-size", 24, "--image-size", 16,
    "--val-share", 0, "--accelerator", "cpu", "--checkpoint-minutes", 0,
    "--peer-timeout", PEER_TIMEOUT, "--devices", 2,
)  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "5"}
STOPPED = 143


def make_images(folder: Path) -> None:
    """Two classes that differ by brightness, with noise that must be learnt."""
    rng = np.random.default_rng(0)
    for label, level in (("dark", 100), ("light", 140)):
        (folder / label).mkdir(parents=True)
        for index in range(IMAGES // 2):
            pixels = rng.integers(level - 90, level + 90, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index:04d}.png")


class Training:
    """One run, started again as often as it takes."""

    def __init__(self, data: Path, out: Path, log: Path, max_restarts: int) -> None:
        self.out = out
        self._log = log
        self._words = [
            sys.executable, "-m", "thresher", "train", str(data), "--out", str(out),
            *map(str, COMMON), "--max-restarts", str(max_restarts),
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        words = [*self._words, *(["--resume"] if (self.out / "config.yaml").exists() else [])]
        with self._log.open("a") as log:
            self.launcher = subprocess.Popen(words, stdout=log, stderr=log, env=ENVIRONMENT)

    def ranks(self) -> list[psutil.Process]:
        """The processes that train, by rank; waits while they are being started."""
        give_up = time.monotonic() + 60
        found: dict[int, psutil.Process] = {}
        while len(found) < 2 and time.monotonic() < give_up:
            found = {}
            for child in psutil.Process(self.launcher.pid).children():
                with suppress(psutil.Error, KeyError):
                    found[int(child.environ()["RANK"])] = child
        return [found[rank] for rank in sorted(found)]

    def wait_for_progress(self) -> bool:
        """Until a checkpoint newer than now is there; False if the run ended before."""
        before = self.newest()
        give_up = time.monotonic() + 120
        while self.newest() <= before:
            if self.launcher.poll() is not None:
                return False
            if time.monotonic() > give_up:
                raise SystemExit(f"no progress within two minutes; see {self._log}")
            time.sleep(0.01)
        return True

    def wait_for_save(self) -> None:
        """Until a checkpoint is half-written, or a little longer."""
        give_up = time.monotonic() + 2
        while time.monotonic() < give_up and not list(self.checkpoints.glob(".*.tmp")):
            pass

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    def newest(self) -> str:
        if not self.checkpoints.is_dir():
            return ""
        return max((p.name for p in self.checkpoints.iterdir() if p.name[0].isdigit()), default="")

    def end(self) -> int:
        """Wait for the launcher; its exit code."""
        return self.launcher.wait(timeout=300)

    def log(self) -> str:
        return self._log.read_text()


def kill_one(run: Training, dice: random.Random) -> None:
    """The launcher starts all ranks again."""
    dice.choice(run.ranks()).kill()


def kill_all(run: Training, _: random.Random) -> None:
    for rank in run.ranks():
        rank.kill()


def kill_launcher(run: Training, _: random.Random) -> None:
    """Its orphans must notice, save and leave; the next start waits for them."""
    orphans = run.ranks()
    run.launcher.kill()
    run.launcher.wait()
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert not alive, f"ranks outlive their launcher: {alive}"
    run.start()


def terminate(run: Training, _: random.Random) -> None:
    run.launcher.terminate()
    code = run.end()
    assert code == STOPPED, f"exit code {code} after SIGTERM"
    run.start()


def fill_disk(run: Training, _: random.Random) -> None:
    """Until a save has failed; training must go on meanwhile."""
    before = run.log().count("no checkpoint was written")
    ballast = run.out / "ballast"
    give_up = time.monotonic() + 30
    with ballast.open("wb", buffering=0) as file:
        while run.log().count("no checkpoint was written") == before:
            # Again and again: a save that was nearly done makes room by dropping an older one.
            with suppress(OSError):
                while file.write(bytes(1 << 12)):
                    pass
            if time.monotonic() > give_up:
                break
            time.sleep(0.05)
    ballast.unlink()
    assert run.log().count("no checkpoint was written") > before, "no save failed"
    assert run.launcher.poll() is None, "a full disk ended the run"


def damage(how: Callable[[Path], None]) -> Callable[[Training, random.Random], None]:
    """All processes die, and the newest checkpoint is not what it was."""

    def strike(run: Training, dice: random.Random) -> None:
        while len(list(run.checkpoints.glob("0*-0*"))) < 2:
            time.sleep(0.05)  # one to fall back on
        ranks = run.ranks()
        run.launcher.kill()
        for rank in ranks:
            rank.kill()
        psutil.wait_procs(ranks)
        run.launcher.wait()
        newest = run.checkpoints / run.newest()
        how(dice.choice(sorted(newest.iterdir())))
        run.start()

    return strike


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 4
    file.write_bytes(data)


def stall(run: Training, dice: random.Random) -> None:
    """A stopped rank must be named by the other; the launcher starts all again."""
    number = dice.randrange(2)
    sentence = f"rank {number} of 2 says nothing any more"
    before = run.log().count(sentence)
    run.ranks()[number].suspend()
    give_up = time.monotonic() + 3 * PEER_TIMEOUT + 15
    while run.log().count(sentence) == before:
        assert time.monotonic() < give_up, "a stalled rank was not named"
        time.sleep(0.1)


FAULTS: dict[str, Callable[[Training, random.Random], None]] = {
    "kill one rank": kill_one,
    "kill all ranks": kill_all,
    "kill the launcher": kill_launcher,
    "SIGTERM": terminate,
    "full disk": fill_disk,
    "truncated checkpoint": damage(truncate),
    "flipped bit": damage(flip_a_bit),
    "deleted part": damage(Path.unlink),
    "stalled rank": stall,
}
EPISODES: tuple[tuple[str, ...], ...] = (
    ("kill one rank",) * 4,
    ("kill all ranks",) * 3,
    ("kill the launcher",) * 3,
    ("SIGTERM",) * 3,
    ("full disk", "kill one rank", "full disk"),
    ("truncated checkpoint", "flipped bit", "deleted part"),
    ("stalled rank", "SIGTERM", "stalled rank"),
    ("kill the launcher", "flipped bit", "kill one rank", "SIGTERM"),
)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.name}/{name}": value
        for path in sorted(out.glob("model*.safetensors"))
        for name, value in load_file(path).items()
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def each_seen_once_an_epoch(run: Training) -> bool:
    newest = run.checkpoints / run.newest()
    seen = [
        saved_columns(torch.load(path, weights_only=True))["seen"]
        for path in sorted(newest.glob("ledger-*.pt"))
    ]
    counts = torch.cat(seen)
    return len(counts) == IMAGES and bool((counts == EPOCHS).all())


@contextmanager
def small_disk(folder: Path, wanted: bool) -> Iterator[Path]:
    """A file system that can be filled; an ordinary folder where none is wanted."""
    folder.mkdir()
    if wanted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    try:
        yield folder / "run"
    finally:
        if wanted:
            subprocess.run(["umount", folder], check=True)


def play(
    faults: tuple[str, ...], data: Path, folder: Path, whole: dict[str, torch.Tensor], seed: int
) -> tuple[int, bool]:
    """One episode; returns (faults that struck a training run, all is as if there were none)."""
    dice = random.Random(seed)
    with small_disk(folder, "full disk" in faults) as out:
        run = Training(data, out, folder.with_suffix(".log"), max_restarts=3 * len(faults))
        struck = 0
        for fault in faults:
            if not run.wait_for_progress():
                break
            if dice.random() < 0.5:
                run.wait_for_save()
            else:
                time.sleep(dice.uniform(0, 1.0))
            FAULTS[fault](run, dice)
            struck += 1
        code = run.end()
        good = code == 0 and same(weights(out), whole) and each_seen_once_an_epoch(run)
        if not good:
            print(f"exit code {code}; the end of the log:\n{run.log()[-2000:]}")
        return struck, good


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims")
    parser.add_argument("--episodes", type=int, nargs="*", help="only these, counted from 0")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="thresher-faults-"))
    data = work / "data"
    make_images(data)
    undisturbed = Training(data, work / "whole", work / "whole.log", max_restarts=0)
    assert undisturbed.end() == 0, undisturbed.log()
    whole = weights(work / "whole")
    chosen = range(len(EPISODES)) if arguments.episodes is None else arguments.episodes
    can_mount = os.geteuid() == 0
    faults = survived = 0
    all_good = True
    for number in chosen:
        if "full disk" in EPISODES[number] and not can_mount:
            print(f"left out, since mounting a small file system needs root: {EPISODES[number]}")
            continue
        started = time.monotonic()
        struck, good = play(
            EPISODES[number], data, work / f"episode-{number}", whole, arguments.seed + number
        )
        faults += struck
        survived += struck if good else 0
        all_good &= good and struck == len(EPISODES[number])
        print(
            f"{', '.join(EPISODES[number])}: {struck} faults,"
            f" {'as if nothing had happened' if good else 'NOT THE SAME'},"
            f" {time.monotonic() - started:.0f} s",
            flush=True,
        )
    if all_good:
        shutil.rmtree(work)
    print(json.dumps({"faults": faults, "survived": survived, "bitwise_equal": all_good}))
    sys.exit(0 if all_good else 1)


if __name__ == "__main__":
    main()
