"""Processes that download the same take turns: a hidden folder beside the file is locked, and gone when all is done."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spahgc._files import ABANDONED_AFTER_S, is_at, lies_in
from spahgc._settings import progress_bar
from spahgc._validate import error_of_path

WORK = ".part"
"""End of the name of a folder in which something is being downloaded."""
POLL_S = 0.1
"""Seconds between two looks at whether the other process has finished."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""How network file systems say that they have no locks."""


@contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside a path, for one process and thread at a time; the next one waits.

    What a process that was killed left in it is there for the next, and its lock is not: the system takes that back.
    After an error the folder stays if something lies in it, otherwise it is removed. Where the file system has no locks,
    every call gets a folder of its own, and those that killed processes left are removed after a day.

    Parameters
    ----------
    path
        What is worked on.

    Raises
    ------
    OSError
        If nothing can be written beside the path.
    """
    folder = path.with_name(f".{path.name}{WORK}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _wait_for(folder, path.name)
    except OSError as error:
        raise _not_written(path, error) from error
    if lock is None:
        folder = _own_folder(folder)
    try:
        with _errors_of_writing(path, folder):
            yield folder
    except BaseException:
        if not os.listdir(folder) or lock is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        if lock is not None:
            os.close(lock)


@contextmanager
def _errors_of_writing(path: Path, folder: Path) -> Iterator[None]:
    """Let what the system says of a file in the working folder speak of the one that was asked for."""
    try:
        yield
    except OSError as error:
        # Pooch has put words of its own in place of what the system said.
        said = error.__cause__ if error.errno is None and isinstance(error.__cause__, PermissionError) else error
        if not isinstance(said, OSError) or said.errno is None:
            raise
        # One of a part in the folder has words of its own, which speak of the part.
        plain = said.filename is None and said.strerror == os.strerror(said.errno)
        if plain or lies_in(said.filename, folder) or os.fspath(folder) in str(said):
            raise _not_written(path, said) from error
        raise


def _not_written(path: Path, error: OSError) -> OSError:
    reason = error if error.errno is None else os.strerror(error.errno)
    return error_of_path(
        error.errno,
        f'"{path}" cannot be written ({reason}). Set spahgc.settings.cache_dir to a folder that you may '
        "write and that has room, or pass a copy that you have: path=...",
    )


def discard_leftovers(path: Path) -> None:
    """Remove the working folder of what is whole already: its process was killed before it could. In use, it stays."""
    folder = path.with_name(f".{path.name}{WORK}")
    if not folder.is_dir():
        return
    try:
        import fcntl
    except ImportError:  # Windows
        return
    with suppress(OSError):  # in use, gone since, or nobody may write there
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(descriptor, folder):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _wait_for(folder: Path, name: str) -> int | None:
    """A descriptor that locks the folder until it is closed or its process ends; ``None`` where there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    waiting = None
    try:
        while True:
            folder.mkdir(exist_ok=True)
            try:
                descriptor = os.open(folder, os.O_RDONLY)
            except FileNotFoundError:  # who had it has just finished
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_at(descriptor, folder):
                    return descriptor
                os.close(descriptor)  # of a folder that was removed between its opening and its locking
            except BlockingIOError:
                os.close(descriptor)
                if waiting is None:
                    waiting = progress_bar(
                        desc=f"another process downloads {name}; waiting", bar_format="{desc} {elapsed}"
                    )
                waiting.update()
                time.sleep(POLL_S)
            except OSError as error:
                os.close(descriptor)
                if error.errno not in NO_LOCKS:
                    raise
                return None
    finally:
        if waiting is not None:
            waiting.close()


def _own_folder(shared: Path) -> Path:
    """A folder that no other call has; old ones, and the one that could not be locked, are removed."""
    stem = shared.name.removesuffix(WORK)
    for other in [shared, *shared.parent.glob(f"{stem}.*{WORK}")]:
        if other.is_dir() and (other == shared or time.time() - other.stat().st_mtime > ABANDONED_AFTER_S):
            shutil.rmtree(other, ignore_errors=True)
    own = shared.with_name(f"{stem}.{secrets.token_hex(4)}{WORK}")
    own.mkdir()
    return own
