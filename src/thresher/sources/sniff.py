"""What bytes are that cannot be read as an image, in words for the person who has to mend it."""

from __future__ import annotations

import re

_HEAD = 512
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<body)", re.IGNORECASE)
_SVG = re.compile(
    rb"\s*(<\?xml[^>]*\?>\s*)?(<!--.*?-->\s*)*(<!doctype svg[^>]*>\s*)?<svg", re.I | re.S
)
_BRANDS = {
    **dict.fromkeys(
        [b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"], "a HEIC image"
    ),
    **dict.fromkeys([b"avif", b"avis"], "an AVIF image"),
    **dict.fromkeys([b"isom", b"iso2", b"mp41", b"mp42", b"qt  ", b"M4V "], "a film"),
}
_STARTS = {
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL image",
    b"\xff\x0a": "a JPEG XL image",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF file",
    b"%!PS": "a PostScript file",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x1aE\xdf\xa3": "a film",
}
_POINTER = b"version https://git-lfs.github.com/"


def not_an_image(data: bytes) -> str:
    """The reason why bytes that no reader takes are none, as a sample's state."""
    head = data[:_HEAD]
    if head.startswith(_POINTER):
        return "not an image: a pointer of Git LFS; 'git lfs pull' fetches what it stands for"
    if _PAGE.match(head):
        return "not an image: a web page, such as servers send for images that are gone"
    kind = "an SVG drawing" if _SVG.match(head) else None
    if head[4:8] == b"ftyp":
        kind = _BRANDS.get(head[8:12])
    kind = kind or next((what for start, what in _STARTS.items() if head.startswith(start)), None)
    if kind is not None:
        return f"{kind}, which is not read here"
    if not any(head):
        return "not an image: nothing but zeros"
    return f"not an image: it begins with {data[:8]!r}"
