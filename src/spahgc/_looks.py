"""What spots look like, read in blocks: standardised embeddings, and their means over the nearest spots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._features import SlideScale, spread_of
from spahgc._spots import Rows, SomeColumns
from spahgc.pp._spatial_graph import nearest_in_plane

HELD_NUMBERS = 2**24
"""Spots times dimensions, 67 MB, up to which what was computed is held: the axes look at every spot several times."""


@dataclass(frozen=True)
class Looks:
    """Embedding (or expression) of the spots, standardised and weighed; float32, held as a whole only where it is small.

    Parameters
    ----------
    z
        Spots x dim; any float type.
    scales
        Mean and spread of every dimension, by slide or of all.
    slide
        Which of the scales is a spot's, a number a spot.
    weight
        Of every dimension.
    """

    z: Rows
    scales: tuple[SlideScale, ...]
    slide: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(
        cls, z: Rows, slide: np.ndarray, blocks: tuple[tuple[int, int], ...] = (), scale: SlideScale | None = None
    ) -> Looks:
        """Standardised over the spots of each slide, or with one scale for all; blocks of columns weigh alike."""
        weight = np.ones(z.shape[1], dtype=np.float32)
        for start, stop in blocks:
            weight[start:stop] = 1 / np.sqrt(stop - start)
        if scale is not None:
            return cls(z, (scale,), np.zeros(z.shape[0], dtype=np.int64), weight)
        names, number = np.unique(slide, return_inverse=True)
        scales = tuple(spread_of(z, np.flatnonzero(number == i)) for i in range(len(names)))
        return cls(z, scales, number, weight)

    def some(self, chosen: np.ndarray) -> Looks:
        """Some of the dimensions, by number, as they were standardised."""
        scales = tuple(SlideScale(scale.mean[chosen], scale.spread[chosen]) for scale in self.scales)
        return Looks(SomeColumns(self.z, chosen), scales, self.slide, self.weight[chosen])

    @property
    def shape(self) -> tuple[int, ...]:
        """Spots and dimensions."""
        return self.z.shape

    @cached_property
    def _held(self) -> np.ndarray | None:
        return self._standardized(slice(None)) if np.prod(self.shape) <= HELD_NUMBERS else None

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self._standardized(rows) if self._held is None else self._held[rows]

    def _standardized(self, rows: slice | np.ndarray) -> np.ndarray:
        part, number = np.asarray(self.z[rows]), self.slide[rows]
        out = np.empty(part.shape, dtype=np.float32)
        for i in np.unique(number):
            out[number == i] = self.scales[i].apply(part[number == i])
        return out * self.weight

    def __len__(self) -> int:
        return len(self.slide)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


@dataclass(frozen=True)
class Surroundings:
    """Mean look of the nearest spots of the same slide, times a weight; computed block by block.

    Parameters
    ----------
    looks
        Of the spots themselves.
    near
        Spots x spots, CSR, rows sum to the weight.
    """

    looks: Looks
    near: csr_matrix

    @classmethod
    def of(cls, looks: Looks, xy: np.ndarray, slide: np.ndarray, k: int, weight: float) -> Surroundings:
        """The ``k`` nearest other spots of the same slide, or all others if fewer."""
        near, _ = nearest_in_plane(xy, k, slide)
        near = csr_matrix(near, dtype=np.float32)
        near.data *= np.repeat(weight / np.diff(near.indptr), np.diff(near.indptr)).astype(np.float32)
        return cls(looks, near)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spots and dimensions."""
        return self.looks.shape

    @cached_property
    def _held(self) -> np.ndarray | None:
        return sum_over(self.near, self.looks) if np.prod(self.shape) <= HELD_NUMBERS else None

    def __getitem__(self, rows: slice) -> np.ndarray:
        return sum_over(self.near[rows], self.looks) if self._held is None else self._held[rows]


def sum_over(near: csr_matrix, x: Rows) -> np.ndarray:
    """The product of some rows of a graph with what its columns look like, of which only those joined are read."""
    needed, columns = np.unique(near.indices, return_inverse=True)
    near = csr_matrix((near.data, columns, near.indptr), shape=(near.shape[0], len(needed)))
    return np.asarray(near @ x[needed])
