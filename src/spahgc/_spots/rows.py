"""Rows of arrays that are read when they are asked for: some of them, dense, in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import csr_matrix, issparse


class Rows(Protocol):
    """Spots x dim of which some rows can be read: an array, a memory map, an array of zarr, or what computes them."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray: ...


class LazyRows(Rows, Protocol):
    """What all classes of rows have beside ``shape`` and ``[rows]``: a length, and all rows as an array."""

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """All of it in memory, for code that works on nothing less."""
        return np.asarray(self[:], dtype=dtype)


@dataclass(frozen=True)
class SomeRows(LazyRows):
    """Some rows of an array, each read when it is asked for.

    Parameters
    ----------
    rows
        The array.
    chosen
        Numbers of its rows.
    """

    rows: Rows
    chosen: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Chosen rows, and columns."""
        return (len(self.chosen), *self.rows.shape[1:])

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return read(self.rows, self.chosen[rows])


@dataclass(frozen=True)
class DenseRows(LazyRows):
    """A sparse matrix whose rows are dense when they are read."""

    matrix: csr_matrix

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the matrix."""
        return tuple(self.matrix.shape)

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return np.asarray(self.matrix[rows].toarray())


def dense(rows: Rows | csr_matrix) -> Rows:
    """Rows that are dense where they are read: of a sparse matrix, or as they are."""
    return DenseRows(rows) if issparse(rows) else rows


@dataclass(frozen=True)
class SomeColumns(LazyRows):
    """Some columns of an array, taken from each row when it is read."""

    rows: Rows
    chosen: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and chosen columns."""
        return self.rows.shape[0], len(self.chosen)

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return np.asarray(self.rows[rows][:, self.chosen])


class Joined(LazyRows):
    """Two arrays side by side, joined block by block: ``[embedding ; expression]`` without a dense matrix of either.

    Parameters
    ----------
    z
        Spots x dim.
    y
        Spots x genes, dense or CSR.
    """

    def __init__(self, z: Rows, y: Rows | csr_matrix) -> None:
        self.z, self.y = z, dense(y)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and the columns of both."""
        return self.z.shape[0], self.z.shape[1] + self.y.shape[1]

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return np.hstack([self.z[rows], self.y[rows]], dtype=np.float32)


def read(z: Rows, rows: np.ndarray) -> np.ndarray:
    """Rows by number; neighbouring ones as a slice, which takes no search in a file and no copy in memory."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return np.asarray(z[slice(int(rows[0]), int(rows[-1]) + 1)])
    return np.asarray(z[rows])


def in_float(z: Rows) -> Rows:
    """An array in memory as float32, without a copy where it is so already; what lies on disk as it is."""
    on_disk = isinstance(z, np.memmap) or not isinstance(z, np.ndarray)
    return z if on_disk and hasattr(z, "shape") else np.asarray(z, dtype=np.float32)


ROW_BLOCK = 4096
"""Spots that are converted to double precision at a time."""


def blocks_of(n: int) -> Iterator[slice]:
    """Slices of so many spots that a block is small beside any slide."""
    return (slice(start, start + ROW_BLOCK) for start in range(0, n, ROW_BLOCK))
