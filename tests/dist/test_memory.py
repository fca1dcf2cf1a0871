"""Blocks that are freed stay with the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from thresher.dist.memory import keep_memory

# A block of 64 MiB is 16,384 pages. The first five to eight are fetched in any case, until one with
# room for its alignment is found among those that were freed.
PROGRAM = """
import resource
from thresher.dist.memory import keep_memory
kept = keep_memory()
import torch
faults = []
for _ in range(32):
    torch.ones(2**24)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(int(kept), faults[-1] - faults[-9])
"""


def faults(**change: str) -> tuple[int, int]:
    """(whether memory is kept, pages fetched for the last eight of 32 blocks as large)."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    clean.pop("GLIBC_TUNABLES", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**clean, **change}, capture_output=True, text=True
    )
    kept, count = done.stdout.split()
    return int(kept), int(count)


def test_a_block_is_fetched_once() -> None:
    kept, count = faults()
    if not kept:
        pytest.skip("no glibc")
    assert count < 100


def test_who_has_set_the_library_up_is_not_overruled() -> None:
    assert not keep_memory({"MALLOC_TRIM_THRESHOLD_": "100000"})
    assert not keep_memory({"GLIBC_TUNABLES": "glibc.malloc.check=1"})
    kept, _ = faults(MALLOC_TOP_PAD_="65536")
    assert not kept
