"""Class-per-folder trees in an object store, from one listing of all names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from thresher.sources.folder import Listing, manifest_of_classes, manifest_of_images
from thresher.sources.manifest import Manifest
from thresher.sources.manifest_file import SCHEMA
from thresher.sources.names import extension, is_image_name, is_skipped, natural_key
from thresher.sources.remote.base import Found, version_number
from thresher.sources.request import Request


def open_remote_folder(request: Request, url: str, found: list[Found]) -> Manifest:
    """Index a tree as ``open_folder`` does; sizes and versions come with the names.

    Raises:
        UserError: see ``open_folder``.
    """
    url = url.rstrip("/")
    told: dict[str, tuple[int, int]] = {}
    root = Listing()
    by_class: dict[str, Listing] = {}
    for entry in found:
        folders, _, name = entry.name.rpartition("/")
        if is_skipped(name) or any(map(is_skipped, folders.split("/"))):
            continue
        first, _, below = entry.name.partition("/")
        listing = by_class.setdefault(first, Listing()) if below else root
        if not is_image_name(name):
            listing.ignored[extension(name)] += 1
            continue
        listing.files.append(below or first)
        told[entry.name] = (
            -1 if entry.size is None else entry.size,
            version_number(entry.version),
        )
    if request.labelled:
        ordered = {name: by_class[name] for name in sorted(by_class, key=natural_key)}
        for listing in ordered.values():
            listing.files.sort()
        manifest = manifest_of_classes(request, url, root, ordered)
    else:
        ignored = sum((listing.ignored for listing in by_class.values()), root.ignored)
        manifest = manifest_of_images(request, url, Listing(files=sorted(told), ignored=ignored))
    keys = manifest.table["key"].to_pylist()
    columns = np.array([told[key] for key in keys], dtype=np.int64).reshape(-1, 2)
    table = manifest.table
    for name, values in (("length", columns[:, 0]), ("offset", columns[:, 1])):
        position = SCHEMA.get_field_index(name)
        table = table.set_column(position, SCHEMA.field(name), pa.array(values))
    return replace(manifest, table=table)
