"""Files and folders that are written whole or not at all, and short fingerprints of what lies in them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from anndata import AnnData

PART, REPLACED, NEW = ".part", ".old", "new"
"""Ends of the names of what is being written, and of what it replaces, while that lies beside it; the new folder in it."""
NAME_CHARACTERS = 40
"""Of the target's name in that of its part, so that every legal name leaves room for the rest (255 bytes in all)."""
ABANDONED_AFTER_S = 24 * 3600
"""Age from which a part counts as abandoned where the file system cannot say whether a process still holds it."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of Linux: paths are relative to the working folder; two paths change places in one step."""

WHOLE_FILE_BYTES = 2**30
"""A file is read to its end, to see whether it is the same, up to this size; beyond it, block by block."""
BLOCKS, BLOCK_BYTES = 64, 2**20
"""Evenly spaced blocks of a larger file."""
DIGEST_LENGTH = 16
"""Hexadecimal digits of a fingerprint."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file of another name beside the path, which takes its place when all has gone well and is gone otherwise."""
    part = _new_part(path)
    part.touch(exist_ok=False)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_h5ad(adata: AnnData, path: str | Path) -> None:
    """Write an AnnData whole or not at all."""
    with written_whole(Path(path)) as part:
        adata.write_h5ad(part)


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all, its line ends as they are."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


@contextmanager
def folder_written_whole(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder beside the path, which takes its place when all has gone well and is gone otherwise.

    What killed processes have left of the same folder is removed first (:func:`remove_leftovers`).

    Parameters
    ----------
    path
        The folder that is written; its parents are made.
    overwrite
        Replace what is there. Linux exchanges the two in one step, so that at every moment either the old or the new
        one lies under the name, also for a process that is killed. Elsewhere the old one is renamed first, and renamed
        back if the new one cannot take its place.

    Raises
    ------
    FileExistsError
        If the path exists and `overwrite` is false.
    OSError
        If it cannot be written.
    """
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        part, lock = _new_locked_part(path)
    # Below the part and not the part itself: writers such as zarr's make their folder anew, and a lock would go with it.
    new = part / NEW
    try:
        if os.path.lexists(path) and not overwrite:
            raise FileExistsError(f'"{path}" exists already.')
        new.mkdir()
        yield new
        if os.path.lexists(path) and not overwrite:  # another process was faster
            raise FileExistsError(f'"{path}" exists already.')
        with _naming(path):
            _put_in_place(new, path, part.with_suffix(REPLACED))
    finally:
        _remove(part)  # after an exchange it holds the old one
        if lock is not None:
            os.close(lock)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left of a folder that they were writing; what is being written now stays.

    A folder that was renamed to make room for a new one, which then never came, gets its name back.
    """
    start = _start_of_parts(path)
    left = [path.with_name(name) for name in os.listdir(path.parent) if name.startswith(start)]
    in_use = {each.stem for each in left if each.suffix == PART and not _remove_if_abandoned(each)}
    for each in left:
        if each.stem in in_use or each.suffix == PART:
            continue
        if each.suffix == REPLACED and not os.path.lexists(path):
            each.rename(path)
        else:
            _remove(each)


def _start_of_parts(path: Path) -> str:
    # The fingerprint tells a name from one that begins with it.
    return f".{path.name[:NAME_CHARACTERS]}-{digest(path.name.encode())[:8]}-"


def _new_part(path: Path) -> Path:
    return path.with_name(f"{_start_of_parts(path)}{secrets.token_hex(4)}{PART}")


def _new_locked_part(path: Path) -> tuple[Path, int | None]:
    """A new part, locked before another process can take it for one that was left."""
    while True:
        part = _new_part(path)
        part.mkdir()
        try:
            return part, _lock(part)
        except (BlockingIOError, FileNotFoundError):  # it was taken for one just now, and removed
            continue


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors of the file system name the path that was asked for, and not that of its part."""
    try:
        yield
    except OSError as error:
        raise OSError(f'"{path}" cannot be written ({error.strerror or error}). Pass another folder.') from error


def _lock(path: Path) -> int | None:
    """A descriptor that locks a folder until it is closed or its process ends; ``None`` where folders have no locks.

    Raises
    ------
    BlockingIOError
        If another descriptor locks it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # some network file systems
        os.close(descriptor)
        return None
    return descriptor


def _remove_if_abandoned(part: Path) -> bool:
    """Remove a part that no process holds, and say whether it was so; it is locked until it is gone."""
    try:
        lock = _lock(part)
        if lock is None and time.time() - part.stat().st_mtime <= ABANDONED_AFTER_S:
            return False
    except (BlockingIOError, FileNotFoundError, PermissionError):  # in use, in its place since, or somebody else's
        return False
    _remove(part)
    if lock is not None:
        os.close(lock)
    return True


def _put_in_place(new: Path, path: Path, replaced: Path) -> None:
    """Give a folder its name; what has that name now takes the other's place, or is removed by way of a third name."""
    if not os.path.lexists(path):
        new.rename(path)
    elif not _exchange(new, path):
        path.rename(replaced)
        try:
            new.rename(path)
        except BaseException:
            replaced.rename(path)
            raise
        _remove(replaced)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step; false where the system or the file system cannot."""
    # Python has no function for it.
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    return rename is not None and rename(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE) == 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def digest(*parts: bytes | memoryview) -> str:
    """Short fingerprint of some bytes."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8, "little"))
        hashed.update(part)
    return hashed.hexdigest()[:DIGEST_LENGTH]


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's content; of a file of more than a GB, of its size and of evenly spaced blocks."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_FILE_BYTES:
            return hashlib.file_digest(file, "sha256").digest()
        hashed = hashlib.sha256(size.to_bytes(8, "little"))
        for start in np.linspace(0, size - BLOCK_BYTES, BLOCKS).astype(np.int64):
            file.seek(int(start))
            hashed.update(file.read(BLOCK_BYTES))
    return hashed.digest()


def path_digest(path: Path) -> str:
    """Short fingerprint of a file, or of all files below a folder with their names."""
    hashed = hashlib.sha256()
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    for file in files:
        hashed.update(b"" if file == path else file.relative_to(path).as_posix().encode())
        hashed.update(file_digest(file))
    return hashed.hexdigest()[:DIGEST_LENGTH]
