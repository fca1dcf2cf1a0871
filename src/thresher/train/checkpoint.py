"""Checkpoints that are whole or not there: written aside, synced, hashed, renamed.

``checkpoints/000012-000340/`` holds the state before step 340 of epoch 12: ``state.pt`` and, for
each rank, ``ledger-<rank>.pt``; ``meta.json`` has their SHA-256 and what the run was. A directory
without a valid ``meta.json`` does not count.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from thresher.files import explain_write_errors, sync

FORMAT = 1


def save_checkpoint(
    folder: Path, epoch: int, step: int, parts: dict[str, Any], meta: dict[str, Any], keep: int
) -> Path:
    """Write one checkpoint and delete all but the ``keep`` newest.

    Args:
        folder: of all checkpoints of the run.
        epoch, step: the position the state belongs to.
        parts: file stem to what ``torch.save`` takes.
        meta: what the run was; JSON.
        keep: how many to leave.
    """
    target = folder / f"{epoch:06d}-{step:06d}"
    aside = folder / f".{target.name}.tmp"
    with explain_write_errors(target):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            hashes = {}
            for stem, value in parts.items():
                path = aside / f"{stem}.pt"
                _save(value, path)
                hashes[path.name] = _hash_and_sync(path)
            body = {"format": FORMAT, "epoch": epoch, "step": step, "sha256": hashes, **meta}
            meta_path = aside / "meta.json"
            meta_path.write_text(json.dumps(body, indent=1))
            _hash_and_sync(meta_path)
            shutil.rmtree(target, ignore_errors=True)
            aside.rename(target)
            sync(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    for old in _newest_first(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_newest(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The newest checkpoint that is whole, as (meta, parts); None if there is none.

    A damaged one is passed over with a warning.
    """
    for path in _newest_first(folder):
        try:
            meta = json.loads((path / "meta.json").read_text())
            for name, expected in meta["sha256"].items():
                if _hash_and_sync(path / name) != expected:
                    raise OSError(f"{name} has changed since it was written")
            parts = {
                Path(name).stem: torch.load(path / name, map_location="cpu", weights_only=True)
                for name in meta["sha256"]
            }
        except (OSError, KeyError, json.JSONDecodeError) as error:
            warnings.warn(
                f"Checkpoint {path} is damaged ({error}); trying the one before.", stacklevel=2
            )
        else:
            return meta, parts
    return None


class _Writer(io.FileIO):
    """Remembers why a write failed; torch.save tells only that it did."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, or note the reason and pass it on."""
        try:
            return super().write(data) or 0
        except OSError as error:
            self.error = error
            raise


def _save(value: Any, path: Path) -> None:
    with _Writer(path, "w") as raw:
        try:
            torch.save(value, raw)
        except RuntimeError:
            if raw.error is None:
                raise
            raise raw.error from None


def _newest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), reverse=True)


def _hash_and_sync(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest
