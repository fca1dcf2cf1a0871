"""Pictures that differ as photographs do, spoilt files, and a collection with one of each fault."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """Smooth patches of colour: as far from each other as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int) -> bytes:
    return encode(picture(seed), quality=92)


def cut(image: Image.Image, share: float = 0.01) -> Image.Image:
    width, height = image.size
    x, y = round(width * share), round(height * share)
    return image.crop((x, y, width - x, height - y))


def bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A PNG of a hundred bytes that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


HOSTILE = "<script>alert(1)<"


def collection_files() -> dict[str, bytes]:
    """Sixteen good pictures of two classes, and one of each fault."""
    files = {f"{'cat' if i % 2 else 'dog'}/{i:02d}.jpg": jpeg(i) for i in range(16)}
    files["cat/copy-of-01.jpg"] = files["cat/01.jpg"]
    files["dog/same-as-03.jpg"] = files["cat/03.jpg"]  # under the other label
    files["cat/05-worse.jpg"] = encode(picture(5), quality=30)
    files["cat/05-smaller.webp"] = encode(picture(5).resize((120, 90)), "WEBP")
    files["dog/07-cut.png"] = encode(cut(picture(7)), "PNG")  # under the other label
    files["cat/blank.png"] = encode(Image.new("RGB", (200, 200), "white"), "PNG")
    files["cat/tiny.png"] = encode(picture(30, (20, 20)), "PNG")
    files["dog/long.jpg"] = encode(picture(31, (600, 100)))
    frames = [picture(40), picture(41)]
    files["dog/moving.gif"] = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    files["dog/empty.jpg"] = b""
    files["dog/short.jpg"] = jpeg(50)[:1500]
    files["dog/page.jpg"] = b"<html><body>404 Not Found"
    files["dog/bomb.png"] = bomb()
    files[f"cat/{HOSTILE}.jpg"] = files["cat/01.jpg"]
    return files


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "data", collection_files())
