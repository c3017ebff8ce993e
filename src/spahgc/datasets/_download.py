"""Downloads that go on where they broke off, and take their place only when they are whole.

Pooch asks again after a failure, compares the checksum and puts the whole file in its place. What it does not know lies
here: going on with a part (its own downloaders begin anew), the length that a server announces, the checksums of git,
answers that are final, and room on the disk.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import logging
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import unquote, urlsplit

from spahgc._files import FULL_DISK, write_text
from spahgc._logging import warn
from spahgc._settings import progress_bar
from spahgc.datasets._cohort import CohortUnavailableError
from spahgc.datasets._turns import discard_leftovers, working_folder

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
OK, PARTIAL, RANGE_REFUSED = 200, 206, 416
TOO_MANY, SERVER_ERRORS = 429, 500
"""Answers that may be different a moment later; other errors are final."""
GB = 1e9
PART = "part"
"""Name of what has arrived, in the working folder."""
GZIP_ENCODINGS = ("gzip", "x-gzip")
WEB_PAGE_TYPES = ("text/html", "application/xhtml+xml")
WEB_PAGE = (b"<!doctype html", b"<html")
"""How the page begins that stands in for a file, where nobody said that it is one."""
SNIFFED_BYTES = 256
"""Of the beginning of a file whose size and checksum nobody knows."""


@dataclass(frozen=True)
class Remote:
    """A file elsewhere: its address, and what is known of its content."""

    url: str
    checksum: str | None = None
    """``md5:...``, ``sha256:...`` (as pooch has them) or ``git:...``."""
    size: int | None = None
    """Bytes."""


def retrieve(remote: Remote, path: Path, *, page: str, mirror: str | None = None) -> Path:
    """Download a file unless it is there already; of several processes that want it one does, and the others wait.

    Parameters
    ----------
    remote
        The file.
    path
        Where it is put when it is whole. Until then a part grows in the folder ``.<name>.part`` beside it, and a later
        call continues it. Where the source states no checksum, ``.<name>.sha256`` keeps that of the first download.
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
        If there is no room for it, or it may not be written.

    Warns
    -----
    UserWarning
        If the source states no checksum, and now has another content than at the first download.
    """
    if _is_whole(path, remote):  # also in a folder that nobody may write
        discard_leftovers(path)
        return path
    with working_folder(path) as work:
        if not _is_whole(path, remote):
            _fetch(remote, work, path.name, page, mirror)
            if remote.checksum is None:
                _record(work / path.name, path)
            (work / path.name).replace(path)
    return path


def _fetch(remote: Remote, work: Path, name: str, page: str, mirror: str | None) -> None:
    """Download a file into the working folder."""
    import pooch
    from requests.exceptions import RequestException

    url, login = _without_login(_mirrored(remote.url, mirror))
    by_git = remote.checksum is not None and remote.checksum.startswith(GIT)
    fetcher = pooch.create(
        path=work,
        base_url="",
        registry={name: None if by_git else remote.checksum},
        urls={name: url},
        retry_if_failed=RETRIES,
    )
    (work / name).unlink(missing_ok=True)
    part = Part(work, name, remote, login)
    try:
        with _quiet_pooch():
            fetcher.fetch(name, downloader=part)
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


def _is_whole(path: Path, remote: Remote) -> bool:
    """Whether the file is there and is the one that is known, by the source or from its first download."""
    if not path.is_file() or remote.size not in (None, path.stat().st_size):
        return False
    if remote.checksum is None:
        recorded = _recorded(path)
        return recorded is None or recorded == _sha256(path)
    if remote.checksum.startswith(GIT):
        return git_checksum(path) == remote.checksum
    import pooch

    kind, _, digest = remote.checksum.partition(":")
    return bool(pooch.file_hash(str(path), alg=kind) == digest)


def _record(arrived: Path, path: Path) -> None:
    """Keep the checksum of a first download, and say so where a later one differs from it."""
    before, now = _recorded(path), _sha256(arrived)
    if before not in (None, now):
        warn(
            f"{path.name} is not what it was when it was first downloaded: its source has changed, and states no checksum. "
            "Results may differ from earlier ones.",
            stacklevel=2,
        )
    if before != now:
        write_text(_record_path(path), now)


def _recorded(path: Path) -> str | None:
    try:
        return _record_path(path).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _record_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Source(TypedDict):
    """What a server said of the file of which a part has arrived."""

    url: str
    version: str | None
    """A mark that the server accepts in ``If-Range``."""
    total: int | None
    """Bytes of the whole file, as they are sent."""
    packed: bool
    """Whether they are to be unpacked, because the server sends the file packed although it was asked not to."""


class Part:
    """A downloader for pooch that keeps what has arrived.

    Parameters
    ----------
    folder
        Holds the growing file, and in a JSON what is known of its source.
    name
        Name of the whole file.
    remote
        The file that is downloaded.
    login
        Name and password for the server; ``None`` for none.
    """

    def __init__(self, folder: Path, name: str, remote: Remote, login: tuple[str, str] | None = None) -> None:
        self.path = folder / PART
        self.source_path = folder / f"{PART}.json"
        self.name = name
        self.remote = remote
        self._login = login

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool | None = False) -> None:
        """Download what is missing and move the whole file to `output_file`."""
        source = self._source(url)
        if source is None or not self.size or self.size != source["total"]:
            source = self._receive(url, source)
        self._check_length(source)
        if source["packed"]:
            self._unpack()
        self._check_content(url)
        self.path.replace(output_file)
        self.source_path.unlink(missing_ok=True)

    def _source(self, url: str) -> Source | None:
        """What is known of the source of the part; ``None`` where the part cannot be continued."""
        try:
            known = json.loads(self.source_path.read_text(encoding="utf-8"))
            source = Source(url=known["url"], version=known["version"], total=known["total"], packed=known["packed"])
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
            if answer.status_code == RANGE_REFUSED or not _continues(answer, begun, source):
                self._discard()
                raise requests.exceptions.ConnectionError("the part that was there does not fit; starting anew")
            _refuse(answer, url)
            if source is None or answer.status_code != PARTIAL:
                begun = 0
                source = _described(answer, url, self.name, self.remote)
                write_text(self.source_path, json.dumps(source))
            self._check_room((source["total"] or 0) - begun)
            self._write(answer, begun, source["total"])
        return source

    def _write(self, answer: Response, begun: int, total: int | None) -> None:
        from requests.exceptions import ConnectionError as Broken
        from urllib3.exceptions import HTTPError

        bar = progress_bar(total=total, initial=begun, desc=self.name, unit="B", unit_scale=True, leave=False)
        try:
            with bar, self.path.open("ab" if begun else "wb") as file:
                # As it is sent, so that its length is the one that was announced.
                for chunk in answer.raw.stream(CHUNK_BYTES, decode_content=False):
                    file.write(chunk)
                    bar.update(len(chunk))
        except HTTPError as error:
            raise Broken(f"the connection broke off after {self.size:,} bytes ({type(error).__name__})") from error
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            raise self._no_room((total or 0) - self.size) from error

    def _check_length(self, source: Source) -> None:
        """Refuse a part that is shorter or longer than announced; a longer one is begun anew."""
        from requests.exceptions import ConnectionError as Broken

        total = source["total"]
        if total is None or self.size == total:
            return
        if self.size > total:
            arrived = self.size
            self._discard()
            raise Broken(f"{arrived:,} bytes arrived where {total:,} were announced")
        raise Broken(f"the connection closed after {self.size:,} of {total:,} bytes")

    def _unpack(self) -> None:
        from requests.exceptions import ConnectionError as Broken

        unpacked = self.path.with_suffix(".unpacked")
        try:
            with gzip.open(self.path) as packed, unpacked.open("wb") as file:
                shutil.copyfileobj(packed, file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            unpacked.unlink(missing_ok=True)
            self._discard()
            raise Broken(f"the server sent it packed, and it cannot be unpacked ({error})") from error
        unpacked.replace(self.path)

    def _check_content(self, url: str) -> None:
        """Refuse a file that is not the one that is known, and begin anew with the next attempt."""
        checksum = self.remote.checksum or ""
        mismatch = None
        if self.remote.size not in (None, self.size):
            mismatch = f"{self.size:,} bytes instead of {self.remote.size:,}"
        elif checksum.startswith(GIT) and git_checksum(self.path) != checksum:
            mismatch = f"{git_checksum(self.path)} instead of {checksum}"
        if mismatch:
            self._discard()
            raise ValueError(mismatch)
        if self.remote.checksum is None and self.remote.size is None:
            with self.path.open("rb") as file:
                begin = file.read(SNIFFED_BYTES).lstrip().lower()
            if not begin or begin.startswith(WEB_PAGE):
                self._discard()
                raise _no_file(url, "a web page" if begin else "nothing")

    def _check_room(self, needed: int) -> None:
        if needed > shutil.disk_usage(self.path.parent).free:
            raise self._no_room(needed)

    def _no_room(self, needed: int) -> OSError:
        free = shutil.disk_usage(self.path.parent).free
        return OSError(
            errno.ENOSPC,
            f'no room for {self.name} in "{self.path.parents[1]}": {needed / GB:.2f} GB are '
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


def _continues(answer: Response, begun: int, source: Source | None) -> bool:
    """False for a partial answer that does not begin where the part ends, or that is of another version."""
    if answer.status_code != PARTIAL:
        return True
    if source is None or not begun:
        return False  # nobody asked for a part
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", str(answer.headers.get("Content-Range", "")).strip())
    if found is None or int(found[1]) != begun or found[2] not in ("*", str(source["total"])):
        return False
    return source["version"] is None or _version(answer) in (None, source["version"])


def _described(answer: Response, url: str, name: str, remote: Remote) -> Source:
    """What an answer that begins at the beginning says of the file; refuses one that cannot be the file.

    Raises
    ------
    CohortUnavailableError
        If it is a web page, is packed in a way that is not known here, or if nothing would tell a whole file from half.
    """
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in WEB_PAGE_TYPES and not name.endswith((".html", ".htm")):
        raise _no_file(answer.url, f"a web page ({kind})")
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", *GZIP_ENCODINGS):
        raise _no_file(answer.url, f'a file in the encoding "{encoding}", which was not asked for,')
    total, chunked = _length(answer), "chunked" in answer.headers.get("Transfer-Encoding", "").lower()
    if total is None and not chunked and remote.checksum is None and remote.size is None:
        raise _no_file(answer.url, "a file without its length, so that nobody can tell the whole of it from a part,")
    # Of a packed file some servers say that they pack it.
    packed = encoding in GZIP_ENCODINGS and not name.endswith((".gz", ".tgz"))
    return Source(url=url, version=_version(answer), total=total, packed=packed)


def _no_file(url: str, found: str) -> CohortUnavailableError:
    return CohortUnavailableError(
        f"{url} answers with {found} instead of the file that was asked for. Is there a login page or a proxy in between? "
        "Log in with a browser and call again, or pass a copy that you have: path=..."
    )


def _refuse(answer: Response, url: str) -> None:
    """Raise for an answer that is an error: for good, or so that pooch asks again."""
    status = answer.status_code
    if status in (OK, PARTIAL):
        return
    if status == TOO_MANY or status >= SERVER_ERRORS:
        answer.raise_for_status()
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
    length = answer.headers.get("Content-Length", "").strip()
    return int(length) if length.isdigit() else None


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
