"""Arrays of some spots, which is all that a method of prediction sees of a slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.sparse import csr_matrix, issparse


class Rows(Protocol):
    """Spots x dim of which some rows can be read: an array, a memory map, an array of zarr, or what computes them."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True)
class Spots:
    """Arrays of some spots.

    A target that is to be predicted has an expression of no genes: what was measured on it has no place here.

    Parameters
    ----------
    z
        Image embedding, spots x dim, any float type: an array, or :class:`Rows`, which are read in blocks only.
    xy
        Spot centres, spots x 2, pixels.
    slide
        Name of each spot's slide.
    y
        Expression of the panel, spots x genes, ``log1p`` counts per 10,000: an array, or :class:`Rows`.
    transcriptome
        Expression of the genes that the references cover best, spots x covered genes, same units: CSR, or dense rows.
    """

    z: Any
    xy: np.ndarray
    slide: np.ndarray
    y: Any
    transcriptome: Any

    def __getitem__(self, chosen: np.ndarray) -> Spots:
        return Spots(self.z[chosen], self.xy[chosen], self.slide[chosen], self.y[chosen], self.transcriptome[chosen])

    def __len__(self) -> int:
        return len(self.xy)

    def part(self, chosen: np.ndarray) -> Spots:
        """Some of the spots, by number; neither embedding nor expression is copied."""
        z, y, transcriptome = (SomeRows(dense(part), chosen) for part in (self.z, self.y, self.transcriptome))
        return Spots(z, self.xy[chosen], self.slide[chosen], y, transcriptome)

    @classmethod
    def without_expression(cls, z: Rows, xy: np.ndarray, name: str = "target") -> Spots:
        """Spots of a slide of which only image and positions are known."""
        n = len(xy)
        nothing = np.empty((n, 0), dtype=np.float32)
        return cls(z, xy, np.full(n, name), nothing, csr_matrix(nothing))


@dataclass(frozen=True)
class SomeRows:
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

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return read(self.rows, self.chosen[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


@dataclass(frozen=True)
class DenseRows:
    """A sparse matrix whose rows are dense when they are read."""

    matrix: csr_matrix

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the matrix."""
        return tuple(self.matrix.shape)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return np.asarray(self.matrix[rows].toarray())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def dense(rows: Any) -> Rows:
    """Rows that are dense where they are read: of a sparse matrix, or as they are."""
    return DenseRows(rows) if issparse(rows) else rows


@dataclass(frozen=True)
class SomeColumns:
    """Some columns of an array, taken from each row when it is read."""

    rows: Rows
    chosen: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and chosen columns."""
        return self.rows.shape[0], len(self.chosen)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return np.asarray(self.rows[rows][:, self.chosen])


def read(z: Rows, rows: np.ndarray) -> np.ndarray:
    """Rows by number; neighbouring ones as a slice, which takes no search in a file and no copy in memory."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return np.asarray(z[slice(int(rows[0]), int(rows[-1]) + 1)])
    return np.asarray(z[rows])


def in_float(z: Any) -> Rows:
    """An array in memory as float32, without a copy where it is so already; what lies on disk as it is."""
    on_disk = isinstance(z, np.memmap) or not isinstance(z, np.ndarray)
    return z if on_disk and hasattr(z, "shape") else np.asarray(z, dtype=np.float32)


def halves(spots: Spots) -> np.ndarray:
    """The slide of every spot; a single slide is cut at the median of its longer side into two that act as slides."""
    if len(np.unique(spots.slide)) > 1:
        return spots.slide
    axis = int(np.argmax(np.ptp(spots.xy, axis=0)))
    # Ranks, not a threshold: the halves are equal also where many spots share the median coordinate.
    rank = np.argsort(np.lexsort((spots.xy[:, 1 - axis], spots.xy[:, axis])))
    return np.where(rank < len(rank) // 2, "first half", "second half")


def roles(spots: Spots) -> list[tuple[np.ndarray, np.ndarray]]:
    """Who plays the target and who is its bank, each slide (or half of a single one) in turn, as index arrays."""
    members = halves(spots)
    return [(np.flatnonzero(members == name), np.flatnonzero(members != name)) for name in np.unique(members)]
