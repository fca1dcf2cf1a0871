"""A proxy in front of a real server, on this machine only, that spoils answers on request."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote, urlsplit


class Answer(NamedTuple):
    """What the real server said."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


Fault = Callable[["_Handler", Answer], None]
"""Sends something else than the answer, or nothing."""


class FaultyProxy:
    """Forwards to ``upstream``. ``faults`` are taken one by one by the requests they match."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "", parts.port or 80)
        self.faults: list[tuple[str, Fault]] = []
        self.requests: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.proxy = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def fail(self, request: str, *faults: Fault) -> None:
        """Let the next requests whose line contains ``request`` meet these faults.

        The line is the method and the path with its query, unquoted: 'GET /data/a b.tar'.
        """
        with self.lock:
            self.faults.extend((request, fault) for fault in faults)

    def take(self, line: str) -> Fault | None:
        with self.lock:
            self.requests[line] += 1
            for position, (part, _) in enumerate(self.faults):
                if part in line:
                    return self.faults.pop(position)[1]
        return None

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def forward(self) -> None:
        proxy: FaultyProxy = self.server.proxy  # type: ignore[attr-defined]
        fault = proxy.take(unquote(f"{self.command} {self.path}"))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(*proxy.upstream, timeout=30)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            answer = Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()
        if fault is None:
            self.give(answer)
        else:
            fault(self, answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815

    def give(self, answer: Answer, *, length: int | None = None) -> None:
        """Pass the answer on; ``length``: announce it all, send so many bytes, and wait."""
        self.send_response_only(answer.status)
        announced = str(len(answer.body))
        for name, value in answer.headers:
            if name.lower() == "content-length":
                announced = value  # of HEAD, which has no body
            elif name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", announced)
        self.end_headers()
        self.wfile.write(answer.body if length is None else answer.body[:length])

    def wait(self, seconds: float) -> None:
        """Do nothing, but not beyond the end of the test."""
        proxy: FaultyProxy = self.server.proxy  # type: ignore[attr-defined]
        proxy.closing.wait(seconds)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def status(code: int, name: str = "InternalError") -> Fault:
    """What S3 sends where it fails."""
    body = f"<Error><Code>{name}</Code><Message>Please try again.</Message></Error>".encode()

    def fault(handler: _Handler, answer: Answer) -> None:
        sent = b"" if handler.command == "HEAD" else body
        handler.give(Answer(code, [("Content-Type", "application/xml")], sent))

    return fault


def stall(seconds: float) -> Fault:
    """No answer for a while, then none at all."""

    def fault(handler: _Handler, answer: Answer) -> None:
        handler.wait(seconds)
        handler.close_connection = True

    return fault


def stall_in_the_body(seconds: float) -> Fault:
    """Half of the content, then silence."""

    def fault(handler: _Handler, answer: Answer) -> None:
        handler.give(answer, length=len(answer.body) // 2)
        handler.wait(seconds)
        handler.close_connection = True

    return fault


def cut(handler: _Handler, answer: Answer) -> None:
    """All is announced, half of it comes, and the connection is closed in good order."""
    handler.give(answer, length=len(answer.body) // 2)
    handler.close_connection = True


def short(handler: _Handler, answer: Answer) -> None:
    """Half of what was asked for, announced as such: only who counts will notice."""
    half = answer.body[: len(answer.body) // 2]
    told = ("content-length", "x-amz-checksum")
    headers = [pair for pair in answer.headers if not pair[0].lower().startswith(told)]
    handler.give(Answer(answer.status, headers, half))


def garble(handler: _Handler, answer: Answer) -> None:
    """As many bytes as were asked for, one of them another: only the checksum tells."""
    body = bytearray(answer.body)
    body[len(body) // 2] ^= 0xFF
    handler.give(answer._replace(body=bytes(body)))


def reset(handler: _Handler, answer: Answer) -> None:
    """The connection is torn down in the middle of the content."""
    handler.give(answer, length=len(answer.body) // 2)
    handler.wfile.flush()
    time.sleep(0.05)  # or what was sent is dropped with the connection
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
