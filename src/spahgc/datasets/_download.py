"""Downloads that go on where they broke off, and take their place only when they are whole.

Pooch asks again after a failure, compares the checksum and puts the whole file in its place. What it does not know lies
here: going on with a part (its own downloaders begin anew), the length that a server announces, the checksums of git,
answers that are final, and room on the disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import unquote, urlsplit

from spahgc._files import write_text
from spahgc._settings import progress_bar
from spahgc.datasets._cohort import CohortUnavailableError

if TYPE_CHECKING:
    from requests import Response

RETRIES = 3
"""Attempts after the first one that failed; pooch waits 1, 2 and 3 seconds before them."""
TIMEOUT_S = 30
"""Seconds without a byte after which a connection counts as lost."""
CHUNK_BYTES = 1 << 16
"""Most that is lost when a connection closes."""
GIT = "git:"
"""Prefix of a checksum that git gave to a file: SHA-1 of a header and the content."""
PARTIAL, RANGE_REFUSED = 206, 416
TOO_MANY, SERVER_ERRORS = 429, 500
"""Answers that may be different a moment later; other errors are final."""
GB = 1e9


@dataclass(frozen=True)
class Remote:
    """A file elsewhere: its address, and what is known of its content."""

    url: str
    checksum: str | None = None
    """``md5:...``, ``sha256:...`` (as pooch has them) or ``git:...``."""
    size: int | None = None
    """Bytes."""


def retrieve(remote: Remote, path: Path, *, page: str, mirror: str | None = None) -> Path:
    """Download a file unless it is there already.

    Parameters
    ----------
    remote
        The file.
    path
        Where it is put when it is whole. Until then ``.<name>.part`` grows beside it, and a later call continues it.
    page
        Web page that the user is sent to when all attempts have failed.
    mirror
        Address of a server that stands in for the source: ``https://host/a`` is asked for as ``<mirror>/host/a``.

    Returns
    -------
    The path.

    Raises
    ------
    CohortUnavailableError
        If it cannot be had.
    OSError
        If there is no room for it.
    """
    import pooch
    from requests.exceptions import RequestException

    if path.is_file() and remote.size not in (None, path.stat().st_size):
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    url, login = _without_login(_mirrored(remote.url, mirror))
    by_git = remote.checksum is not None and remote.checksum.startswith(GIT)
    fetcher = pooch.create(
        path=path.parent,
        base_url="",
        registry={path.name: None if by_git else remote.checksum},
        urls={path.name: url},
        retry_if_failed=RETRIES,
    )
    part = Part(path.with_name(f".{path.name}.part"), remote, login)
    try:
        with _quiet_pooch():
            fetcher.fetch(path.name, downloader=part)
    except RequestException as error:
        raise CohortUnavailableError(
            f"{url} could not be downloaded: {_reason(error)}. What can be done:\n"
            f"- Call again: the download goes on at {part.size / GB:.3f} GB.\n"
            f"- Or download by hand from {page} and pass the folder: path=..."
        ) from error
    except ValueError as error:  # a checksum
        raise CohortUnavailableError(
            f"{url} arrived {RETRIES + 1} times with another content than the one that is known ({error}). "
            f"The source may have changed. Open {page}, or pass a copy that you have: path=..."
        ) from error
    return path


class Source(TypedDict):
    """What a server said of the file of which a part has arrived."""

    url: str
    version: str | None
    """A mark that the server accepts in ``If-Range``."""
    total: int | None
    """Bytes of the whole file."""


class Part:
    """A downloader for pooch that keeps what has arrived.

    Parameters
    ----------
    path
        The growing file; what is known of its source lies in a JSON beside it.
    remote
        The file that is downloaded.
    login
        Name and password for the server; ``None`` for none.
    """

    def __init__(self, path: Path, remote: Remote, login: tuple[str, str] | None = None) -> None:
        self.path = path
        self.remote = remote
        self._login = login
        self.source_path = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool | None = False) -> None:
        """Download what is missing and move the whole file to `output_file`."""
        source = self._source(url)
        if source is None or not self.size or self.size != source["total"]:
            source = self._receive(url, source)
        self._verify(source)
        self.path.replace(output_file)
        self.source_path.unlink(missing_ok=True)

    def _source(self, url: str) -> Source | None:
        """What is known of the source of the part; ``None`` where the part cannot be continued."""
        try:
            known = json.loads(self.source_path.read_text(encoding="utf-8"))
            source = Source(url=known["url"], version=known["version"], total=known["total"])
        except (OSError, ValueError, KeyError, TypeError):
            source = None
        # Without a mark of its version or a checksum at the end, two versions could be joined unnoticed.
        if source and source["url"] == url and (source["version"] or self.remote.checksum):
            return source
        self._discard()
        return None

    def _receive(self, url: str, source: Source | None) -> Source:
        import requests

        begun = self.size if source else 0
        headers = {"Accept-Encoding": "identity"}  # a compressed answer has neither the size nor the ranges of the file
        if source and begun:
            headers["Range"] = f"bytes={begun}-"
            if source["version"]:
                headers["If-Range"] = source["version"]
        with requests.get(url, headers=headers, auth=self._login, stream=True, timeout=TIMEOUT_S) as answer:
            if answer.status_code == RANGE_REFUSED or not _continues(answer, begun):
                self._discard()
                raise requests.exceptions.ConnectionError("the part that was there does not fit; starting anew")
            _refuse(answer, url)
            if source is None or answer.status_code != PARTIAL:
                begun = 0
                source = {"url": url, "version": _version(answer), "total": _length(answer)}
                write_text(self.source_path, json.dumps(source))
            self._check_room((source["total"] or 0) - begun)
            self._write(answer, begun, source["total"])
        return source

    def _write(self, answer: Response, begun: int, total: int | None) -> None:
        name = self.path.name.removeprefix(".").removesuffix(".part")
        bar = progress_bar(total=total, initial=begun, desc=name, unit="B", unit_scale=True, leave=False)
        try:
            with bar, self.path.open("ab" if begun else "wb") as file:
                for chunk in answer.iter_content(CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise self._no_room((total or 0) - self.size) from error

    def _verify(self, source: Source) -> None:
        """Refuse a file that is not the one announced, and begin anew with the next attempt."""
        from requests.exceptions import ConnectionError as Broken

        if source["total"] is not None and self.size < source["total"]:
            raise Broken(f"the connection closed after {self.size:,} of {source['total']:,} bytes")
        checksum = self.remote.checksum or ""
        mismatch = None
        if self.remote.size not in (None, self.size):
            mismatch = f"{self.size:,} bytes instead of {self.remote.size:,}"
        elif checksum.startswith(GIT) and git_checksum(self.path) != checksum:
            mismatch = f"{git_checksum(self.path)} instead of {checksum}"
        if mismatch:
            self._discard()
            raise ValueError(mismatch)

    def _check_room(self, needed: int) -> None:
        if needed > shutil.disk_usage(self.path.parent).free:
            raise self._no_room(needed)

    def _no_room(self, needed: int) -> OSError:
        free = shutil.disk_usage(self.path.parent).free
        return OSError(
            errno.ENOSPC,
            f'no room for {self.path.name.removesuffix(".part")} in "{self.path.parent}": {needed / GB:.2f} GB are '
            f"needed, {free / GB:.2f} GB are free. Make room, or set spahgc.settings.cache_dir to another disk",
        )

    def _discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.source_path.unlink(missing_ok=True)


def git_checksum(path: Path) -> str:
    """The checksum by which git, and GitHub's listings, know a file."""
    hashed = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            hashed.update(chunk)
    return f"{GIT}{hashed.hexdigest()}"


