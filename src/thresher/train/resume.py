"""Whether a run may go on: the same settings, the same images."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from thresher.config import ResolvedConfig
from thresher.errors import UserError
from thresher.sources.manifest import Manifest
from thresher.train.data import TrainData
from thresher.train.run_dir import RunDir

MAY_DIFFER = {
    "threads", "cache", "eval_every", "checkpoint_minutes", "keep_checkpoints", "devices",
    "decoder", "max_restarts", "placement", "peer_timeout", "capture",
    "compile",
}  # fmt: skip
_PATHS = {"data", "val", "clean", "init_weights"}


def require_same(run: RunDir, config: ResolvedConfig, options: Any, data: TrainData) -> None:
    """Refuse to go on with other settings or other images.

    Raises:
        UserError: naming what differs.
    """
    before = run.read_config()
    now = dataclasses.asdict(config)
    pairs = {
        name: (before.get(name), value) for name, value in now.items() if name not in MAY_DIFFER
    }
    own = before.get(config.method) or {}
    for name, value in dataclasses.asdict(options).items():
        pairs[f"{config.method}.{name}"] = (own.get(name), value)
    different = [
        f"{name} (was {old}, now {new})"
        for name, (old, new) in pairs.items()
        if _differ(name, old, new)
    ]
    if different:
        raise UserError(
            f"--resume: {run.path} was trained with other settings: {', '.join(different[:5])}."
            " Leave them out to take the run's own."
        )
    old, new = Manifest.load(run.manifest), data.train.manifest
    if old.classes != new.classes:
        raise UserError(
            f"--resume: {run.path} was trained on the classes {', '.join(old.classes[:5])} …, but"
            f" {config.data} now has {', '.join(new.classes[:5])} …"
        )
    if fingerprint(old) != fingerprint(new):
        raise UserError(
            f"--resume: the images or labels of {config.data} have changed since {run.path} began"
            f" ({len(old):,} images then, {len(new):,} now). Start a new run with another --out."
        )


def fingerprint(manifest: Manifest) -> str:
    """A hash of the names and labels of all samples."""
    digest = hashlib.sha256(np.ascontiguousarray(manifest.labels).tobytes())
    digest.update("\0".join(manifest.table["key"].to_pylist()).encode())
    return digest.hexdigest()


def _differ(name: str, old: Any, new: Any) -> bool:
    if name in _PATHS and isinstance(old, str) and isinstance(new, str) and "://" not in new:
        return Path(old).resolve() != Path(new).resolve()
    return bool(old != new)
