"""Downloads in several processes, from servers that mean well and others: what takes its place is whole, or nothing does."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import importlib.util
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import spahgc as sp
from spahgc.datasets import CohortUnavailableError
from spahgc.datasets._download import Remote, retrieve
from spahgc.datasets._turns import working_folder


def _helper(name: str) -> Any:
    """Load a helper by its path: with ``--import-mode=importlib`` tests cannot import their neighbours."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


cohort_files, file_server = _helper("cohort_files"), _helper("file_server")

HOST = "host.org"
URL = f"https://{HOST}/a/file.bin"
CONTENT = random.Random(0).randbytes(600_000)
DEADLINE_S = 120
"""After which a process or a condition counts as hung."""
PROCESSES = 4


@pytest.fixture
def server() -> Iterator[Any]:
    with file_server.running_files() as files:
        files.content[f"{HOST}/a/file.bin"] = CONTENT
        yield files


@pytest.fixture(autouse=True)
def _no_waiting_between_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch.core

    monkeypatch.setattr(sp.settings, "cache_dir", tmp_path / "cache")
    monkeypatch.setattr(pooch.core, "time", types.SimpleNamespace(sleep=lambda seconds: None))


def wait_for(condition: Any) -> None:
    """Poll a condition until it holds."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


RETRIEVE = """
import sys
from pathlib import Path
import spahgc
from spahgc.datasets._download import Remote, retrieve
spahgc.settings.progress = False
url, checksum, path, mirror, ready = sys.argv[1:]
Path(ready).touch()
retrieve(Remote(url, checksum or None), Path(path), page="P", mirror=mirror)
"""


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


TOGETHER = """
import json, os, sys
import pooch, requests, spahgc.datasets._download  # loading them takes longer than all the rest

code, several = sys.argv[1:]
children = []
for arguments in json.loads(several):
    children.append(os.fork())
    if not children[-1]:
        sys.argv[1:] = arguments
        exec(code)
        sys.exit(0)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


def started_together(code: str, several: list[tuple[object, ...]]) -> subprocess.Popen[str]:
    """A process for each of several lists of arguments; returns their parent, which fails if one of them does."""
    return started(TOGETHER, code, json.dumps([[str(each) for each in arguments] for arguments in several]))


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, err


@pytest.mark.parametrize("checksum", ["", f"md5:{hashlib.md5(CONTENT).hexdigest()}"])
def test_four_processes_that_want_one_file_get_it_whole(server: Any, tmp_path: Path, checksum: str) -> None:
    ready, path = [tmp_path / f"ready{n}" for n in range(PROCESSES)], tmp_path / "folder" / "file.bin"
    server.half_way = lambda: wait_for(lambda: all(file.exists() for file in ready))
    parent = started_together(RETRIEVE, [(URL, checksum, path, server.url, file) for file in ready])
    assert ended(parent) == (0, "")
    assert path.read_bytes() == CONTENT
    assert server.requests == [f"{HOST}/a/file.bin"], "one downloads, the others wait for it"
    assert {entry.name for entry in path.parent.iterdir()} <= {"file.bin", ".file.bin.sha256"}


def test_two_threads_that_want_one_file_get_it_whole(server: Any, tmp_path: Path) -> None:
    ready = threading.Barrier(3, timeout=DEADLINE_S)
    server.half_way = lambda: server.requests[1:] or not ready.broken
    errors: list[BaseException] = []

    def run() -> None:
        ready.wait()
        try:
            retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    ready.wait()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not errors and (tmp_path / "file.bin").read_bytes() == CONTENT


