"""How fast a core of this machine is just now, by a fixed piece of work.

Cores shared with others are a fifth faster in one minute than in the next. Measurements of
different minutes can be compared by what this took in each of them.
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F

from thresher.models.factory import create_model

_IMAGES, _SIDE, _CLASSES = 128, 32, 10


class Pace:
    """Forward and backward of a small network, always the same, in one thread on the CPU."""

    def __init__(self) -> None:
        self._network = create_model("small_cnn", _CLASSES).to(memory_format=torch.channels_last)
        self._images = torch.randn(_IMAGES, 3, _SIDE, _SIDE)
        self._labels = torch.arange(_IMAGES) % _CLASSES
        self()  # allocates, and chooses kernels

    def __call__(self) -> float:
        """Seconds that it took."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self._network(self._images)
        loss = F.cross_entropy(logits.float(), self._labels)
        torch.autograd.backward(loss)
        seconds = time.perf_counter() - start
        torch.set_num_threads(threads)
        return seconds
