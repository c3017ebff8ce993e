"""Files and folders that are written whole or not at all, and short fingerprints of what lies in them."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData

from spahgc._logging import warn
from spahgc._validate import check_new_name, error_of_path, make_folder, user_path

PART, REPLACED, NEW = ".part", ".old", "new"
"""Ends of the names of what is being written, and of what it replaces, while that lies beside it; the new folder in it."""
PART_NAME = re.compile(rf"\..*-[0-9a-f]{{8}}-[0-9a-f]{{8}}{re.escape(PART)}", re.DOTALL)
"""Names of parts: the beginning of that of the file, its fingerprint, random characters."""
NAME_CHARACTERS = 40
"""Of the target's name in that of its part, so that every legal name leaves room for the rest (255 bytes in all)."""
ABANDONED_AFTER_S = 24 * 3600
"""Age from which a part counts as abandoned where the file system cannot say whether a process still holds it."""
ALONE = "alone"
"""In place of random characters in the name of a part that one process at a time may write."""
AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCHANGE = -100, 1, 2
"""Of Linux: paths are relative to the working folder; a rename over nothing alone; two paths change places in one step."""
MAX_PLACINGS = 100
"""How often a folder is tried to be put in its place while other processes put theirs there."""
TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
"""Errors of a rename over something that is there."""
FULL_DISK = tuple(code for name in ("ENOSPC", "EDQUOT", "EFBIG") if (code := getattr(errno, name, None)) is not None)
"""Errors of a write for which there is no room: on the disk, for this user, in a file."""
COMPRESSION, EFFORT = "gzip", 1
"""Of dense layers in .h5ad: what every reader of HDF5 knows, at its least effort, beyond which little is won."""
LEAST_COMPRESSED = 0.25
"""Share of its bytes to which a layer of values that are neither zero nor missing is compressed at best."""
SAMPLED_ROWS = 64
"""Rows of a layer by which that is told."""
BYTES_PER_MB = 10**6
BLOCK_UNIT = 512
"""Bytes of a block of which a file takes so many, on every system that counts them."""
LATE_WRITERS_S, LOOK_AGAIN_S = 2.0, 0.05
"""Threads of a writer that has failed, such as zarr's, may still write: how long they are waited for, how often."""

WHOLE_FILE_BYTES = 2**30
"""A file is read to its end, to see whether it is the same, up to this size; beyond it, block by block."""
BLOCKS, BLOCK_BYTES = 64, 2**20
"""Evenly spaced blocks of a larger file."""
DIGEST_LENGTH = 16
"""Hexadecimal digits of a fingerprint."""


@contextmanager
def written_whole(path: Path, *, n_bytes: int | None = None) -> Iterator[Path]:
    """A file beside the path, empty, which takes its place when all has gone well and is gone otherwise.

    It lies in a folder of its own, so that a writer may put other files beside it. A link is followed: the file that it
    points to is replaced. What killed processes have left of the same file is removed first.

    Parameters
    ----------
    path
        The file that is written; its folder must be there.
    n_bytes
        About how many it takes, for the error where there is no room for them.

    Raises
    ------
    OSError
        If it cannot be written; its ``errno`` is that of the system.
    """
    target = _followed(path)
    with _part_of(path, target, n_bytes, "Pass another path.") as part:
        new = part / NEW
        new.touch(exist_ok=False)
        yield new
        with _naming(path, "Pass another path."):
            new.replace(target)


def write_h5ad(adata: AnnData, path: str | Path) -> None:
    """Write an AnnData whole or not at all."""
    with written_whole(user_path(path), n_bytes=_least_bytes(adata)) as part:
        write_hdf5(adata, part)


