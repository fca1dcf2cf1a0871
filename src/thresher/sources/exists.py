"""Which of many paths exist, asked per folder instead of per file."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_CHUNK = 1 << 20  # rows at a time, to bound memory
_FEW = 8  # below this many names, asking for each is cheaper than listing their folder


def find_missing(root: str, paths: pa.ChunkedArray) -> np.ndarray:
    """bool[N], true where a path (relative to ``root`` or absolute) is not a file.

    One listing per folder instead of one question per file makes this some ten times faster on
    local disks, and far more on network file systems.
    """
    listings: dict[str, pa.Array] = {}
    missing = [
        _find_missing(root, _one_array(paths.slice(start, _CHUNK)), listings)
        for start in range(0, len(paths), _CHUNK)
    ]
    return np.concatenate(missing) if missing else np.zeros(0, dtype=bool)


def _find_missing(root: str, paths: pa.Array, listings: dict[str, pa.Array]) -> np.ndarray:
    folders = pc.replace_substring_regex(paths, r"[^/]*$", "").dictionary_encode()
    names = pc.replace_substring_regex(paths, r"(?s)^.*/", "")
    folder_of_row = folders.indices.to_numpy()
    rows_by_folder = np.argsort(folder_of_row, kind="stable")
    ends = np.cumsum(np.bincount(folder_of_row, minlength=len(folders.dictionary)))
    missing = np.zeros(len(paths), dtype=bool)
    start = 0
    for folder, end in zip(folders.dictionary.to_pylist(), ends.tolist(), strict=True):
        rows = rows_by_folder[start:end]
        start = end
        path = os.path.join(root, folder)  # noqa: PTH118 - an absolute folder replaces the root
        if len(rows) <= _FEW and path not in listings:
            for row in rows:
                name = names[row].as_py()
                missing[row] = not os.path.isfile(path + "/" + name)  # noqa: PTH113
            continue
        if path not in listings:
            listings[path] = _list_files(path)
        found = pc.is_in(names.take(pa.array(rows)), value_set=listings[path])
        missing[rows] = ~found.to_numpy(zero_copy_only=False)
    return missing


def _list_files(path: str) -> pa.Array:
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except PermissionError:
        raise
    except (OSError, ValueError):  # no such folder, or a name that cannot be one
        names = []
    try:
        return pa.array(names, type=pa.string())
    except UnicodeEncodeError:  # names that no path in a table can spell
        clean = [name for name in names if name == name.encode("utf-8", "replace").decode()]
        return pa.array(clean, type=pa.string())


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
