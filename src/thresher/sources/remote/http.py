"""Files on web servers: ranges where the server honours them, whole downloads where not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from thresher.errors import UserError
from thresher.sources.places import shown
from thresher.sources.read_error import ReadError
from thresher.sources.remote.base import CHANGED, FILE_CHANGED, Found, Listed, run_async
from thresher.sources.remote.errors import Passing, status_error
from thresher.sources.remote.retry import Patience, Persistence

_PIECE = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class _Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes


class HttpStore:
    """A web server as a ``Store``; uses fsspec's session and its settings."""

    def __init__(self, file_system: Any, patience: Patience) -> None:
        self._files = file_system
        self._persistence = Persistence(patience)

    def stat(self, url: str) -> Found:
        """Ask for the first byte; HEAD is refused by some servers and by signed URLs."""
        answer = self._persistence.call(lambda: self._get(url, 0, 1, most=1), url)
        version = _version(answer.headers)
        total = _total(answer.headers)
        if answer.status == 206 and total is not None:
            return Found(url, total, version)
        if answer.status == 416:
            return Found(url, 0, version)
        length = answer.headers.get("Content-Length")
        whole = int(length) if answer.status == 200 and length and length.isdigit() else None
        return Found(url, whole, version, ranged=False)

    def read(self, url: str, start: int, end: int, found: Found) -> bytes:
        """See ``Store``.

        Raises:
            ReadError: the file is not the one that was found.
        """

        def attempt() -> bytes:
            answer = self._get(url, start, end, most=end - start)
            if answer.status != 206:
                raise ReadError(CHANGED)
            same = _total(answer.headers) in (None, found.size)
            if not same or _version(answer.headers) != found.version:
                raise ReadError(CHANGED)
            if len(answer.body) != end - start:
                raise Passing(f"{len(answer.body)} of {end - start} bytes came")
            return answer.body

        return self._persistence.call(attempt, url)

    def read_whole(self, url: str, listed: Listed | None = None) -> bytes:
        """See ``Store``; the length is announced, and what is shorter is asked for again."""
        body = self._persistence.call(lambda: self._get(url, None, None, most=None).body, url)
        if listed is not None and len(body) != listed.size:
            raise ReadError(FILE_CHANGED)
        return body

    def stream(self, url: str) -> Iterator[bytes]:
        """See ``Store``; a broken transfer is not tried again here."""
        response = self._wait(self._open, url)
        try:
            if response.status != 200:
                raise _error(response, url)
            while piece := self._wait(response.content.read, _PIECE):
                yield piece
        finally:
            response.close()

    def list_folder(self, url: str) -> tuple[list[str], list[str]]:
        """See ``Store``; impossible here."""
        _no_listing(url)

    def find(self, url: str) -> list[Found]:
        """See ``Store``; impossible here."""
        _no_listing(url)

    def glob(self, pattern: str) -> list[str]:
        """See ``Store``; impossible here."""
        _no_listing(pattern)

    def _get(self, url: str, start: int | None, end: int | None, most: int | None) -> _Answer:
        """One request; of a body that was not asked for in this length, nothing is read."""

        async def fetch() -> _Answer:
            async with await self._open(url, start, end) as response:
                if response.status not in (200, 206, 416):
                    raise _error(response, url)
                if response.status == 416 and start:
                    raise ReadError(CHANGED)
                if most is None or response.status == 206:
                    body = await response.read()
                else:
                    body = b""
                    response.close()  # the rest stays unread, whatever its size
                return _Answer(response.status, response.headers, body)

        answer: _Answer = self._wait(fetch)
        expected = answer.headers.get("Content-Length", "")
        if most is None and expected.isdigit() and int(expected) != len(answer.body):
            raise Passing(f"{len(answer.body)} of {expected} bytes came")
        return answer

    async def _open(self, url: str, start: int | None = None, end: int | None = None) -> Any:
        # Squeezed on the way, offsets would not be those of the file.
        headers = {"Accept-Encoding": "identity"}
        if start is not None and end is not None:
            headers["Range"] = f"bytes={start}-{end - 1}"
        session = await self._files.set_session()
        given = {name: value for name, value in self._files.kwargs.items() if name != "headers"}
        headers |= self._files.kwargs.get("headers", {})
        return await session.get(self._files.encode_url(url), headers=headers, **given)

    def _wait(self, call: Callable[..., Any], *given: Any) -> Any:
        seconds = self._persistence.patience.read_seconds
        return run_async(self._files, call, *given, seconds=seconds)


def _error(response: Any, url: str) -> Exception:
    return status_error(response.status, url, response.headers.get("Retry-After"))


def _total(headers: Any) -> int | None:
    match = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    return int(match.group(3)) if match and match.group(3) != "*" else None


def _version(headers: Any) -> str:
    return str(headers.get("ETag") or headers.get("Last-Modified") or "")


def _no_listing(url: str) -> NoReturn:
    raise UserError(
        f"{shown(url)} cannot be listed: web servers have no folders to look into. Name the "
        "shards by a pattern, as in 'https://host/set/{00000..00099}.tar', or a packed set's "
        "index.parquet, or a table."
    )
