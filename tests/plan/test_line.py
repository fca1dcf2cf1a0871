"""Seconds over the batch, read off by hand."""

from __future__ import annotations

import pytest

from thresher.plan.line import Line

# A fixed cost up to 20 images; 40 no longer fit into the cache.
BENT = Line(0.0, 0.5, ((10.0, 10.0), (20.0, 14.0), (40.0, 30.0)))


def test_straight_without_points() -> None:
    assert Line(1.0, 2.0)(3) == 7.0
    # One point is on the line already.
    assert Line(1.0, 2.0, ((3.0, 7.0),))(5) == 11.0


@pytest.mark.parametrize(
    ("images", "seconds"),
    [
        (10, 10.0),
        (15, 12.0),
        (20, 14.0),
        (30, 22.0),
        (40, 30.0),
        # Below: the first two points' slope of 0.4; beyond: the line's 0.5.
        (5, 8.0),
        (0, 6.0),
        (60, 40.0),
    ],
)
def test_bent_where_it_was_measured(images: float, seconds: float) -> None:
    assert BENT(images) == pytest.approx(seconds)


def test_below_the_first_point_time_is_neither_negative_nor_falls() -> None:
    # Noise made 20 images take four times as long as 10: the line goes through zero at most.
    assert Line(0.0, 1.0, ((10.0, 1.0), (20.0, 4.0)))(5) == pytest.approx(0.5)
    # Noise made 20 images quicker than 10: fewer do not take longer.
    assert Line(0.0, 1.0, ((10.0, 4.0), (20.0, 3.0)))(5) == pytest.approx(4.0)
