"""Caffe's LMDB databases of ``Datum`` records, encoded or raw.

LMDB maps its file into memory, where a part that is missing is not an error but the end of the
process. So a file is measured before any record is touched.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from thresher.errors import UserError
from thresher.sources.damage import Damage
from thresher.sources.datum import NotADatum, image_of, parse_datum
from thresher.sources.labels import encode_labels, label_states, no_labels
from thresher.sources.lmdb_salvage import salvage
from thresher.sources.manifest import Manifest, make_manifest
from thresher.sources.names import to_utf8
from thresher.sources.places import absolute, is_url, shown
from thresher.sources.read_error import ReadError
from thresher.sources.remote.shard import local_copy
from thresher.sources.request import Request, first_line, printable
from thresher.sources.sizes import version_of

DATA_NAME = "data.mdb"
SUFFIXES = (".mdb", ".lmdb")
NAMES_FILES = ("labels.txt", "classes.txt", "synset_words.txt")
NOT_A_DATUM = "not a Datum record"
_CHANGED = "shard changed since it was indexed"
_JUDGED_BY = 100  # records; if none of the first is a Datum, the database is another kind


class CutShort(UserError):  # noqa: N818 - it is what the file is
    """A part of the database is missing."""


def is_lmdb(path: str) -> bool:
    """Whether a local path is an LMDB: a folder with ``data.mdb``, or such a file."""
    if Path(path).is_dir():
        return Path(path, DATA_NAME).is_file()
    return path.lower().endswith(SUFFIXES)


def open_lmdb(request: Request, place: str) -> Manifest:
    """Index a database; of the images nothing is read.

    Names of the classes are taken from ``labels.txt`` and the like beside the data, if there.

    Raises:
        UserError: no LMDB, cut short (without ``allow_damaged``), or its records are no ``Datum``.
    """
    path = _local(place)
    damage = Damage(request)
    keys: list[bytes] = []
    labels: list[int | None] = []
    places: list[tuple[int, int]] = []
    bad: list[int] = []
    for number, (key, value, *where) in enumerate(_records(path, damage)):
        keys.append(bytes(key))
        places.append((where[0], where[1]))
        try:
            labels.append(parse_datum(value).label)
        except NotADatum:
            bad.append(number)
            labels.append(None)
        if len(bad) == number + 1 == _JUDGED_BY:
            break
    if not keys:
        damage.require_some_good(1)
        raise UserError(f"{request.data} is an LMDB without records.")
    if len(bad) == len(keys):
        raise UserError(
            f"{request.data} is an LMDB, but not of Caffe's Datum records: its first record, "
            f"'{printable(repr(keys[0])[2:-1])}', is something else. Convert it to a folder or to "
            "tars, with the tool that wrote it."
        )
    if request.labelled:
        # A field with the value 0 need not be written.
        given = [0 if label is None else label for label in labels]
        is_bad = np.zeros(len(keys), dtype=bool)
        is_bad[bad] = True
        names = None if is_url(place) else _names(path, max(given, default=0))
        column = pa.chunked_array([pa.array(given, pa.int64(), mask=is_bad)])
        encoded, classes = encode_labels(column, request, names)
    else:
        encoded, classes = no_labels(len(keys), request)
    text = [os.fsdecode(key) for key in keys]
    column_of_keys, not_text = to_utf8(text)
    size, version = version_of(_data_place(place))
    offsets, lengths = np.array(places, dtype=np.int64).T
    manifest = make_manifest(
        kind="lmdb",
        shards=[_data_place(place)],
        classes=classes,
        source=request.data,
        keys=column_of_keys,
        labels=encoded,
        offsets=offsets,
        lengths=lengths,
        states=label_states(encoded, request),
        options={
            "shard_sizes": [size],
            "shard_versions": [version],
            "raw_keys": {str(row): keys[row].hex() for row in not_text},
            "damaged_records": len(bad),
            "damaged_shards": damage.shards,
        },
    )
    return manifest.with_states(dict.fromkeys(bad, NOT_A_DATUM))


def _records(path: str, damage: Damage) -> Iterator[tuple[bytes, Any, int, int]]:
    """Key, value, and the last two parts of the location, of every record that can be read."""
    last: bytes | None = None
    try:
        with _lend(path) as env, env.begin(buffers=True) as transaction:
            for number, (key, value) in enumerate(transaction.cursor()):
                yield key, value, number, -1
                last = bytes(key)
    except Exception as error:
        file = _data_file(path)
        if type(error).__module__.startswith("lmdb"):  # what came before it is good
            damage.note(str(file), f"{file} is damaged: {first_line(error)}", "Copy it again")
        elif isinstance(error, CutShort):
            damage.note(str(file), str(error).rstrip("."), "Copy it again")
        else:
            raise
        with file.open("rb") as opened:
            for key, offset, length in salvage(file):
                if last is None or key > last:  # the cursor too goes by the order of keys
                    value = memoryview(os.pread(opened.fileno(), length, offset))
                    yield key, value, offset, length


class LmdbRecords:
    """Reads records by their keys; see ``Fetcher``."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._raw_keys: dict[str, str] = manifest.options.get("raw_keys", {})
        self._sizes = manifest.options.get("shard_sizes")
        self._paths: dict[int, str] = {}

    def read(self, index: int, shard: int, offset: int, length: int) -> bytes:
        """The image of a record; raw pixels come as PPM."""
        if length >= 0:
            return self._read_salvaged(self._path(shard), offset, length)
        raw = self._raw_keys.get(str(index))
        key = bytes.fromhex(raw) if raw is not None else self._manifest.key(index).encode()
        try:
            with _lend(self._path(shard)) as env, env.begin(buffers=True) as transaction:
                value = transaction.get(key)
                if value is None:
                    raise ReadError(_CHANGED)
                return image_of(parse_datum(value))
        except NotADatum as error:
            raise ReadError(str(error)) from None
        except CutShort:
            raise ReadError(_CHANGED) from None  # it was whole when it was indexed
        except Exception as error:
            if not type(error).__module__.startswith("lmdb"):
                raise
            raise ReadError(f"damaged: {first_line(error)}") from None

    def _read_salvaged(self, path: str, offset: int, length: int) -> bytes:
        with _data_file(path).open("rb") as file:
            value = os.pread(file.fileno(), length, offset)
        try:
            return image_of(parse_datum(memoryview(value)))
        except NotADatum as error:
            raise ReadError(str(error)) from None

    def close(self) -> None:
        """Nothing stays open between reads of the last user."""
        self._paths.clear()

    def _path(self, shard: int) -> str:
        if shard not in self._paths:
            path = _local(self._manifest.shards[shard])
            if self._sizes and _data_file(path).stat().st_size != self._sizes[shard]:
                raise ReadError(_CHANGED)
            self._paths[shard] = path
        return self._paths[shard]


