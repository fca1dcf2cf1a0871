"""What a line of progress says of waiting."""

from __future__ import annotations

import dataclasses

import torch
from rich.console import Console

from thresher.train.meter import EpochMetrics, Meter, Waits
from thresher.train.progress import Display

METRICS = EpochMetrics(
    epoch=1, epochs=2, round=1, loss=(0.5,), lr=0.1, kept_share=1.0, accuracy=None, images=10,
    images_per_second=5.0, data_wait_share=0.05, seconds=2.0,
)  # fmt: skip


def test_a_line_names_a_wait_that_is_worth_it() -> None:
    display = Display(Console(quiet=True), 1, "nothing", keeps=False, active=False)
    assert "bound" not in display.figures(METRICS)
    data = dataclasses.replace(METRICS, data_wait_share=0.5)
    assert "bound by data 50% (try thresher pack" in display.figures(data)
    exchange = dataclasses.replace(METRICS, exchange_wait_share=0.3)
    assert "bound by communication 30%" in display.figures(exchange)


def test_a_wait_that_will_end_needs_no_advice() -> None:
    display = Display(Console(quiet=True), 1, "nothing", keeps=True, active=False)
    display.on_start(3)
    waits = dataclasses.replace(METRICS, data_wait_share=0.5, epochs=9)
    line = display.figures(dataclasses.replace(waits, epoch=4))
    assert "bound by data 50% (in this epoch, in which images are decoded to be kept)" in line
    assert "try thresher pack" in display.figures(dataclasses.replace(waits, epoch=5))


def test_waits_go_on_after_a_resume_and_never_shrink() -> None:
    meter = Meter(1, torch.device("cpu"))
    meter.resume_clock(Waits(1.0, 2.0))
    first = meter.stop_clock(Waits(1.5, 2.25))
    assert first.waiting == (0.5, 0.25)
    other = Meter(1, torch.device("cpu"))
    other.load_state_dict(meter.state_dict())
    other.resume_clock(Waits(0.0, 0.0))
    # The exchange is estimated, and an estimate may fall.
    assert other.so_far(Waits(0.5, -1.0))[1].waiting == (1.0, 0.0)
