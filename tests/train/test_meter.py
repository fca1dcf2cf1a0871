"""The meter's sums, by hand."""

from __future__ import annotations

import torch

from thresher.train.meter import Meter
from thresher.types import StepResult


def test_images_and_weights_are_counted_exactly_whatever_the_weights_are_kept_in() -> None:
    """float16 counts to 2,048 one by one and ends at 65,504; batches are larger."""
    num = 70_001
    valid = torch.ones(num, dtype=torch.bool)
    valid[0] = False
    weight = torch.ones(num, 2, dtype=torch.float16)
    weight[:, 1] = 0.5
    losses = torch.tensor(2.0), torch.tensor(3.0)
    sums = torch.tensor(4.0), torch.tensor(5.0)
    meter = Meter(2, torch.device("cpu"))
    for _ in range(2):
        meter.add(StepResult(losses, sums, {"weight": weight}), valid)
    assert meter.sums.tolist() == [4, 6, 8, 10, 2 * 0.75 * (num - 1), 2 * (num - 1)]
    assert meter.is_finite()