def write_hdf5(adata: AnnData, path: Path) -> None:
    """Write an AnnData into a file as ``adata.write_h5ad`` does, of which a full disk makes an error and not a crash.

    Dense layers are compressed: those of a prediction are NaN in all genes outside its panel.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    from anndata.experimental import write_dispatched
    from h5py import File

    adata.strings_to_categoricals()
    if _least_bytes(adata) > shutil.disk_usage(path.parent).free:
        # Before HDF5 begins: what it could not write it may want to read again.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with _PatientFile(path, "w+b") as file:
        try:
            with File(file, "w") as root:
                write_dispatched(root, "/", adata, callback=_write_compact)
        except Exception as error:
            raise (file.error or error) from error
        if file.error is not None:
            raise file.error


def _write_compact(write: Any, store: Any, key: str, element: Any, *, dataset_kwargs: Any, iospec: Any) -> None:
    """Write an element of an AnnData, compressed where it is a dense layer.

    A `raw` that is not there is not written, by which releases of anndata before 0.12, and what is built on them, stumble.
    """
    if key.strip("/") == "raw" and element is None:
        return
    if key.strip("/").startswith("layers/") and isinstance(element, np.ndarray):
        dataset_kwargs = {**dataset_kwargs, "compression": COMPRESSION, "compression_opts": EFFORT}
    write(store, key, element, dataset_kwargs=dataset_kwargs)


def _least_bytes(adata: AnnData) -> int:
    """Bytes of the arrays of an AnnData, which its file takes at least."""
    matrices = [adata.X, *adata.layers.values(), *adata.obsm.values(), *adata.obsp.values()]
    parts = [
        part for matrix in matrices for part in (matrix, *(getattr(matrix, name, None) for name in ("data", "indices")))
    ]
    whole = sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
    layers = [layer for layer in adata.layers.values() if isinstance(layer, np.ndarray)]
    return whole - sum(layer.nbytes for layer in layers) + sum(_compressed_bytes(layer) for layer in layers)


def _compressed_bytes(layer: np.ndarray) -> int:
    """Bytes that a dense layer takes at least once it is compressed, by some of its rows."""
    rows = layer[:: max(1, len(layer) // SAMPLED_ROWS)]
    filled = np.isfinite(rows) & (rows != 0) if rows.dtype.kind in "fiu" else np.ones(0, dtype=bool)
    return int(layer.nbytes * LEAST_COMPRESSED * filled.mean()) if filled.size else 0


class _PatientFile(FileIO):
    """A file that keeps an error of writing for later: HDF5 ends the process where it cannot write what it closes."""

    error: OSError | None = None

    def write(self, content: Any) -> int:
        """All of the content, as long as nothing has failed; nothing after that."""
        left = memoryview(content).cast("B")
        n_bytes = len(left)
        try:
            while self.error is None and left:
                left = left[super().write(left) or 0 :]
        except OSError as error:
            self.error = error
        return n_bytes

    def truncate(self, size: int | None = None) -> int:
        """Set the size, as long as nothing has failed."""
        try:
            return self.tell() if self.error is not None else super().truncate(size)
        except OSError as error:
            self.error = error
            return self.tell()


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all, its line ends as they are."""
    with written_whole(path, n_bytes=len(text.encode())) as part:
        part.write_text(text, encoding="utf-8", newline="")


@contextmanager
def folder_written_whole(
    path: Path, *, overwrite: bool = False, alone: bool = False, n_bytes: int | None = None
) -> Iterator[Path]:
    """An empty folder beside the path, which takes its place when all has gone well and is gone otherwise.

    What killed processes have left of the same folder is removed first (:func:`remove_leftovers`). Of several processes
    that write the same folder without `overwrite`, exactly one has its own in place in the end.

    Parameters
    ----------
    path
        The folder that is written; its parents are made. A link is followed: what it points to is replaced.
    overwrite
        Replace what is there. Linux exchanges the two in one step, so that at every moment either the old or the new
        one lies under the name, also for a process that is killed. Elsewhere, and on file systems that cannot exchange,
        the old one is renamed first, and renamed back if the new one cannot take its place: for a moment nothing lies
        there (:func:`is_being_replaced`), and what a process leaves that is killed in that moment is put back by the next.
    alone
        Refuse to begin while another process writes the same folder, where the file system has locks.
    n_bytes
        About how many it takes, for the error where there is no room for them.

    Raises
    ------
    FileExistsError
        If the path exists and `overwrite` is false, or if another process is writing it and `alone` is true.
    OSError
        If it cannot be written; its ``errno`` is that of the system.
    """
    target = _followed(path)
    if os.path.lexists(target) and not overwrite:
        raise FileExistsError(f'"{path}" exists already.')
    with _part_of(path, target, n_bytes, "Pass another folder.", make_parents=True, alone=alone) as part:
        # Below the part and not the part itself: writers such as zarr's make their folder anew, and a lock would go with it.
        new = part / NEW
        new.mkdir()
        yield new
        with _naming(path, "Pass another folder."):
            _put_in_place(new, target, part.with_suffix(REPLACED), overwrite=overwrite)


