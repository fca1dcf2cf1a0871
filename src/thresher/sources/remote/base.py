"""What every store of remote files offers, and what it tells of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import xxhash

CHANGED = "shard changed since it was indexed"
FILE_CHANGED = "file changed since it was indexed"


class Found(NamedTuple):
    """A file: its size (None: not told), what changes with its content, whether ranges work."""

    name: str
    size: int | None
    version: str
    ranged: bool = True


class Listed(NamedTuple):
    """What an index says of a file that is read whole: its size, and ``version_number``."""

    size: int
    version: int


def version_number(version: str) -> int:
    """A number, not negative, that changes with a file's version; -1 where none is told.

    An index of millions of files has it in the place of an offset, which whole files have no use
    for: eight bytes each, where ETags themselves would be forty.
    """
    return xxhash.xxh3_64_intdigest(version.encode()) >> 1 if version else -1


class Store(Protocol):
    """What can be done with the URLs of one protocol. Thread-safe."""

    def stat(self, url: str) -> Found:
        """Look a file up."""
        ...

    def read(self, url: str, start: int, end: int, found: Found) -> bytes:
        """The bytes from ``start`` to ``end``, all of them."""
        ...

    def read_whole(self, url: str, listed: Listed | None = None) -> bytes:
        """A small file in one request.

        Raises:
            ReadError: it is not the one that was listed.
        """
        ...

    def stream(self, url: str) -> Iterator[bytes]:
        """A file from its beginning to its end, for servers without ranges."""
        ...

    def list_folder(self, url: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files directly in a folder."""
        ...

    def find(self, url: str) -> list[Found]:
        """All files below a folder, named relative to it."""
        ...

    def glob(self, pattern: str) -> list[str]:
        """URLs that match."""
        ...


def run_async(
    file_system: Any, call: Callable[..., Any], *given: Any, seconds: float | None, **options: Any
) -> Any:
    """Run a coroutine of a file system on its own thread's loop and wait so long for it."""
    from fsspec.asyn import sync

    return sync(file_system.loop, call, *given, timeout=seconds, **options)
