"""Seconds over the batch: a straight line, or bent where a step was measured."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """Seconds as a function of the batch, ``intercept + slope * images`` without points.

    A step is no straight line: its fixed cost weighs on few images, and many images no longer fit
    into a processor's cache. So what was measured is kept, and read between.

    Attributes:
        intercept: seconds that do not depend on the batch, at least 0.
        slope: seconds per image, at least 0.
        points: (images, seconds) as measured, ascending in images; fewer than two say no more than
            the straight line.
    """

    intercept: float = 0.0
    slope: float = 0.0
    points: tuple[tuple[float, float], ...] = ()

    def __call__(self, images: float) -> float:
        """Seconds for this many images.

        Between two points on the line through them; below the first on the line through the first
        two, which ends at 0 seconds or above for 0 images; beyond the last by the straight line's
        slope, which all points know of: two of them would pass on their errors many times over.
        """
        if len(self.points) < 2:
            return self.intercept + self.slope * images
        place = bisect_right(self.points, images, key=_images)
        if place == len(self.points):
            last, seconds = self.points[-1]
            return seconds + self.slope * (images - last)
        low, high = self.points[max(0, place - 1)], self.points[max(1, place)]
        slope = (high[1] - low[1]) / (high[0] - low[0])
        if place == 0:
            slope = min(max(0.0, slope), low[1] / low[0])
        return low[1] + slope * (images - low[0])


def _images(point: tuple[float, float]) -> float:
    return point[0]
