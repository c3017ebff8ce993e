"""A loopback server that answers as the Hugging Face hub does, as far as downloading one file goes."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""Commit of every branch; a commit that is asked for is answered with itself."""

SENT_OF_BROKEN = 0.5
"""Share of a file that a broken download delivers."""


@dataclass
class Repo:
    """One repository: its files, and how it treats those who ask."""

    files: dict[str, Path] = field(default_factory=dict)
    gated: bool = False
    granted: bool = False
    """Whether the account of any login has access to a gated repository."""
    download: Literal["whole", "closed", "short"] = "whole"
    """``closed``: the connection closes in the middle; ``short``: the answer is complete but shorter than announced."""
    status: int | None = None
    """Answer everything with this status."""


@dataclass
class Hub:
    """The running server."""

    url: str
    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    """Authorization headers that came in."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve on a free port until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """``HEAD`` and ``GET`` of ``/<org>/<name>/resolve/<revision>/<file>``."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        parts = urlparse(self.path).path.strip("/").split("/")
        hub.requests.append(f"{self.command} {'/'.join(parts)}")
        login = self.headers.get("Authorization")
        if login:
            hub.logins.append(login)
        repo_id, filename = "/".join(parts[:2]), "/".join(parts[4:])
        self.commit = parts[3] if len(parts) > 3 and re.fullmatch("[0-9a-f]{40}", parts[3]) else COMMIT
        repo = hub.repos.get(repo_id)
        if repo is None:
            # The real hub does not tell strangers which repositories exist.
            return self._refuse(404 if login else 401, "RepoNotFound", "Repository not found")
        if repo.status is not None:
            return self._refuse(repo.status, None, "Out of order")
        if repo.gated and not (login and repo.granted):
            return self._refuse(403 if login else 401, "GatedRepo", f"Access to model {repo_id} is restricted.")
        if filename not in repo.files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        self._send(repo.files[filename].read_bytes(), repo, body=body)

    def _refuse(self, status: int, code: str | None, message: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, repo: Repo, *, body: bool) -> None:
        part = content[: int(len(content) * SENT_OF_BROKEN)]
        announced = part if body and repo.download == "short" else content
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("Content-Length", str(len(announced)))
        self.end_headers()
        if not body:
            return
        self.wfile.write(content if repo.download == "whole" else part)
        if repo.download == "closed":
            self.close_connection = True
