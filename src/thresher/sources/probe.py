"""What can be said of images before any is trained on: size, format, or why they cannot be read."""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from thresher.errors import UserError
from thresher.sources.manifest import Manifest
from thresher.sources.read import Reader, ReadError
from thresher.sources.request import printable
from thresher.sources.sniff import not_an_image

MOST_PIXELS = 89_478_485  # where PIL begins to warn; 0.25 GiB of RGB
_warnings_lock = threading.Lock()  # the list of warning filters belongs to the whole process


class Header(NamedTuple):
    """What an image's header says, before any orientation in its EXIF data is applied."""

    width: int
    height: int
    format: str


@dataclass(frozen=True)
class Probe:
    """What a random part of the data looks like.

    Attributes:
        sizes: int32[k, 2], width and height of the readable ones.
        unreadable: reasons by id.
    """

    sizes: np.ndarray
    unreadable: dict[int, str]


def check_readable(data: bytes) -> Header | str:
    """The image's header, or the reason why it is none. Pixels are not decoded."""
    opened = _open(data)
    if isinstance(opened, str):
        return opened
    with opened:
        return Header(opened.width, opened.height, opened.format or "unknown")


def check_decodable(data: bytes) -> Header | str:
    """As ``check_readable``, but the pixels are decoded too: a truncated file is found."""
    opened = _open(data)
    if isinstance(opened, str):
        return opened
    with opened:
        header = Header(opened.width, opened.height, opened.format or "unknown")
        opened.draft("RGB", (64, 64))  # a JPEG is decoded at an eighth of its size: faster
        try:
            with _warnings_lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                opened.load()
        except Exception as error:
            return f"damaged image: {_reason(error)}"
    return header


def probe(manifest: Manifest, reader: Reader, sample: int = 256, seed: int = 0) -> Probe:
    """Look at the headers of a random sample (a function of the seed) of the usable images."""
    usable = np.flatnonzero(manifest.usable)
    if len(usable) > sample:
        usable = np.sort(np.random.default_rng(seed).choice(usable, size=sample, replace=False))
    sizes: list[tuple[int, int]] = []
    unreadable: dict[int, str] = {}
    for index in usable.tolist():
        found = _check(reader, index, decode=False)
        if isinstance(found, str):
            unreadable[index] = found
        else:
            sizes.append((found.width, found.height))
    return Probe(np.array(sizes, dtype=np.int32).reshape(-1, 2), unreadable)


def require_readable_classes(manifest: Manifest, reader: Reader) -> dict[int, str]:
    """Decode images of each class until one is good.

    Classes without any usable sample in the manifest are passed over: a part of a data set may
    lack some of the classes it names.

    Returns:
        The unreadable ones met on the way, reasons by id.

    Raises:
        UserError: a class has no readable image.
    """
    rows = np.flatnonzero(manifest.usable)
    labels = manifest.labels[rows]
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=len(manifest.classes)))
    unreadable: dict[int, str] = {}
    start = 0
    for name, end in zip(manifest.classes, ends.tolist(), strict=True):
        members = rows[order[start:end]]
        start = end
        for index in members.tolist():
            found = _check(reader, index, decode=True)
            if not isinstance(found, str):
                break
            unreadable[index] = found
        else:
            if len(members):
                raise _none_readable(manifest, name, members, unreadable)
    return unreadable


def _check(reader: Reader, index: int, *, decode: bool) -> Header | str:
    try:
        data = reader.read(index)
    except ReadError as error:
        return str(error)
    return check_decodable(data) if decode else check_readable(data)


def _none_readable(
    manifest: Manifest, name: str, members: np.ndarray, unreadable: dict[int, str]
) -> UserError:
    first = int(members[0])
    num = len(members)
    return UserError(
        f"Class '{printable(name)}' in {manifest.source} has no readable image: "
        f"{num} file{'s' * (num > 1)}, the first: {printable(manifest.key(first))} "
        f"({unreadable[first]})."
    )


def _open(data: bytes) -> Image.Image | str:
    if not data:
        return "empty file"
    try:
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        return not_an_image(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "too many pixels: it may be a decompression bomb"
    except Exception as error:  # PIL's readers raise whatever their parsing stumbles over
        return f"damaged image: {_reason(error)}"
    if image.width * image.height > MOST_PIXELS:
        return "too many pixels: it may be a decompression bomb"
    return image


def _reason(error: Exception) -> str:
    return printable(str(error).strip() or type(error).__name__)[:200]
