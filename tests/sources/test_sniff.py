"""Bytes that are no image are named by what they are."""

from __future__ import annotations

import pytest

from thresher.sources.sniff import not_an_image


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\n<!DOCTYPE html><html>", "not an image: a web page"),
        (b"<html><body>404", "not an image: a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        (b'<?xml version="1.0"?>\n<!-- a --><svg xmlns="x"/>', "an SVG drawing, which is not read"),
        (b"<svg/>", "an SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image, which is not read here"),
        (b"\0\0\0\x18ftypqt  \0\0\0\0", "a film"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"%PDF-1.4", "a PDF file"),
        (b"PK\x03\x04rest", "a ZIP archive"),
        (b"\0" * 4096, "not an image: nothing but zeros"),
        (b"\0\0\0\x18ftyp????", "not an image: it begins with"),
        (b"nope", "not an image: it begins with b'nope'"),
    ],
)
def test_what_it_is(data: bytes, says: str) -> None:
    assert says in not_an_image(data)
