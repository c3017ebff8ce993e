"""Archives are unpacked member by member, each file whole or not at all, none outside the folder.

``pooch.Untar`` is not enough for them: it unpacks all members under their own names, leaves half a file where it is
interrupted, and on Python 3.11 follows names that lead out of the folder. Filters of :mod:`tarfile` refuse those from Python
3.11.4 on; Debian 12 has an earlier one.
"""

from __future__ import annotations

import errno
import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from spahgc._files import FULL_DISK, written_whole
from spahgc._settings import progress_bar
from spahgc.datasets._cohort import CohortUnavailableError

GZIP = ".gz"
COPY_BYTES = 1 << 20
"""Copied at a time."""
MAX_GROWTH = 200
"""Times the size of an archive that its content may have: tables shrink to a tenth, and what shrinks to a thousandth is
made to fill disks."""
MIN_LIMIT_BYTES = 1_000_000_000
"""Content that is unpacked however small the archive is."""


def unpack(archive: Path, folder: Path, destination: Callable[[str], str | None]) -> None:
    """Unpack the wanted members of a tar archive and delete it.

    Parameters
    ----------
    archive
        A tar file, compressed or not.
    folder
        Where the files go.
    destination
        Path within the folder for the name of a member, ``None`` for one that is not wanted. A member whose name ends
        in ``.gz`` and whose destination does not is decompressed.

    Raises
    ------
    CohortUnavailableError
        If the archive is damaged or holds a member that would leave the folder; it is deleted, so that the next call
        downloads it again, and nothing that came out of it is kept.
    OSError
        If there is no room.
    """
    written: list[Path] = []
    try:
        allowed = max(MAX_GROWTH * archive.stat().st_size, MIN_LIMIT_BYTES)
        with tarfile.open(archive) as tar, progress_bar(desc=f"unpack {archive.name}", unit="file", leave=False) as bar:
            for member in tar:
                target = destination(member.name) if member.isfile() else None
                if target is None:
                    continue
                path = _inside(folder, target)
                content = tar.extractfile(member)
                if content is None:
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                decompress = member.name.endswith(GZIP) and not target.endswith(GZIP)
                with written_whole(path) as part, part.open("wb") as file:
                    allowed -= _copy(gzip.open(content) if decompress else content, file, allowed)
                written.append(path)
                bar.update()
            # The checksum of a packed archive stands at its very end, which tarfile has no need to read.
            while tar.fileobj is not None and tar.fileobj.read(COPY_BYTES):
                pass
    except Exception as error:
        if not isinstance(error, OSError) or error.errno is None:  # what the system refuses has a number
            for path in [*written, archive]:
                path.unlink(missing_ok=True)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CohortUnavailableError(
                f'"{archive}" cannot be unpacked ({reason}) and was deleted. Call again to download it anew.'
            ) from error
        if error.errno not in FULL_DISK:
            raise OSError(
                error.errno, f'"{archive}" cannot be unpacked in "{folder}" ({error.strerror}). Pass a copy: path=...'
            ) from error
        raise OSError(
            errno.ENOSPC,
            f'no room to unpack "{archive}" in "{folder}". Make room and call again, or set spahgc.settings.cache_dir '
            "to another disk",
        ) from error
    archive.unlink(missing_ok=True)


def _inside(folder: Path, name: str) -> Path:
    """Path of a file of that name in the folder; refuses one that lies outside of it."""
    path = folder / name.lstrip("/\\")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise tarfile.ReadError(f"'{name}' would be extracted outside the destination")
    return path


def _copy(content: IO[bytes] | gzip.GzipFile, file: IO[bytes], allowed: int) -> int:
    """Copy what a member holds, and say how many bytes that were; refuses more than are allowed."""
    copied = 0
    while chunk := content.read(COPY_BYTES):
        copied += len(chunk)
        if copied > allowed:
            raise tarfile.ReadError(f"its content is more than {MAX_GROWTH} times as large as itself")
        file.write(chunk)
    return copied
