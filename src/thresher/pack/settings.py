"""How images are packed, and of which data: what must stay the same for a run to go on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from thresher.errors import UserError
from thresher.pack.shard import write_synced
from thresher.sources.manifest import Manifest
from thresher.sources.places import shown

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]
_LEAST_SIDE, _MOST_SIDE = 8, 16_384


@dataclass(frozen=True)
class PackSettings:
    """What decides the bytes that are written.

    Attributes:
        short_side: pixels of the shorter side; larger images are scaled down to it.
        quality: of the JPEG encoder, 1 to 100.
        subsampling: of the colours.
        shard_mb: most megabytes (10**6 bytes) of a tar; a larger image has a tar of its own.
    """

    short_side: int = 320
    quality: int = 90
    subsampling: Subsampling = "4:2:0"
    shard_mb: float = 256

    def check(self) -> None:
        """Raise a ``UserError`` for a value out of range."""
        if not _LEAST_SIDE <= self.short_side <= _MOST_SIDE:
            raise UserError(
                f"--short-side takes {_LEAST_SIDE} to {_MOST_SIDE} pixels, not {self.short_side}."
            )
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality takes 1 to 100, not {self.quality}.")
        if not 0 < self.shard_mb < 1e6:  # also refuses NaN
            raise UserError(f"--shard-mb takes a positive number, not {self.shard_mb}.")

    @property
    def shard_bytes(self) -> int:
        """Most bytes of a tar."""
        return int(self.shard_mb * 1_000_000)


def require_same_shards(manifest: Manifest, out: Path) -> None:
    """Refuse to go on if a shard was replaced since ``out`` was begun; note them if it begins now.

    Names and labels may be equal and images not, so that the tars would be of two data sets. Where
    a version was not told then or is not now (a packed set may be copied), size alone counts.

    Raises:
        UserError: a shard is of another size or version.
    """
    sizes = manifest.options.get("shard_sizes")
    if sizes is None:
        return
    versions = manifest.options.get("shard_versions") or [""] * len(sizes)
    note = out / ".pack" / "shards.json"
    if not note.exists():
        write_synced(note, json.dumps({"sizes": sizes, "versions": versions}).encode())
        return
    begun = json.loads(note.read_text())
    if len(begun["sizes"]) != len(sizes):
        raise UserError(
            f"{out} was begun from {len(begun['sizes'])} shards, not {len(sizes)}. "
            "Name a new folder."
        )
    pairs = zip(begun["sizes"], begun["versions"], sizes, versions, manifest.shards, strict=True)
    for old_size, old_version, size, version, shard in pairs:
        if old_size != size and None not in (old_size, size):
            change = f"from {old_size:,} to {size:,} bytes"
        elif old_version and version and old_version != version:
            change = "though not in size"
        else:
            continue
        raise UserError(
            f"{shown(shard)} changed since {out} was begun, {change}; the tars would mix images of "
            "both. Name a new folder."
        )


def fingerprint(manifest: Manifest) -> str:
    """A hash of what the data are: names, labels and places, but not where the data lie.

    The bytes of image files are not read; a file of this machine that was replaced by another is
    not noticed.
    """
    digest = hashlib.sha256("\0".join(manifest.classes).encode())
    for name in ("key", "label", "shard", "offset", "length"):
        column = manifest.table[name]
        for chunk in column.chunks:
            if pa.types.is_string(chunk.type):
                # Lengths and text; how Arrow cut the column into chunks must not matter.
                _add_text(digest, chunk)
            else:
                digest.update(np.ascontiguousarray(chunk.to_numpy()).data)
    return digest.hexdigest()


def _add_text(digest: hashlib._Hash, chunk: pa.Array) -> None:
    for start in range(0, len(chunk), 1 << 16):
        texts = chunk.slice(start, 1 << 16).to_pylist()
        digest.update(b"".join(text.encode() + b"\0" for text in texts))
