"""Opening a Thresher manifest as data: what a scan wrote, or the index of a packed set."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from thresher.errors import UserError
from thresher.sources.damage import Damage
from thresher.sources.labels import index_names
from thresher.sources.manifest import OK, Manifest
from thresher.sources.places import folder_of, is_url, protocol, shown, strip_query
from thresher.sources.remote.shard import local_copy
from thresher.sources.request import NO_LABEL, Request
from thresher.sources.sizes import versions_now

INDEX_NAME = "index.parquet"
CHANGED = "shard changed since it was indexed"


def open_manifest(request: Request, place: str) -> Manifest:
    """Open a manifest at a path or URL, after a look at whether its shards are still the same.

    Raises:
        UserError: a shard is gone or of another size (without ``allow_damaged``), or the labels
            are not what was asked for.
    """
    if is_url(place):
        manifest = Manifest.load(local_copy(place), folder=folder_of(place))
        _refuse_local_places(manifest, place)
    else:
        manifest = Manifest.load(Path(place))
    return _check_shards(_relabel(manifest, request), request)


def _refuse_local_places(manifest: Manifest, place: str) -> None:
    """A manifest from elsewhere must not make this machine read its own files; see ``table``."""
    allowed = re.compile(rf"(?i)(https?|s3a?|{re.escape(protocol(place))})://")
    outside = [s for s in manifest.shards if not allowed.match(s) or _climbs(s)]
    if not outside and manifest.kind == "files":
        keys = manifest.table["key"]
        suspect = pc.match_substring_regex(keys, r"^/|^[A-Za-z]:|://|(^|/)\.\.(/|$)")
        found = keys.filter(suspect).to_pylist()
        outside = [key for key in found if not allowed.match(key) or _climbs(key)]
    if outside:
        raise UserError(
            f"{shown(place)} is remote and lists '{shown(outside[0])}', which is not below its own "
            "folder. Pack or scan the data at their URL, or download the manifest."
        )


def _climbs(place: str) -> bool:
    return ".." in strip_query(place).split("/")


def _relabel(manifest: Manifest, request: Request) -> Manifest:
    if not request.labelled:
        unlabelled = manifest.with_labels(
            np.full(len(manifest), -1, dtype=np.int32), request.classes or ()
        )
        lacking = np.asarray(manifest.states == NO_LABEL, dtype=bool)
        return unlabelled.with_state_where(lacking, OK) if lacking.any() else unlabelled
    if not manifest.classes or not (manifest.labels >= 0).any():
        raise UserError(f"No sample of {request.data} has a label.")
    if request.classes is None or request.classes == manifest.classes:
        return manifest
    present = np.unique(manifest.labels)
    found = [manifest.classes[label] for label in present[present >= 0].tolist()]
    indices, classes = index_names(found, request)
    mapping = np.full(len(manifest.classes) + 1, -1, dtype=np.int32)  # the last: no label
    mapping[present[present >= 0]] = indices
    return manifest.with_labels(mapping[manifest.labels], classes)


def _check_shards(manifest: Manifest, request: Request) -> Manifest:
    """Refuse or mark the samples of shards that are not those that were indexed."""
    sizes = manifest.options.get("shard_sizes")
    if sizes is None:
        return manifest
    versions = manifest.options.get("shard_versions", [""] * len(sizes))
    damage = Damage(request)
    bad = []
    now = versions_now(manifest.shards)
    for number, (shard, was, version, found) in enumerate(
        zip(manifest.shards, sizes, versions, now, strict=True)
    ):
        if isinstance(found, OSError):
            with damage.tolerate(shard):
                raise found
        elif change := _change((was, version), found):
            damage.note(shard, f"{shown(shard)} {change}", "Scan or pack the data again")
        if shown(shard) in damage.shards:
            bad.append(number)
    if "shard_versions" not in manifest.options and any(map(is_url, manifest.shards)):
        # Made to be copied: the versions are those of this place. A scan recognises by them.
        manifest.options["shard_versions"] = [
            "" if isinstance(found, OSError) else found[1] for found in now
        ]
    if not bad:
        return manifest
    damage.require_some_good(len(manifest.shards))
    earlier = manifest.options.get("damaged_shards", {})
    manifest.options["damaged_shards"] = {**earlier, **damage.shards}
    where = np.isin(np.asarray(manifest.table["shard"].to_numpy()), bad)
    return manifest.with_state_where(where, CHANGED)


def _change(was: tuple[int | None, str], now: tuple[int | None, str]) -> str:
    """What changed of a shard; empty if nothing did, as far as it can be told."""
    if was[0] is not None and now[0] is not None and was[0] != now[0]:
        return f"changed size since the scan, from {was[0]:,} to {now[0]:,} bytes"
    if was[1] and now[1] and was[1] != now[1]:
        return "changed since the scan, though not in size"
    return ""
