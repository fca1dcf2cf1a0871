"""Tars whose bytes are a function of what they hold, written aside and renamed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from thresher.files import sync

_BLOCK = tarfile.BLOCKSIZE
_END = 2 * _BLOCK


@dataclass(frozen=True)
class ShardRecord:
    """What one finished tar holds: the samples from ``first`` up to, not including, ``stop``.

    Attributes:
        sha256, size: of the tar.
        offsets, lengths: int64[stop - first], where the images lie; -1 for unreadable ones.
        copied: bool[stop - first], stored as they were read.
        reasons: why samples are unreadable, by id.
    """

    name: str
    first: int
    stop: int
    sha256: str
    size: int
    offsets: np.ndarray
    lengths: np.ndarray
    copied: np.ndarray
    reasons: dict[int, str]

    def save(self, path: Path) -> None:
        """Write aside, sync, rename; raises ``OSError`` with its number if the disk is full."""
        ids = range(self.first, self.stop)
        table = pa.table(
            {
                "offset": self.offsets,
                "length": self.lengths,
                "copied": self.copied,
                "reason": pa.array([self.reasons.get(index) for index in ids], pa.string()),
            }
        )
        metadata = {
            "name": self.name,
            "first": str(self.first),
            "stop": str(self.stop),
            "sha256": self.sha256,
            "size": str(self.size),
        }
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
        write_synced(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> ShardRecord | None:
        """Read what ``save`` wrote; None if there is nothing, or nothing that can be read."""
        try:
            table = pq.read_table(path)
            metadata = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
            first = int(metadata["first"])
            reasons = enumerate(table["reason"].to_pylist(), start=first)
            return cls(
                name=metadata["name"],
                first=first,
                stop=int(metadata["stop"]),
                sha256=metadata["sha256"],
                size=int(metadata["size"]),
                offsets=table["offset"].to_numpy(),
                lengths=table["length"].to_numpy(),
                copied=table["copied"].to_numpy(),
                reasons={index: reason for index, reason in reasons if reason is not None},
            )
        except (OSError, pa.ArrowException, KeyError, ValueError, AttributeError):
            return None  # the tar is then made again


class ShardWriter:
    """Writes one tar. Leaving the context without ``finish`` leaves nothing behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._digest = hashlib.sha256()
        self._position = 0

    def __enter__(self) -> Self:
        self._file: BinaryIO = self._temporary.open("wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # what a full disk could not take, again
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Bytes that the tar would have if it were finished now."""
        return self._position + _END

    @staticmethod
    def size_of(length: int) -> int:
        """Bytes that a member takes."""
        return _BLOCK + _padded(length)

    def add(self, name: str, data: bytes) -> int:
        """Add a member; returns the offset of its content."""
        header = tarfile.TarInfo(name)  # its owner and time are 0: the same bytes every time
        header.size = len(data)
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        offset = self._position
        self._write(data)
        self._write(bytes(_padded(len(data)) - len(data)))
        return offset

    def finish(self) -> str:
        """End, sync and rename the tar; returns its SHA-256."""
        self._write(bytes(_END))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        sync(self.path.parent)
        return self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._position += len(data)


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_synced(path: Path, data: bytes) -> None:
    """Write aside, sync, rename. ``OSError`` keeps its number, unlike in ``write_atomically``."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _padded(length: int) -> int:
    return (length + _BLOCK - 1) // _BLOCK * _BLOCK
