"""What comes from outside: one place where a reader's error becomes ours, and where its sparse matrices are checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import issparse

if TYPE_CHECKING:
    from anndata import AnnData

MAX_PROBLEM_CHARACTERS = 300
"""Of a reader's own words that a message repeats."""


class UnreadableError(ValueError):
    """A file that is damaged or of another format: which, what was found, what to do."""


@contextmanager
def reading(path: Path, label: str, remedy: str) -> Iterator[None]:
    """Turn whatever a reader raises into an error that names the file and the way out; the cause stays chained.

    Only the reader's own calls belong into it. A missing package is no damage and passes through, as do errors that are
    ours already.

    Parameters
    ----------
    path
        What is read.
    label
        How messages call it, e.g. ``"the counts"``.
    remedy
        What to do, a sentence.

    Raises
    ------
    FileNotFoundError
        If it is not there, or has vanished.
    PermissionError
        If it may not be read.
    UnreadableError
        If it is damaged or of another format, or asks for more memory than there is.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from spahgc._reading import reading
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "a.json"
    >>> _ = file.write_text("{")
    >>> with reading(file, "the scale factors", "Copy the file again."):
    ...     json.loads(file.read_text())
    Traceback (most recent call last):
    ...
    spahgc._reading.UnreadableError: ... cannot be read: ...
    """
    try:
        yield
    except (ImportError, UnreadableError):
        raise
    except FileNotFoundError as error:
        # A reader of a folder misses one of its files.
        problem = "there is no such file" if not path.exists() else str(error)
        raise FileNotFoundError(f'{label} "{path}" cannot be read: {problem}. {remedy}') from error
    except PermissionError as error:
        raise PermissionError(f'{label} "{path}" may not be read ({error.strerror or error}). {remedy}') from error
    except Exception as error:
        raise unreadable(path, label, error, remedy) from error


def unreadable(path: Path, label: str, error: Exception | str, remedy: str) -> UnreadableError:
    """The error of a file that is damaged or of another format."""
    return UnreadableError(f'{label} "{path}" ({_size(path)}) cannot be read: {_problem(error)}. {remedy}')


def _size(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return f"{path.stat().st_size:,} bytes" if path.exists() else "not there"


def _problem(error: Exception | str) -> str:
    """A reader's words on one line; where it has none, or only the name of a key, the kind of its error as well."""
    words = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, str):
        return words
    if isinstance(error, MemoryError):
        words = f"it asks for more memory than there is ({words})" if words else "it asks for more memory than there is"
    elif not isinstance(error, ValueError | OSError) or not words:
        words = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return words if len(words) <= MAX_PROBLEM_CHARACTERS else f"{words[:MAX_PROBLEM_CHARACTERS]} ..."


def read_h5ad(path: Path, label: str, remedy: str) -> AnnData:
    """An AnnData from a file, its matrices checked; the errors are those of :func:`reading`."""
    import anndata as ad

    with reading(path, label, remedy):
        adata = ad.read_h5ad(path)
    return _with_whole_matrices(adata, path, label, remedy)


def read_zarr(path: Path, label: str, remedy: str) -> AnnData:
    """An AnnData from a folder, its matrices checked; the errors are those of :func:`reading`."""
    import anndata as ad

    with reading(path, label, remedy):
        adata = ad.read_zarr(path)
    return _with_whole_matrices(adata, path, label, remedy)


def _with_whole_matrices(adata: AnnData, path: Path, label: str, remedy: str) -> AnnData:
    problem = broken_matrix(adata)
    if problem is not None:
        raise unreadable(path, label, problem, remedy)
    return adata


def broken_matrix(adata: AnnData) -> str | None:
    """What is wrong with one of the sparse matrices of an AnnData, if something is."""
    matrices = {"X": adata.X} | ({} if adata.raw is None else {"raw.X": adata.raw.X})
    for name in ("layers", "obsm", "obsp", "varm", "varp"):
        matrices |= {f'{name}["{key}"]': matrix for key, matrix in getattr(adata, name).items()}
    for name, matrix in matrices.items():
        problem = broken_sparse(matrix) if issparse(matrix) else None
        if problem is not None:
            return f"the sparse matrix {name} is damaged: {problem}"
    return None


def broken_sparse(matrix: object) -> str | None:
    """Why compiled code must not touch a sparse matrix of CSR or CSC, if it must not; others are always whole.

    scipy believes the index arrays: an index outside the shape is read, and written, outside the array.
    """
    if getattr(matrix, "format", None) not in ("csr", "csc"):
        return None
    n_major, n_minor = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]  # type: ignore[attr-defined]
    indptr, indices, data = matrix.indptr, matrix.indices, matrix.data  # type: ignore[attr-defined]
    if indptr.dtype.kind not in "iu" or indices.dtype.kind not in "iu":
        return f"its indices are of type {indices.dtype} and {indptr.dtype}"
    if len(indptr) != n_major + 1 or indptr[0] != 0:
        return f"{len(indptr)} pointers to {n_major} rows"
    if (np.diff(indptr) < 0).any():
        return "its pointers do not ascend"
    if not int(indptr[-1]) <= min(len(indices), len(data)):
        return f"{indptr[-1]:,} entries are announced, {min(len(indices), len(data)):,} are there"
    used = indices[: indptr[-1]]
    if used.size and (int(used.min()) < 0 or int(used.max()) >= n_minor):
        return f"indices from {used.min():,} to {used.max():,} in {n_minor:,} columns"
    return None
