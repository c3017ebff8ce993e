"""Archives are unpacked member by member, each file whole or not at all, none outside the folder.

``pooch.Untar`` is not enough for them: it unpacks all members under their own names, leaves half a file where it is
interrupted, and on Python 3.11 follows names that lead out of the folder. :mod:`tarfile` itself refuses those.
"""

from __future__ import annotations

import errno
import gzip
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from spahgc._files import written_whole
from spahgc._settings import progress_bar
from spahgc.datasets._cohort import CohortUnavailableError

GZIP = ".gz"


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
        downloads it again.
    OSError
        If there is no room.
    """
    try:
        with tarfile.open(archive) as tar, progress_bar(desc=f"unpack {archive.name}", unit="file", leave=False) as bar:
            for member in tar:
                target = destination(member.name) if member.isfile() else None
                if target is None:
                    continue
                safe = tarfile.data_filter(member.replace(name=target, deep=False), str(folder))
                content = tar.extractfile(member)
                if safe is None or content is None:
                    continue
                path = folder / safe.name
                path.parent.mkdir(parents=True, exist_ok=True)
                decompress = member.name.endswith(GZIP) and not target.endswith(GZIP)
                with written_whole(path) as part, part.open("wb") as file:
                    shutil.copyfileobj(gzip.open(content) if decompress else content, file)
                bar.update()
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        archive.unlink(missing_ok=True)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CohortUnavailableError(
            f'"{archive}" cannot be unpacked ({reason}) and was deleted. Call again to download it anew.'
        ) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            errno.ENOSPC,
            f'no room to unpack "{archive}" in "{folder}". Make room and call again, or set spahgc.settings.cache_dir '
            "to another disk",
        ) from error
    archive.unlink(missing_ok=True)