def test_what_a_killed_process_left_is_continued_and_its_lock_blocks_nobody(server: Any, tmp_path: Path) -> None:
    go_on, path, part = threading.Event(), tmp_path / "file.bin", tmp_path / ".file.bin.part" / "part"
    server.half_way = lambda: go_on.wait(DEADLINE_S)
    process = started(RETRIEVE, URL, "", path, server.url, tmp_path / "ready")
    wait_for(lambda: part.exists() and part.stat().st_size >= len(CONTENT) // 4)
    process.kill()
    process.wait(DEADLINE_S)
    process.communicate()
    go_on.set()
    server.half_way = None
    retrieve(Remote(URL), path, page="P", mirror=server.url)
    assert path.read_bytes() == CONTENT
    assert "bytes=" in server.requests[-1]
    assert {entry.name for entry in tmp_path.iterdir()} == {"file.bin", ".file.bin.sha256", "ready"}


def test_where_there_are_no_locks_each_call_has_a_part_of_its_own(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with working_folder(tmp_path / "file.bin") as one, working_folder(tmp_path / "file.bin") as other:
        assert one != other and one.is_dir() and other.is_dir()
    abandoned = tmp_path / ".file.bin.0123.part"
    abandoned.mkdir()
    os.utime(abandoned, (0, 0))
    retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert {entry.name for entry in tmp_path.iterdir()} == {"file.bin", ".file.bin.sha256"}


def test_a_file_that_is_there_is_found_in_a_folder_that_nobody_may_write(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)

    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert retrieve(Remote(URL), path, page="P", mirror=server.url) == path
    assert len(server.requests) == 1
    with pytest.raises(OSError, match=r"other.bin\" cannot be written \(Read-only file system\).*cache_dir.*path="):
        retrieve(Remote(URL), tmp_path / "other.bin", page="P", mirror=server.url)


# What a server says


@pytest.mark.parametrize(
    ("headers", "body", "found"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, b"log in", "a web page"),
        ({}, b"\n  <!DOCTYPE html><title>Log in</title>", "a web page"),
        ({}, b"<html><body>Sign in to the guest network", "a web page"),
        ({}, b"", "nothing"),
        ({"Content-Encoding": "br"}, b"packed", 'the encoding "br"'),
        ({"Content-Length": ""}, CONTENT, "without its length"),
    ],
)
def test_an_answer_that_is_not_the_file_never_takes_its_place(
    server: Any, tmp_path: Path, headers: dict[str, str], body: bytes, found: str
) -> None:
    server.content[f"{HOST}/a/file.bin"], server.headers = body, headers
    with pytest.raises(CohortUnavailableError, match=f"answers with .*{found}.*instead of the file.*path="):
        retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
    assert not list(tmp_path.iterdir()), "neither the file nor a part of it is kept"
    assert len(server.requests) == 1, "an answer that is final is not asked for again"


def test_a_redirect_to_a_login_page_never_takes_the_place_of_the_file(server: Any, tmp_path: Path) -> None:
    server.redirects[f"{HOST}/a/file.bin"] = "/login.host/sign-in"
    server.content["login.host/sign-in"] = b"<!doctype html><form>"
    with pytest.raises(CohortUnavailableError, match=r"a web page.*Is there a login page"):
        retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
    assert not list(tmp_path.iterdir())


def test_a_file_that_the_server_packs_unasked_is_unpacked(server: Any, tmp_path: Path) -> None:
    server.content[f"{HOST}/a/file.bin"] = gzip.compress(CONTENT)
    server.headers = {"Content-Encoding": "gzip"}
    server.failures = ["cut"]
    known = Remote(URL, f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    assert retrieve(known, tmp_path / "file.bin", page="P", mirror=server.url).read_bytes() == CONTENT


def test_a_packed_file_that_the_server_calls_packed_stays_as_it_is(server: Any, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT)
    server.content[f"{HOST}/a/file.tar.gz"], server.headers = packed, {"Content-Encoding": "x-gzip"}
    url = URL.replace("file.bin", "file.tar.gz")
    path = retrieve(Remote(url), tmp_path / "file.tar.gz", page="P", mirror=server.url)
    assert path.read_bytes() == packed


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/octet-stream"}])
def test_a_file_in_chunks_is_whole_when_its_last_chunk_has_come(
    server: Any, tmp_path: Path, headers: dict[str, str]
) -> None:
    server.chunked, server.headers = True, headers
    server.failures = ["cut", "cut"]
    assert retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url).read_bytes() == CONTENT
    assert len(server.requests) == 3


@pytest.mark.parametrize("change", ["ETag", "Content-Range"])
def test_a_partial_answer_of_another_version_is_not_joined_to_the_part(
    server: Any, tmp_path: Path, change: str
) -> None:
    """A server that answers a range of the new file although If-Range named the old one."""
    server.failures = ["cut", "503", "503", "503"]
    with pytest.raises(CohortUnavailableError):
        retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
    new = CONTENT[::-1] + (b"" if change == "ETag" else b"longer")
    server.content[f"{HOST}/a/file.bin"] = new
    server.ignores_if_range = True
    if change == "Content-Range":
        server.versions = False
    assert retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url).read_bytes() == new


def test_a_source_without_checksum_that_changed_is_warned_of(server: Any, tmp_path: Path) -> None:
    path = retrieve(Remote(URL), tmp_path / "file.bin", page="P", mirror=server.url)
    path.unlink()
    retrieve(Remote(URL), path, page="P", mirror=server.url)
    path.unlink()
    server.content[f"{HOST}/a/file.bin"] = CONTENT[::-1]
    with pytest.warns(UserWarning, match=r"file.bin is not what it was when it was first downloaded"):
        retrieve(Remote(URL), path, page="P", mirror=server.url)


