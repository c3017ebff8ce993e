"""What comes from outside: one place where a reader's error becomes ours, and where its sparse matrices are checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    for name, matrix in [*matrices.items(), *_matrices_in("uns", adata.uns)]:
        problem = broken_sparse(matrix)
        if problem is not None:
            return f"the sparse matrix {name} is damaged: {problem}"
    return None


def _matrices_in(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _matrices_in(f'{name}["{key}"]', part)
    elif issparse(value):
        yield name, value


def check_sparse(matrix: Any, label: str) -> None:
    """Refuse a sparse matrix that compiled code must not touch; what is none passes.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    problem = broken_sparse(matrix)
    if problem is not None:
        raise ValueError(
            f"{label} is a damaged sparse matrix: {problem}. Read it again from where it comes from, or make it anew; "
            "matrix.check_format() of scipy tells as well."
        )


def broken_sparse(matrix: Any) -> str | None:
    """Why compiled code must not touch a sparse matrix of scipy, if it must not; ``None`` for what is none.

    scipy believes the index arrays: an index outside the shape is read, and written, outside the array. Entries that occur
    twice are no damage: scipy adds them up.
    """
    if not issparse(matrix):
        return None
    if len(matrix.shape) != 2:
        return f"it has {len(matrix.shape)} dimensions, not 2"
    if matrix.format in ("csr", "csc", "bsr"):
        return _broken_compressed(matrix)
    if matrix.format == "coo":
        return _broken_coordinates(matrix)
    if matrix.format == "lil":  # lists, which are joined to arrays and not looked at
        return _broken_compressed(matrix.tocsr())
    return None  # scipy itself looks at the others: dia at its offsets, dok at its keys


def _broken_compressed(matrix: Any) -> str | None:
    shape = matrix.shape[::-1] if matrix.format == "csc" else matrix.shape
    data_ndim = 3 if matrix.format == "bsr" else 1
    if matrix.format == "bsr":
        if matrix.data.ndim != 3 or any(n % block for n, block in zip(shape, matrix.blocksize, strict=True)):
            return f"its blocks of {matrix.data.shape[1:]} do not fill {shape[0]:,} x {shape[1]:,}"
        shape = tuple(n // block for n, block in zip(shape, matrix.blocksize, strict=True))
    places = "rows" if matrix.format == "csc" else "columns"
    return broken_arrays(
        matrix.data,
        matrix.indices,
        matrix.indptr,
        n_major=shape[0],
        n_minor=shape[1],
        places=places,
        data_ndim=data_ndim,
    )


def broken_arrays(
    data: np.ndarray,
    indices: np.ndarray,
    indptr: np.ndarray,
    *,
    n_major: int,
    n_minor: int,
    places: str = "rows",
    data_ndim: int = 1,
) -> str | None:
    """What is wrong with the three arrays of a compressed matrix, if something is.

    Parameters
    ----------
    data, indices, indptr
        The arrays.
    n_major, n_minor
        Rows and columns of a matrix by rows, columns and rows of one by columns.
    places
        How messages call what the indices count.
    data_ndim
        Dimensions of the values: 3 of a matrix of blocks.
    """
    if indices.ndim != 1 or data.ndim != data_ndim or len(indices) != len(data):
        return f"its indices are of shape {indices.shape}, its values of {data.shape}"
    problem = broken_pointers(indptr, n_major, len(indices))
    return problem or _broken_indices(indices[: int(indptr[-1])], n_minor, places)


def broken_pointers(indptr: np.ndarray, n_rows: int, n_entries: int) -> str | None:
    """What is wrong with the pointers to the rows of a compressed matrix of so many rows and entries, if something is."""
    if indptr.dtype.kind not in "iu" or indptr.ndim != 1:
        return f"its pointers are of type {indptr.dtype} and shape {indptr.shape}"
    if len(indptr) != n_rows + 1:
        return f"{len(indptr):,} pointers to {n_rows:,} rows"
    if indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any():  # a difference of unsigned numbers is never negative
        return "its pointers do not ascend from 0"
    if int(indptr[-1]) > n_entries:
        return f"{indptr[-1]:,} entries are announced, {n_entries:,} are there"
    return None


def _broken_indices(indices: np.ndarray, n: int, places: str) -> str | None:
    if indices.dtype.kind not in "iu":
        return f"its indices are of type {indices.dtype}"
    if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= n):
        return f"indices from {indices.min():,} to {indices.max():,} in {n:,} {places}"
    return None


def _broken_coordinates(matrix: Any) -> str | None:
    row, column = matrix.row, matrix.col
    if not len(row) == len(column) == len(matrix.data):
        return f"{len(row):,} rows, {len(column):,} columns and {len(matrix.data):,} values"
    return _broken_indices(row, matrix.shape[0], "rows") or _broken_indices(column, matrix.shape[1], "columns")
