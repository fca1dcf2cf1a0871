"""What a loader does to its process: memory that stays flat, and an end when it is asked to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

MEMORY = """
import io, json, sys, time
import numpy as np, psutil
from PIL import Image
from thresher.loader.pipeline import Loader

def photo(seed):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (12 + seed % 9, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((320, 200 + 10 * (seed % 7))).save(buffer, "JPEG")
    return buffer.getvalue()

images = [photo(seed) for seed in range(64)]
num = 512
loader = Loader(lambda index: images[index % 64], np.arange(num), np.zeros(num), size=224,
                framing="random_crop", threads=2, cache="none")
plan = np.arange(num).reshape(-1, 128)
rss = []
for epoch in range(20):
    for batch in loader.batches(epoch, plan):
        assert batch.valid.all()
    rss.append(psutil.Process().memory_info().rss / 1e6)
loader.close()
print(json.dumps(rss))
"""

ENDLESS = """
import sys
import numpy as np
from PIL import Image
from thresher.loader.pipeline import Loader
import io
buffer = io.BytesIO()
Image.new("RGB", (640, 480), "red").save(buffer, "JPEG")
loader = Loader(lambda index: buffer.getvalue(), np.arange(100000), np.zeros(100000), size=64,
                framing="random_crop", threads=4, cache="none")
for batch in loader.batches(0, np.arange(100000).reshape(-1, 100)):
    print("batch", flush=True)
"""


def test_memory_is_bounded_and_flat_over_twenty_epochs() -> None:
    # A large block is given back when it is freed, so that what is held can be seen. By itself
    # glibc comes to keep a dozen of them, sooner or later, of 19 MB each.
    surroundings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEMORY],
        capture_output=True, text=True, check=True, env=surroundings,
    )  # fmt: skip
    rss = json.loads(done.stdout)
    assert len(rss) == 20
    assert max(rss) < 1300
    # Up to four batches of 19 MB are in the making; losing one per epoch would come to 190 MB.
    assert max(rss[10:]) - max(rss[:10]) < 40, rss


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_process_and_leaves_nothing(
    number: signal.Signals, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", ENDLESS],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"batch\n"
        assert psutil.Process(process.pid).children() == []  # nothing that could be left behind
        process.send_signal(number)
        started = time.monotonic()
        process.stdout.read()
        assert process.wait(timeout=10) != 0
    assert time.monotonic() - started < 10
    assert list(tmp_path.iterdir()) == []
