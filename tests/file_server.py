"""A loopback server of files that answers as GEO, GitHub, Zenodo and 10x Genomics do: with ranges, and with failures."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Files:
    """The running server."""

    url: str
    content: dict[str, bytes] = field(default_factory=dict)
    """Files by path with the host before it: ``host/folder/name``."""
    failures: list[str] = field(default_factory=list)
    """What happens to the next requests, in turn: a status (``"500"``), or ``"cut"``, the connection closes half-way."""
    requests: list[str] = field(default_factory=list)
    """Paths and ranges that were asked for."""
    logins: list[str] = field(default_factory=list)
    """Authorization headers that came in."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of every answer, in place of those that the server would send; an empty one is not sent."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Where a path is sent to."""
    ignores_if_range: bool = False
    """Whether a range is answered without a look at the version that was asked for."""
    chunked: bool = False
    """Whether files are sent in chunks, which end with a mark and have no length before."""
    half_way: Callable[[], None] | None = None
    """Called between the two halves of every body."""
    ranges: bool = True
    versions: bool = True
    """Whether ranges are answered, and files carry an ETag."""


@contextmanager
def running_files() -> Iterator[Files]:
    """Serve on a free port until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    files = Files(f"http://127.0.0.1:{server.server_address[1]}")
    server.files = files  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        files: Files = self.server.files  # type: ignore[attr-defined]
        path, wanted = self.path.lstrip("/"), self.headers.get("Range")
        files.requests.append(f"{path} {wanted}" if wanted else path)
        files.logins += self.headers.get_all("Authorization", [])
        failure = files.failures.pop(0) if files.failures else ""
        if failure.isdigit():
            return self._answer(int(failure), b"", {})
        if path in files.redirects:
            return self._answer(302, b"", {"Location": files.redirects[path]})
        content = files.content.get(path)
        if content is None:
            return self._answer(404, b"", {})
        version = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"ETag": version} if files.versions else {}
        begin = 0
        same = files.ignores_if_range or self.headers.get("If-Range", version) == version
        if wanted and files.ranges and same:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                return self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self._answer(206 if begin else 200, content[begin:], headers, cut=failure == "cut")

    def _answer(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        files: Files = self.server.files  # type: ignore[attr-defined]
        self.send_response(status)
        length = {"Transfer-Encoding": "chunked"} if files.chunked else {"Content-Length": str(len(body))}
        for name, value in (headers | length | files.headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        middle = len(body) // 2
        for half in (body[:middle], body[middle:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(half), half) if files.chunked and half else half)
            if half and files.half_way is not None:
                self.wfile.flush()
                files.half_way()
            if cut:
                break
        else:
            self.wfile.write(b"0\r\n\r\n" if files.chunked else b"")
        if cut or not length | files.headers == length:
            self.close_connection = True