def _mirrored(url: str, mirror: str | None) -> str:
    if mirror is None:
        return url
    parts = urlsplit(url)
    return f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")


def _without_login(url: str) -> tuple[str, tuple[str, str] | None]:
    """Take name and password out of an address, which stands in messages, in logs and beside a part."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    name, _, password = login.partition(":")
    return parts._replace(netloc=host).geturl(), (unquote(name), unquote(password))


def _continues(answer: Response, begun: int) -> bool:
    """False for a partial answer that does not begin where the part ends."""
    if answer.status_code != PARTIAL:
        return True
    return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {begun}-")


def _refuse(answer: Response, url: str) -> None:
    """Raise for an answer that is an error: for good, or so that pooch asks again."""
    status = answer.status_code
    if status < 400 or status == TOO_MANY or status >= SERVER_ERRORS:
        answer.raise_for_status()
        return
    why = {
        401: "a login is needed",
        403: "access is refused; GitHub says so as well when too many requests came from one place within an hour",
        404: "there is no such file; the source may have moved",
        410: "the file was removed",
    }.get(status, "the request was refused")
    raise CohortUnavailableError(f"{url} answered with status {status}: {why}. Pass a copy that you have: path=...")


def _version(answer: Response) -> str | None:
    """A mark of the file's version that a server accepts in ``If-Range``: a strong ETag, or a date."""
    etag = answer.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")


def _length(answer: Response) -> int | None:
    length = answer.headers.get("Content-Length")
    return None if length is None else int(length)


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answered with status {response.status_code}"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}"


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Pooch writes a line a file and proposes checksums; the progress bar says enough."""
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
