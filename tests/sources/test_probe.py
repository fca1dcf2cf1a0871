from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import pytest
from PIL import Image

from thresher.errors import UserError
from thresher.sources.detect import open_source
from thresher.sources.probe import (
    Header,
    check_decodable,
    check_readable,
    probe,
    require_readable_classes,
)
from thresher.sources.read import Reader

from .conftest import make_image, write_tree


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_good_image_of_each_format(kind: str) -> None:
    data = make_image(1, size=(5, 7), kind=kind)
    assert check_readable(data) == Header(5, 7, kind)
    assert check_decodable(data) == Header(5, 7, kind)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html><body>404", "not an image: a web page, such as"),
        (make_image(0)[:10], "damaged image: Truncated File Read"),
        (huge_png(30_000, 30_000), "too many pixels"),  # beyond PIL's error
        (huge_png(10_000, 10_000), "too many pixels"),  # beyond PIL's warning
    ],
)
def test_what_is_not_an_image_has_a_reason_and_gives_no_warning(data: bytes, reason: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = check_readable(data)
        assert isinstance(found, str)
        assert found.startswith(reason)
        assert check_decodable(data) == found
    assert caught == []


def test_a_truncated_image_has_a_good_header_only() -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    cut = buffer.getvalue()[:1500]
    assert check_readable(cut) == Header(64, 64, "JPEG")
    reason = check_decodable(cut)
    assert isinstance(reason, str)
    assert reason.startswith("damaged image: ")


def test_probe_looks_at_a_sample_that_the_seed_fixes(tmp_path: Path) -> None:
    files = {f"{i % 2}/{i}.jpg": make_image(i, size=(10 + i, 5)) for i in range(30)}
    files["0/bad.jpg"] = b"nope"
    manifest = open_source(str(write_tree(tmp_path, files)))
    bad = next(i for i in range(31) if manifest.key(i) == "0/bad.jpg")
    reader = Reader(manifest)
    whole = probe(manifest, reader)
    assert whole.sizes.shape == (30, 2)
    assert sorted(whole.sizes[:, 0].tolist()) == list(range(10, 40))
    assert whole.unreadable == {bad: "not an image: it begins with b'nope'"}
    first, again = (probe(manifest, reader, sample=8, seed=3) for _ in range(2))
    other = probe(manifest, reader, sample=8, seed=4)
    assert len(first.sizes) + len(first.unreadable) == 8
    assert first.sizes.tolist() == again.sizes.tolist() != other.sizes.tolist()


def test_each_class_needs_one_readable_image(tmp_path: Path) -> None:
    files = {"cat/a.jpg": b"nope", "cat/b.jpg": b"", "cat/c.jpg": make_image(0)}
    files |= {"dog/a.jpg": make_image(0), "dog/b.jpg": b"never looked at"}
    manifest = open_source(str(write_tree(tmp_path, files)))
    assert require_readable_classes(manifest, Reader(manifest)) == {
        0: "not an image: it begins with b'nope'",
        1: "empty file",
    }
    (tmp_path / "cat" / "c.jpg").unlink()
    with pytest.raises(UserError) as caught:
        require_readable_classes(manifest, Reader(manifest))
    assert str(caught.value) == (
        f"Class 'cat' in {tmp_path} has no readable image: 3 files, the first: cat/a.jpg "
        "(not an image: it begins with b'nope')."
    )


def test_a_class_without_samples_is_passed_over(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/1.jpg": make_image(0)})
    manifest = open_source(str(tmp_path), classes=["a", "b"])
    assert require_readable_classes(manifest, Reader(manifest)) == {}
