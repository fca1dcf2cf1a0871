"""From samples' ids to their squares of pixels: the work of a decoding thread or process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from thresher.loader.canvas import (
    EVALUATION_MARGIN,
    MIN_CROP_AREA,
    Box,
    all_of_it,
    centre_box,
    cut,
    random_box,
)
from thresher.loader.decode import DecodeError, decode_part

Framing = Literal["whole", "centre", "random_crop"]
Made = tuple[int, int] | Exception
"""Height and width of an upright image whose square is there, or why it is not."""
_GROUP, _READ_BYTES, _DECODED_BYTES = 32, 8 * 2**20, 16 * 2**20
"""Images that are read, decoded and framed together, and how much memory they may take."""


class _Decoded(NamedTuple):
    """An image that is not framed yet: uint8[H, W, 3], its part for the square, its whole size."""

    pixels: np.ndarray
    box: Box
    seen: tuple[int, int]


def has_reason(error: Exception) -> bool:
    """Whether this is one image's reason why it cannot be used; all other errors end the run."""
    return isinstance(error, DecodeError | OSError)


def _go_on(_sample: int) -> bool:
    return True


@dataclass(frozen=True)
class Maker:
    """Reads, decodes and frames samples.

    Args:
        read: bytes of a sample by manifest id.
        framing: how an image becomes a square.
        min_area: least share of an image that a random crop shows.
    """

    read: Callable[[int], bytes]
    framing: Framing
    min_area: float = MIN_CROP_AREA

    def __call__(self, sample: int, draws: np.ndarray | None, out: np.ndarray) -> tuple[int, int]:
        """Fill one square; see ``many``.

        Returns:
            Height and width of the upright image.

        Raises:
            DecodeError: the image cannot be used.
            Exception: whatever ``read`` raises.
        """
        decoded = self._decode(self.read(sample), draws, out.shape[0])
        cut(decoded.pixels, decoded.box, out)
        return decoded.seen

    def many(
        self,
        samples: Sequence[int],
        draws: np.ndarray | None,
        outs: Sequence[np.ndarray],
        going: Callable[[int], bool] = _go_on,
    ) -> list[Made]:
        """Fill squares, a group at a time: all are read, then all decoded, then all framed.

        Each of the three drives the others' code and data out of the processor's caches; with
        turns for every image they take 5 to 10 % longer.

        Args:
            samples: manifest ids.
            draws: float32[n, CROP_DRAWS] of random crops; None: nothing is random, and of images
                that are to be cropped later all is kept.
            outs: uint8[S, S, 3] of each.
            going: told a sample before its turns; whether to go on.

        Returns:
            For each sample, in order. Fewer than there are samples if told to stop, or after an
            error that is no image's reason, which comes last.
        """
        made: list[Made] = []
        while len(made) < len(samples):
            group = slice(len(made), len(made) + _GROUP)
            some_draws = None if draws is None else draws[group]
            some = self._make_some(samples[group], some_draws, outs[group], going)
            made += some
            if not some or _ends_the_run(some[-1]):
                break
        return made

    def _make_some(
        self,
        samples: Sequence[int],
        draws: np.ndarray | None,
        outs: Sequence[np.ndarray],
        going: Callable[[int], bool],
    ) -> list[Made]:
        """The first few of these."""
        made: list[Made] = []
        waiting: dict[int, _Decoded] = {}
        num_bytes = 0
        for index, data in enumerate(self._read_some(samples, going)):
            if isinstance(data, Exception):
                made.append(data)
                continue
            if not going(samples[index]):
                break
            try:
                draw = None if draws is None else draws[index]
                decoded = self._decode(data, draw, outs[index].shape[0])
            except Exception as error:
                made.append(error)
                if not has_reason(error):
                    break
                continue
            made.append(decoded.seen)
            waiting[index] = decoded
            num_bytes += decoded.pixels.nbytes
            if num_bytes > _DECODED_BYTES:
                _frame(waiting, outs, made)
                if _ends_the_run(made[-1]):
                    return made
                num_bytes = 0
        _frame(waiting, outs, made)
        return made

    def _read_some(
        self, samples: Sequence[int], going: Callable[[int], bool]
    ) -> list[bytes | Exception]:
        """The bytes of the first few; an error that is no image's reason comes last."""
        found: list[bytes | Exception] = []
        num_bytes = 0
        for sample in samples:
            if num_bytes > _READ_BYTES or not going(sample):
                break
            try:
                data = self.read(sample)
            except Exception as error:
                found.append(error)
                if not has_reason(error):
                    break
                continue
            found.append(data)
            num_bytes += len(data)
        return found

    def _decode(self, data: bytes, draws: np.ndarray | None, side: int) -> _Decoded:
        seen = (0, 0)

        def choose(height: int, width: int) -> Box:
            nonlocal seen
            seen = height, width
            if draws is not None:
                return random_box(height, width, draws, self.min_area)
            if self.framing == "random_crop":
                return all_of_it(height, width)
            return centre_box(height, width, EVALUATION_MARGIN if self.framing == "centre" else 1.0)

        pixels, box = decode_part(data, choose, side)
        return _Decoded(pixels, box, seen)


def _frame(waiting: dict[int, _Decoded], outs: Sequence[np.ndarray], made: list[Made]) -> None:
    """Cut out what waits, by its place, and let go of it; an error comes last in what is made."""
    for index, decoded in waiting.items():
        try:
            cut(decoded.pixels, decoded.box, outs[index])
        except Exception as error:
            made[index:] = [error]
            break
    waiting.clear()


def _ends_the_run(made: Made) -> bool:
    return isinstance(made, Exception) and not has_reason(made)