# LMDB allows a process to open a database once, and not to take it through a fork: by path, the
# process that opened it, the database, and what tells whether its file was replaced.
_open: dict[str, tuple[int, Any, tuple[int, int, int]]] = {}
_open_lock = threading.Lock()


@contextlib.contextmanager
def _lend(path: str) -> Iterator[Any]:
    """The open database, which the process then keeps open."""
    real = os.path.realpath(_data_file(path))  # the folder and the file name the same
    with _open_lock:
        identity = _identity(real)
        known = _open.get(real)
        if known is not None and (known[0], known[2]) != (os.getpid(), identity):
            known[1].close()  # whoever still reads the old one gets an error
            del _open[real]
            known = None
        if known is None:
            known = _open[real] = (os.getpid(), _open_env(path), identity)
    yield known[1]


def _identity(path: str) -> tuple[int, int, int]:
    status = _data_file(path).stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _open_env(path: str) -> Any:
    try:
        import lmdb
    except ImportError:
        raise UserError(
            f"Reading {shown(path)} needs the package lmdb. "
            "Install it: pip install 'thresher[lmdb]'."
        ) from None
    file = _data_file(path)
    size = file.stat().st_size
    if size < 2 * 4096:
        raise CutShort(f"{file} is cut short: {size} bytes are no LMDB.")
    try:
        env = lmdb.open(
            str(path),
            subdir=Path(path).is_dir(),
            readonly=True,
            lock=False,
            readahead=False,
            max_spare_txns=16,
        )
    except lmdb.Error as error:
        raise UserError(f"{file} cannot be opened as LMDB: {first_line(error)}.") from None
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if size < needed:
        env.close()
        raise CutShort(f"{file} is cut short: it has {size:,} of {needed:,} bytes.")
    return env


def _data_file(path: str) -> Path:
    return Path(path, DATA_NAME) if Path(path).is_dir() else Path(path)


def _local(place: str) -> str:
    """The path, or that of a copy: LMDB can only be read where it can be mapped."""
    if not is_url(place):
        return place
    return str(local_copy(_data_place(place)))


def _data_place(place: str) -> str:
    """The absolute path or the URL of the file that holds the data."""
    if not is_url(place):
        return absolute(str(_data_file(place)))
    return place if place.lower().endswith(SUFFIXES) else f"{place.rstrip('/')}/{DATA_NAME}"


def _names(path: str, most: int) -> list[str] | None:
    """Class names, one a line, from inside the database's folder or beside it."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    for place in (folder, folder.parent):
        for name in NAMES_FILES:
            if not (place / name).is_file():
                continue
            lines = (place / name).read_text("utf-8", errors="replace").splitlines()
            names = [line.strip() for line in lines if line.strip()]
            # One that has too few names, or one twice, belongs to something else.
            if len(names) > most and len(set(names)) == len(names):
                return names
    return None
