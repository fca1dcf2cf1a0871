"""A profile with round figures."""

from __future__ import annotations

import pytest

from thresher.plan.line import Line
from thresher.plan.profile import Profile


@pytest.fixture
def profile() -> Profile:
    """One image takes 10 ms of forward and 20 ms of backward; a network has 100 MB."""
    return Profile(
        hardware="a test",
        network="round",
        method="mct",
        networks=2,
        parameters=25_000_000,
        gradient_bytes=100e6,
        batch=10,
        cores=1,
        decodes_beside=True,
        forward=Line(0.0, 0.010),
        backward=Line(0.0, 0.020),
        update=Line(0.05, 0.0),
        augment=Line(0.0, 0.001),
        ledger=Line(0.01, 0.0),
        ready=((0.5, 0.5), (1.0, 1.0)),
        decode_rate=1000.0,
        cached_rate=10_000.0,
        image_bytes=1e5,
        weight_bytes=600e6,
        optimizer_bytes=200e6,
        activation_bytes=1e6,
        ledger_bytes=100.0,
        cache_bytes=150e3,
        peer_bytes=96.0,
    )
