"""A web server for tests, on this machine only, that misbehaves on request."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from thresher.sources.remote.retry import Patience

QUICK = Patience(
    tries=4, first_pause=0.01, longest_pause=0.05, total_seconds=5, read_seconds=1, most_failures=5
)
Fault = Callable[["Handler"], bool]
"""Called before an answer; True if it has answered itself."""


class WebServer:
    """Serves a folder. ``faults`` are taken one by one by requests whose path they match."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults: list[tuple[str, Fault]] = []
        self.requests: Counter[str] = Counter()
        self.bytes_sent = 0
        self.ranges = True
        self.etags = True
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.web = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def fail(self, part: str, *faults: Fault) -> None:
        """Let the next requests whose path contains ``part`` meet these faults."""
        self.faults.extend((part, fault) for fault in faults)

    def take_fault(self, path: str) -> Fault | None:
        with self.lock:
            for position, (part, _) in enumerate(self.faults):
                if part in path:
                    return self.faults.pop(position)[1]
        return None

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        web: WebServer = self.server.web  # type: ignore[attr-defined]
        path = unquote(self.path.partition("?")[0]).lstrip("/")
        with web.lock:
            web.requests[path] += 1
        fault = web.take_fault(path)
        if fault is not None and fault(self):
            return
        file = web.root / path
        if not file.is_file():
            self.answer(404, b"no such file")
            return
        data = file.read_bytes()
        headers = {"ETag": f'"{file.stat().st_mtime_ns}"'} if web.etags else {}
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match is None or not web.ranges:
            self.answer(200, data, headers)
            return
        start, end = int(match[1]), min(int(match[2]) + 1, len(data))
        if start >= len(data):
            self.answer(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
            return
        span = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        self.answer(206, data[start:end], headers | span)

    def answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int = 0
    ) -> None:
        """Answer; ``cut``: so many bytes fewer than announced, then hang up."""
        web: WebServer = self.server.web  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body[: len(body) - cut])
        except OSError:
            self.close_connection = True
        with web.lock:
            web.bytes_sent += len(body)
        if cut:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def status(code: int, **headers: str) -> Fault:
    def fault(handler: Handler) -> bool:
        handler.answer(code, b"oops", {name.replace("_", "-"): v for name, v in headers.items()})
        return True

    return fault


def stall(seconds: float) -> Fault:
    def fault(handler: Handler) -> bool:
        time.sleep(seconds)
        handler.close_connection = True
        return True

    return fault


def hang_up(handler: Handler) -> bool:
    handler.close_connection = True
    return True


def short(handler: Handler) -> bool:
    """Announce all of what was asked for, and send less."""
    web: WebServer = handler.server.web  # type: ignore[attr-defined]
    path = unquote(handler.path).lstrip("/")
    data = (web.root / path).read_bytes()
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
    assert match is not None
    start, end = int(match[1]), min(int(match[2]) + 1, len(data))
    headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
    headers["ETag"] = f'"{(web.root / path).stat().st_mtime_ns}"'
    handler.answer(206, data[start:end], headers, cut=(end - start + 1) // 2)
    return True