@contextmanager
def _part_of(
    path: Path, target: Path, n_bytes: int | None, remedy: str, *, make_parents: bool = False, alone: bool = False
) -> Iterator[Path]:
    """A locked folder beside the target for what is being written; it is removed in the end with all that is in it."""
    with _naming(path, remedy):
        if make_parents:
            make_folder(target.parent)
        remove_leftovers(target)
        part, lock = _new_locked_part(target, alone=alone)
    try:
        with errors_of_writing(path, part, remedy, n_bytes=n_bytes):
            yield part
    except BaseException:
        _remove_for_good(part)
        raise
    finally:
        _remove(part)  # after an exchange it holds the old one
        if lock is not None:
            os.close(lock)
        if part.exists():
            warn(
                f'"{part}" could not be removed: it is what "{path}" was before, or a part of what it would have become. '
                "Nothing needs it; remove it when that is possible.",
                stacklevel=5,
            )


@contextmanager
def errors_of_writing(path: Path, part: Path, remedy: str, *, n_bytes: int | None = None) -> Iterator[None]:
    """Let a full disk, and what goes wrong within a part, speak of the path that was asked for; other errors pass through.

    Parameters
    ----------
    path
        What is written.
    part
        Where it lies until it is whole.
    remedy
        What to do, a sentence.
    n_bytes
        About how many it takes, if that is known.

    Raises
    ------
    OSError
        If there is no room, whatever class of error the writer has for that, or if the part cannot be written.
    """
    try:
        yield
    except Exception as error:  # an interruption stays one
        raised = _error_of_writing(error, path, part, n_bytes, remedy)
        if raised is error:
            raise
        raise raised from error


def _followed(path: Path) -> Path:
    """What a link points to in the end, so that it is replaced and the link stays; any other path as it is."""
    check_new_name(path, f'"{path}"')
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def made_folder(path: Path) -> Path:
    """Make a folder where there is none.

    Raises
    ------
    OSError
        If it cannot be made, or is a file.
    """
    with _naming(path, "Pass another folder."):
        make_folder(path)
    return path


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left of a file or folder that they were writing; what is being written now stays.

    A folder that was renamed to make room for a new one, which then never came, gets its name back.
    """
    left = _parts(path)
    in_use = {each.stem for each in left if each.suffix == PART and not _remove_if_abandoned(each)}
    for each in left:
        if each.stem in in_use or each.suffix == PART:
            continue
        if each.suffix == REPLACED and not os.path.lexists(path):
            with suppress(FileNotFoundError, FileExistsError):  # another process was faster
                each.rename(path)
        else:
            _remove(each)


def remove_leftovers_in(folder: Path) -> None:
    """Remove the parts that killed processes have left in a folder of many files, which may never be written again."""
    if not folder.is_dir():
        return
    with suppress(PermissionError):  # a folder may be written and not listed
        for name in os.listdir(folder):
            if PART_NAME.fullmatch(name):
                _remove_if_abandoned(folder / name)


def is_being_replaced(path: Path) -> bool:
    """Whether the old folder has lost its name and the new one has not got it yet, where the two cannot be exchanged."""
    return not os.path.lexists(path) and any(each.suffix == REPLACED for each in _parts(path))


def _parts(path: Path) -> list[Path]:
    """What lies beside a path of it that is being written, or was."""
    start = _start_of_parts(path)
    try:
        return [path.with_name(name) for name in os.listdir(path.parent) if name.startswith(start)]
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # a folder may be written and not listed
        return []


def _start_of_parts(path: Path) -> str:
    # The fingerprint tells a name from one that begins with it.
    return f".{path.name[:NAME_CHARACTERS]}-{digest(os.fsencode(path.name))[:8]}-"


def _new_part(path: Path, token: str | None = None) -> Path:
    return path.with_name(f"{_start_of_parts(path)}{token or secrets.token_hex(4)}{PART}")


def _new_locked_part(path: Path, *, alone: bool = False) -> tuple[Path, int | None]:
    """A new part, locked before another process can take it for one that was left."""
    while True:
        part = _new_part(path, ALONE if alone else None)
        try:
            part.mkdir()
        except FileExistsError:
            if not _remove_if_abandoned(part):
                raise FileExistsError(
                    f'another process is writing "{path}". Wait until it has finished, or pass another path.'
                ) from None
            continue
        try:
            lock = _lock(part)
        except (BlockingIOError, FileNotFoundError):  # it was taken for one just now, and removed
            continue
        if lock is None or is_at(lock, part):
            return part, lock
        os.close(lock)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open folder still lies under its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _naming(path: Path, remedy: str) -> Iterator[None]:
    """Let errors of the file system name the path that was asked for, and not that of its part."""
    try:
        yield
    except FileExistsError as error:
        if error.errno is None:  # in our words already
            raise
        raise _not_written(path, error, remedy) from error
    except OSError as error:
        if error.errno is not None and error.strerror is None:  # in our words already
            raise
        raise _not_written(path, error, remedy) from error


def _not_written(path: Path, error: OSError, remedy: str) -> OSError:
    return error_of_path(error.errno, f'"{path}" cannot be written ({error.strerror or error}). {remedy}')


def _error_of_writing(error: Exception, path: Path, part: Path, n_bytes: int | None, remedy: str) -> BaseException:
    """What is raised for an error of a writer: in our words where the disk is full or the part itself is at fault."""
    code = _code_of_full_disk(error)
    if code is not None:
        return _no_room(path, part, code, n_bytes)
    if isinstance(error, OSError) and error.errno is not None:
        if error.filename is None or lies_in(error.filename, part):  # libraries leave it out
            return _not_written(path, error, remedy)
    return error


def lies_in(name: Any, folder: Path) -> bool:
    """Whether the name in an error, of whatever type, is that of something in a folder, or of the folder."""
    return isinstance(name, str | bytes | os.PathLike) and os.fsdecode(name).startswith(os.fspath(folder))


def _no_room(path: Path, part: Path, code: int, n_bytes: int | None) -> OSError:
    written = sum(_taken(file) for file in part.rglob("*"))
    try:
        room = written + shutil.disk_usage(part).free
    except OSError:
        room = written
    needed = f"more than {_size(room)}" if n_bytes is None else f"about {_size(n_bytes)}"
    return error_of_path(
        code,
        f'"{path}" cannot be written ({os.strerror(code)}). It needs {needed}, {_size(room)} were free. Make room, or pass '
        "a path on another disk.",
    )


def _taken(file: Path) -> int:
    """Bytes that a file takes on the disk; what was announced and never written takes none."""
    try:
        found = file.lstat()
    except FileNotFoundError:
        return 0
    return 0 if file.is_dir() else getattr(found, "st_blocks", found.st_size // BLOCK_UNIT) * BLOCK_UNIT


def _size(n_bytes: int) -> str:
    return f"{n_bytes / BYTES_PER_MB:,.1f} MB"


def _code_of_full_disk(error: BaseException) -> int | None:
    """Number of the error where a writer found no room, however it says so: some have words alone."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL_DISK:
            return seen.errno
        words = str(seen)
        for code in FULL_DISK:
            if os.strerror(code) in words or re.search(rf"\b(errno = |os error |Errno ){code}\b", words):
                return code
        seen = seen.__cause__ or seen.__context__
    return None


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
    except FileNotFoundError:  # gone since
        return True
    except (BlockingIOError, NotADirectoryError, PermissionError):  # in use, or somebody else's
        return False
    try:
        # It is removed by its name, which another process may have given to a new part before the lock was free.
        if lock is None or is_at(lock, part):
            _remove(part)
    finally:
        if lock is not None:
            os.close(lock)
    return not part.exists()


