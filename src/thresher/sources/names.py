"""Which files are images, and the order that people expect of names with numbers in them."""

from __future__ import annotations

import importlib.util
import re
import unicodedata

import pyarrow as pa

_ALWAYS = {"jpg", "jpeg", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm"}
_AVIF = {"avif"} if importlib.util.find_spec("PIL._avif") else set()
IMAGE_EXTENSIONS = frozenset(_ALWAYS | _AVIF)
BAD_NAME = "file name is not UTF-8"

_NUMBER = re.compile(r"([0-9]+)")


def extension(name: str) -> str:
    """The last extension in lower case, without its dot; empty if there is none."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def is_image_name(name: str) -> bool:
    """Whether the extension is that of an image format that can be decoded here."""
    return extension(name) in IMAGE_EXTENSIONS


def is_skipped(name: str) -> bool:
    """Whether a file or folder is hidden, or the litter that macOS leaves in archives."""
    return name.startswith(".") or name == "__MACOSX"


def plain_name(name: str) -> str:
    """A name without what is easily typed otherwise: case, and spaces of any kind."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def natural_key(name: str) -> tuple[bool, int, list[str | int], str]:
    """Sort key: whole numbers first and by value, then names with their numbers by value.

    'a2' comes before 'a10', '-1' before '0'. The name itself breaks ties ('a1', 'a01').
    """
    digits = name.removeprefix("-")
    if digits.isascii() and digits.isdecimal():
        return (False, int(name), [], name)
    # re.split with a group alternates text and digits, so that like is compared with like.
    parts: list[str | int] = [
        int(part) if index % 2 else part.casefold()
        for index, part in enumerate(_NUMBER.split(name))
    ]
    return (True, 0, parts, name)


def to_utf8(names: list[str]) -> tuple[pa.Array, list[int]]:
    """Names from the file system as an Arrow column, and the rows that are not UTF-8.

    Such a name (a crawl from a GBK machine, say) is kept in an escaped form, for people only: the
    file cannot be found by it.
    """
    try:
        return pa.array(names, type=pa.string()), []
    except UnicodeEncodeError:
        clean = [name.encode("utf-8", "backslashreplace").decode() for name in names]
        bad = [row for row, name in enumerate(names) if name != clean[row]]
        return pa.array(clean, type=pa.string()), bad