@pytest.mark.parametrize("checksum", ["", f"sha256:{hashlib.sha256(CONTENT).hexdigest()}", "git"])
def test_a_file_that_was_damaged_on_disk_is_downloaded_again(server: Any, tmp_path: Path, checksum: str) -> None:
    if checksum == "git":
        checksum = "git:" + hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    known = Remote(URL, checksum or None)
    path = retrieve(known, tmp_path / "file.bin", page="P", mirror=server.url)
    path.write_bytes(CONTENT[:-3] + b"???")
    assert retrieve(known, path, page="P", mirror=server.url).read_bytes() == CONTENT


# Whole cohorts

FETCH = """
import sys
from pathlib import Path
import spahgc
spahgc.settings.progress = False
cache, name, section, mirror, ready = sys.argv[1:]
spahgc.settings.cache_dir = Path(cache)
Path(ready).touch()
spahgc.datasets.fetch(name, sections=[section], mirror=mirror)
"""


def test_four_processes_fetch_a_cohort_that_is_one_archive(server: Any, tmp_path: Path) -> None:
    sections = tuple(sp.datasets.cohorts().index) and ("P2_ST_rep1", "P2_ST_rep2", "P5_ST_rep1", "P5_ST_rep2")
    copy = cohort_files.write_cscc(tmp_path / "copy", sections, packed_images=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(copy.iterdir()):
            tar.add(path, arcname=path.name)
    name = "ftp.ncbi.nlm.nih.gov/geo/series/GSE144nnn/GSE144240/suppl/GSE144240_RAW.tar"
    server.content[name] = buffer.getvalue()
    ready = [tmp_path / f"ready{n}" for n in range(PROCESSES)]
    server.half_way = lambda: wait_for(lambda: all(file.exists() for file in ready))
    several = [
        (tmp_path / "cache", "cscc", section, server.url, file) for section, file in zip(sections, ready, strict=True)
    ]
    assert ended(started_together(FETCH, several)) == (0, "")
    assert server.requests == [name], "one downloads and unpacks, the others find what they want"
    found = {path.name for path in (tmp_path / "cache" / "cohorts" / "cscc").iterdir() if path.name[0] != "."}
    assert len(found) == 3 * len(sections)


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("event", ["tempfile.NamedTemporaryFile", "pathlib.Path.replace", "pathlib.Path.open"])
def test_what_the_disk_refuses_is_said_of_the_file_that_was_asked_for(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    path = tmp_path / "cache" / "file.bin"
    with monkeypatch.context() as patch:
        patch.setattr(event, refuse)
        with pytest.raises(
            OSError, match=r"file\.bin\" cannot be written .*Set spahgc\.settings\.cache_dir|no room for file"
        ):
            retrieve(Remote(URL, f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"), path, page="", mirror=server.url)
    assert not path.exists()
    retrieve(Remote(URL, f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"), path, page="", mirror=server.url)
    assert path.read_bytes() == CONTENT and os.listdir(path.parent) == ["file.bin"]


def test_a_cohort_that_is_there_is_found_in_a_cache_that_nobody_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache" / "cohorts" / "her2st"
    cohort_files.write_her2st(folder, ("A1",))

    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(30, "Read-only file system")

    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(Path, "mkdir", read_only)
        patch.setattr("tempfile.TemporaryFile", read_only)
        assert sp.datasets.fetch("her2st", sections=["A1"]) == folder


def test_the_cache_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sp.settings, "cache_dir", "~/my cache")
    cohort_files.write_her2st(tmp_path / "my cache" / "cohorts" / "her2st", ("A1",))
    assert sp.datasets.fetch("her2st", sections=["A1"]) == tmp_path / "my cache" / "cohorts" / "her2st"


@pytest.mark.parametrize("in_use", [False, True])
def test_what_a_process_left_that_was_killed_after_its_download_is_removed_unless_it_is_in_use(
    server: Any, tmp_path: Path, in_use: bool
) -> None:
    import fcntl

    path, work = tmp_path / "file.bin", tmp_path / ".file.bin.part"
    retrieve(Remote(URL), path, page="P", mirror=server.url)
    work.mkdir()
    (work / "rest").touch()
    lock = os.open(work, os.O_RDONLY)
    if in_use:
        fcntl.flock(lock, fcntl.LOCK_EX)
    retrieve(Remote(URL), path, page="P", mirror=server.url)
    os.close(lock)
    assert work.exists() == in_use