def _put_in_place(new: Path, path: Path, replaced: Path, *, overwrite: bool) -> None:
    """Give a folder its name; what has that name now takes the other's place, or is removed by way of a third name.

    Other processes may do the same at the same time: what was there a moment ago may be gone, or another.
    """
    for _ in range(MAX_PLACINGS):
        if _rename_to_nothing(new, path):
            return
        if not overwrite:
            raise FileExistsError(f'"{path}" exists already: another process has written it just now.')
        if _exchange(new, path):
            return
        try:
            path.rename(replaced)
        except FileNotFoundError:
            continue
        try:
            new.rename(path)
        except OSError as error:
            if error.errno in TAKEN:
                _remove(replaced)
                continue
            replaced.rename(path)
            raise
        except BaseException:
            replaced.rename(path)
            raise
        _remove(replaced)
        return
    raise BlockingIOError(errno.EBUSY, "other processes replace it all the time")


def _rename_to_nothing(new: Path, path: Path) -> bool:
    """Rename to a name that nothing has; false where something has it."""
    if os.path.lexists(path):
        return False
    if _renameat2(new, path, RENAME_NOREPLACE):
        return True
    if os.path.lexists(path):
        return False
    try:
        new.rename(path)  # where the system cannot: over an empty folder, but never over one with content
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step; false where the system or the file system cannot."""
    return _renameat2(one, other, RENAME_EXCHANGE)


def _renameat2(one: Path, other: Path, flags: int) -> bool:
    # Python has no function for it.
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    return rename is not None and rename(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), flags) == 0


def _remove_for_good(part: Path) -> None:
    """Remove what a failed writer has left, until none of its threads makes it anew."""
    end = time.monotonic() + LATE_WRITERS_S
    _remove(part)
    time.sleep(LOOK_AGAIN_S)
    while part.exists() and time.monotonic() < end:
        _remove(part)
        time.sleep(LOOK_AGAIN_S)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
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
