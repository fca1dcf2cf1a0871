"""What all ranks of a run must have in common, and with what versions a run was made."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import platform
from typing import Any

import numpy as np
import timm
import torch

from thresher import __version__
from thresher.config import ResolvedConfig
from thresher.dist.runtime import Runtime
from thresher.train.data import ImageSet, TrainData
from thresher.train.resume import MAY_DIFFER, fingerprint


def versions() -> dict[str, str]:
    """Of what shapes the result, by name."""
    return {
        "thresher": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        # What decodes images: another version may round pixels otherwise.
        **{name: importlib.metadata.version(name) for name in ("numpy", "pillow", "simplejpeg")},
        "python": platform.python_version(),
    }


def common_facts(
    config: ResolvedConfig, options: Any, data: TrainData, runtime: Runtime
) -> dict[str, Any]:
    """What must be the same on every rank, by names for people."""
    if runtime.world_size == 1:
        return {}
    settings = {
        f"--{name.replace('_', '-')}": value
        for name, value in dataclasses.asdict(config).items()
        if name not in MAY_DIFFER
    }
    own = {f"--{config.method}.{k}": v for k, v in dataclasses.asdict(options).items()}
    programs = {f"the version of {name}": text for name, text in versions().items()}
    manifest = data.train.manifest
    return {
        **programs,
        "the kind of device": runtime.device.type,
        **settings,
        **own,
        "the number of images": len(manifest),
        "the list of classes": ", ".join(manifest.classes),
        "the fingerprint of names and labels": fingerprint(manifest)[:12],
        **_usable("data", data.train),
        **_usable("images to measure on", data.measure),
        **_usable("clean images", data.clean),
    }


def _usable(name: str, images: ImageSet | None) -> dict[str, Any]:
    """What each rank found by itself: one that cannot read a file would share out other samples."""
    if images is None:
        return {f"the number of usable {name}": 0}
    digest = hashlib.sha256(np.ascontiguousarray(images.ids).tobytes())
    digest.update(fingerprint(images.manifest).encode())
    return {
        f"the number of usable {name}": len(images.ids),
        f"the fingerprint of usable {name}": digest.hexdigest()[:12],
    }
