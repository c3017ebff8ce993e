"""The numbers of an embedding while they are computed, in the two arrays in which they are written: no copy is made of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Columns:
    """All columns of an embedding: the encoder's own, and those beside them.

    Parameters
    ----------
    n_spots, n_own, n_columns
        Spots, columns of the encoder's own, and of all.
    """

    def __init__(self, n_spots: int, n_own: int, n_columns: int) -> None:
        self.own = np.empty((n_spots, n_own), dtype=np.float32)
        self.beside = np.empty((n_spots, n_columns - n_own), dtype=np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Spots and columns."""
        return len(self.own), self.own.shape[1] + self.beside.shape[1]

    def rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """All columns of some spots, a copy."""
        return np.hstack([self.own[rows], self.beside[rows]])

    def put(self, rows: NDArray[np.int64], start: int, values: NDArray[np.float32]) -> None:
        """Write columns from `start` on of some spots."""
        n_own = self.own.shape[1]
        cut = min(max(n_own - start, 0), values.shape[1])
        if cut:
            self.own[rows, start : start + cut] = values[:, :cut]
        if cut < values.shape[1]:
            first = max(start - n_own, 0)
            self.beside[rows, first : first + values.shape[1] - cut] = values[:, cut:]
