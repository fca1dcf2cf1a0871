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

from thresher.errors import UserError
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
            sync(aside)
            shutil.rmtree(target, ignore_errors=True)
            aside.rename(target)
            sync(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    for old in _newest_first(folder)[max(1, keep) :]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_newest(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The newest checkpoint that is whole, as (meta, parts); None if there never was one.

    A damaged one is passed over with a warning and renamed to ``damaged-...``, so that it does not
    count among the newest again.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    damaged = 0
    for path in _newest_first(folder):
        try:
            return _load(path)
        # What damaged JSON, damaged archives and missing files raise.
        except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            damaged += 1
            warnings.warn(
                f"Checkpoint {path} is damaged ({error}); trying the one before.", stacklevel=2
            )
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
    if damaged:
        raise UserError(
            f"None of the {damaged} checkpoints in {folder} is whole. Start the run anew with"
            " --overwrite, or with another --out."
        )
    return None


def _load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    meta = json.loads((path / "meta.json").read_text())
    if meta["format"] != FORMAT:
        raise ValueError(f"format {meta['format']}, not {FORMAT}")
    for name, expected in meta["sha256"].items():
        if _hash_and_sync(path / name) != expected:
            raise ValueError(f"{name} has changed since it was written")
    parts = {
        Path(name).stem: torch.load(path / name, map_location="cpu", weights_only=True)
        for name in meta["sha256"]
    }
    return meta, parts


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
    return sorted((p for p in folder.iterdir() if p.name[0].isdigit()), reverse=True)


def _hash_and_sync(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest
