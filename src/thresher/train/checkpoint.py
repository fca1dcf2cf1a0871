"""Checkpoints that are whole or not there: written aside, synced, hashed, renamed.

``checkpoints/000012-000340/`` holds the state before step 340 of epoch 12: ``state.pt``, for each
network ``network-<k>.pt``, for each rank ``rank-<r>.pt`` and its part of the ledger; ``meta.json``
has their SHA-256 and what the run was. A directory without a valid ``meta.json`` does not count.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from thresher.errors import UserError
from thresher.files import explain_write_errors, sync

FORMAT = 3
_OWN_HASH = "meta_sha256"
_DAMAGED = "damaged-"


class CheckpointDamagedError(Exception):
    """Some rank cannot read a checkpoint; it was set aside, and the one before may do."""


def target_of(folder: Path, epoch: int, step: int) -> Path:
    """Where the checkpoint of a position lies."""
    return folder / f"{epoch:06d}-{step:06d}"


def aside_of(target: Path, token: str) -> Path:
    """Where it is written first; the token keeps what another attempt left apart."""
    return target.with_name(f".{target.name}.{token}.tmp")


def write_parts(aside: Path, parts: Mapping[str, Any]) -> dict[str, str]:
    """Write some parts of a checkpoint; returns their SHA-256 by file name.

    Args:
        aside: the directory; several ranks write into it.
        parts: file stem to what ``torch.save`` takes.

    Raises:
        UserError: they cannot be written.
    """
    hashes = {}
    with explain_write_errors(aside.parent):  # its own name is gone by the time this is read
        aside.mkdir(parents=True, exist_ok=True)
        for stem, value in parts.items():
            path = aside / f"{stem}.pt"
            _save(value, path)
            hashes[path.name] = _hash_and_sync(path)
    return hashes


def commit(aside: Path, target: Path, meta: Mapping[str, Any]) -> None:
    """Turn a directory with all its parts into a checkpoint.

    Raises:
        UserError: it cannot be written.
    """
    with explain_write_errors(target):
        meta_path = aside / "meta.json"
        whole = {"format": FORMAT, **meta}
        meta_path.write_text(json.dumps({**whole, _OWN_HASH: _hash_of(whole)}, indent=1))
        _hash_and_sync(meta_path)
        sync(aside)
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
        sync(target.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed runs left half-written."""
    if folder.is_dir():
        for path in folder.glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the ``keep`` newest checkpoints and the one of the highest accuracy."""
    paths = _newest_first(folder)
    best = max(paths, key=_accuracy, default=None)
    for old in paths[max(1, keep) :]:
        if old != best or _accuracy(old) < 0:
            shutil.rmtree(old, ignore_errors=True)


def find_newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is whole and its ``meta.json``; None if there never was one.

    A damaged one is passed over with a warning and renamed to ``damaged-...``, so that it does not
    count among the newest again.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    for path in _newest_first(folder):
        try:
            return path, _read_and_check(path)
        # What damaged JSON and missing files raise.
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            set_aside(path, f"is damaged ({error})")
    damaged = len(list(folder.glob(f"{_DAMAGED}*")))  # some of them perhaps by an earlier attempt
    if damaged:
        raise UserError(
            f"None of the {damaged} checkpoints in {folder} is whole. Start the run anew with"
            " --overwrite, or with another --out."
        )
    return None


def set_aside(path: Path, why: str) -> None:
    """Have a checkpoint count no more, with a warning.

    Raises:
        UserError: it cannot be renamed.
    """
    warnings.warn(f"Checkpoint {path} {why}; trying the one before.", stacklevel=3)
    aside = path.with_name(f"{_DAMAGED}{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    with explain_write_errors(path):
        path.rename(aside)


def why_unreadable(path: Path, meta: Mapping[str, Any], stems: Iterable[str]) -> str | None:
    """What keeps this process from reading some parts as they were written; None if nothing does.

    Another machine may see another state of a shared file system than the one that looked first.
    """
    try:
        _check_parts(path, meta, [f"{stem}.pt" for stem in stems])
    except (OSError, KeyError, ValueError) as error:
        return str(error)
    return None


def load_part(path: Path, stem: str) -> Any:
    """One part of a checkpoint; its pages are read when they are used."""
    return torch.load(path / f"{stem}.pt", map_location="cpu", weights_only=True, mmap=True)


def _read_and_check(path: Path) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((path / "meta.json").read_text())
    if meta["format"] != FORMAT:
        raise ValueError(f"format {meta['format']}, not {FORMAT}")
    if meta.pop(_OWN_HASH) != _hash_of(meta):
        raise ValueError("meta.json has changed since it was written")
    _check_parts(path, meta, meta["sha256"])
    return meta


def _hash_of(meta: Mapping[str, Any]) -> str:
    """SHA-256 of what JSON keeps of it: a flipped digit is still JSON, but another step."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _check_parts(path: Path, meta: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if _hash_and_sync(path / name) != meta["sha256"][name]:
            raise ValueError(f"{name} has changed since it was written")


def _accuracy(path: Path) -> float:
    """What was measured when it was written; -1 if nothing was."""
    try:
        value = json.loads((path / "meta.json").read_text()).get("accuracy")
    except (OSError, ValueError):
        return -1.0
    return -1.0 if value is None else float(value)


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
