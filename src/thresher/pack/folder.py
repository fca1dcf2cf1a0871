"""The folder that is packed into: who may write it, and what of it is finished."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thresher.errors import UserError
from thresher.pack.settings import PackSettings
from thresher.pack.shard import ShardRecord, hash_file, write_synced
from thresher.sources.request import printable

INDEX = "index.parquet"
UNREADABLE = "unreadable.csv"
_STATE = ".pack"
_SETTINGS = "settings.json"


class PackFolder:
    """A folder of tars with a hidden record of each finished one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = path / _STATE

    @contextlib.contextmanager
    def claim(self, settings: PackSettings, source: str) -> Iterator[None]:
        """Hold the folder for one process, begun with these settings and data, now or before.

        Raises:
            UserError: it holds other things, was begun differently, or is being written.
        """
        started = self._state / _SETTINGS
        if not self._state.is_dir() and self.path.is_dir() and any(self.path.iterdir()):
            raise UserError(
                f"{printable(str(self.path))} is not empty and was not begun by thresher pack. "
                "Name a new folder."
            )
        self._state.mkdir(parents=True, exist_ok=True)
        with (self._state / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"Another process is packing into {self.path}.") from None
            wanted = {"version": 1, **dataclasses.asdict(settings), "source": source}
            if started.exists():
                self._require_same(json.loads(started.read_text()), wanted)
            else:
                write_synced(started, json.dumps(wanted, indent=1).encode())
            for left in (*self.path.glob(".*.tmp"), *self._state.glob(".*.tmp")):
                left.unlink()  # of a process that was killed
            yield

    def _require_same(self, begun: dict[str, Any], wanted: dict[str, Any]) -> None:
        for name, value in wanted.items():
            if begun.get(name) == value:
                continue
            if name == "source":
                raise UserError(
                    f"{self.path} was begun from other data: files, labels or classes differ. "
                    "Name a new folder."
                )
            raise UserError(
                f"{self.path} was begun with --{name.replace('_', '-')} {begun.get(name)}, "
                f"not {value}. Use the same options, or name a new folder."
            )

    def tar(self, number: int) -> Path:
        """The path of a tar."""
        return self.path / f"{number:05d}.tar"

    def finished(self, number: int, first: int) -> ShardRecord | None:
        """The record of a tar that begins with sample ``first``, if it is there and unharmed."""
        record = ShardRecord.load(self._record(number))
        if record is None or record.first != first:
            return None
        return record if check_shard(self.path, record.name, record.size, record.sha256) else None

    def save_record(self, number: int, record: ShardRecord) -> None:
        """Note that a tar is finished. A tar that cannot be noted is removed again."""
        try:
            record.save(self._record(number))
        except OSError:
            self.tar(number).unlink(missing_ok=True)
            raise

    def _record(self, number: int) -> Path:
        return self._state / f"{number:05d}.parquet"


def check_shard(folder: Path, name: str, size: int, sha256: str) -> bool:
    """Whether a tar is there with the bytes it was written with."""
    path = folder / name
    try:
        return path.stat().st_size == size and hash_file(path) == sha256
    except OSError:
        return False
