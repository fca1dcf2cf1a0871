"""A worker process of a scan: gets row numbers, reads and looks, sends back what it saw.

It is started as ``python -m thresher.scan.worker HANDLE LOCATIONS`` and ends when the other end
of its connection closes, so that none outlives a scan that was killed.
"""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa

from thresher.errors import UserError
from thresher.files import explain_write_errors
from thresher.scan.look import Look, look
from thresher.sources.manifest import Manifest
from thresher.sources.read import Reader, ReadError

_METADATA = b"thresher.locations"
_COLUMNS = ["key", "shard", "offset", "length"]


def save_locations(manifest: Manifest, path: Path) -> None:
    """Write what a reader needs, in a form that all workers map into memory and share."""
    metadata = json.dumps(
        {"kind": manifest.kind, "shards": manifest.shards, "options": manifest.options}
    )
    table = manifest.table.select(_COLUMNS).combine_chunks()
    table = table.replace_schema_metadata({_METADATA: metadata})
    with (
        explain_write_errors(path),
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def load_locations(path: Path) -> Reader:
    """A reader on what ``save_locations`` wrote; takes no memory of its own."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    metadata = json.loads(table.schema.metadata[_METADATA])
    return Reader(
        Manifest(
            table=table,
            kind=metadata["kind"],
            shards=tuple(metadata["shards"]),
            classes=(),
            source="",
            options=metadata["options"],
        )
    )


def look_at(reader: Reader, index: int) -> Look:
    """Read and look at one sample."""
    try:
        data = reader.read(index)
    except ReadError as error:
        return Look(str(error))
    except MemoryError:
        return Look("too large to be read into memory")
    return look(data)


def main(words: Sequence[str]) -> None:
    """Serve until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the scan itself decides what Ctrl-C means
    warnings.simplefilter("ignore")  # of odd metadata; what counts becomes a state
    connection = Connection(int(words[0]))
    reader = load_locations(Path(words[1]))
    try:
        connection.send(None)  # ready
        while True:
            rows = connection.recv()
            try:
                connection.send([tuple(look_at(reader, row)) for row in rows.tolist()])
            except UserError as error:  # no image can be read any more: that is none's fault
                connection.send(str(error))
                return
    except (EOFError, ConnectionError):
        return


if __name__ == "__main__":
    main(sys.argv[1:])
