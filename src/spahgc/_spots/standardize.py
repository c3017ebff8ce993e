"""Image features or expression standardised by slide, of the spots and in the mean over their neighbours, read in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._spots.plane import nearest_in_plane
from spahgc._spots.rows import Rows, SomeColumns, blocks_of, read

if TYPE_CHECKING:
    from spahgc._spots.rows import Rows

MIN_SPREAD = 1e-6
"""What varies less than this is centred, not scaled."""

N_HEXAGONAL = 6
"""Nearest spots whose features are averaged: those around a spot of a hexagonal array."""


def standardize(z: Rows, slide: np.ndarray) -> np.ndarray:
    """Every dimension to mean 0 and standard deviation 1 over the spots of each slide, float32.

    What stains and scanners add to a whole slide goes; a dimension that is constant on a slide becomes 0 there.

    Parameters
    ----------
    z
        Spots x dim.
    slide
        Name of each spot's slide.
    """
    out = np.empty(z.shape, dtype=np.float32)
    for name in np.unique(slide):
        rows = np.flatnonzero(slide == name)
        scale = mean_and_std(z, rows)
        for block in blocks_of(len(rows)):
            out[rows[block]] = scale.transform(read(z, rows[block]))
    return out


def neighbour_mean(z: np.ndarray, xy: np.ndarray, slide: np.ndarray, k: int = N_HEXAGONAL) -> np.ndarray:
    """Mean feature of the ``k`` nearest other spots of the same slide, or of all others if fewer.

    Parameters
    ----------
    z
        Spots x dim.
    xy
        Spot centres, spots x 2.
    slide
        Name of each spot's slide.
    k
        Neighbours of a spot.

    Returns
    -------
    Spots x dim, float32.
    """
    near, _ = nearest_in_plane(xy, k, slide)
    per_spot = np.diff(near.indptr)[:, None]
    return ((near.astype(np.float32) @ z) / per_spot).astype(np.float32)


@dataclass(frozen=True)
class SlideScale:
    """Mean and spread of every gene on a typical slide: means over the slides of a slide's own mean and spread.

    The inverse of :func:`standardize` for a slide on which nothing was measured.
    """

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def fit(cls, y: Rows, slide: np.ndarray) -> SlideScale:
        """The scale of some spots, spots x genes, and the name of each spot's slide."""
        slides = [mean_and_std(y, np.flatnonzero(slide == name)) for name in np.unique(slide)]
        return cls(np.mean([own.mean for own in slides], axis=0), np.mean([own.spread for own in slides], axis=0))

    def transform(self, y: np.ndarray) -> np.ndarray:
        """To standard deviations from the mean, float32; what does not vary is centred only."""
        spread = np.where(self.spread < MIN_SPREAD, 1.0, self.spread)
        return ((y - self.mean) / spread).astype(np.float32)

    def inverse_transform(self, y: np.ndarray) -> np.ndarray:
        """From standard deviations to the units of the references."""
        return self.mean + y * self.spread


def mean_and_std(z: Rows, rows: np.ndarray) -> SlideScale:
    """Mean and standard deviation of every dimension over some spots, by number, in two passes of blocks."""
    mean, squares = mean_of(z, rows), np.zeros(z.shape[1])
    for block in blocks_of(len(rows)):
        squares += np.square(read(z, rows[block]) - mean).sum(axis=0)
    return SlideScale(mean, np.sqrt(squares / len(rows)))


def mean_of(x: Rows, rows: np.ndarray | None = None) -> np.ndarray:
    """Mean of every dimension over all spots, or over some of them by number; float64."""
    total, n = np.zeros(x.shape[1]), x.shape[0] if rows is None else len(rows)
    for block in blocks_of(n):
        total += (x[block] if rows is None else read(x, rows[block])).sum(axis=0, dtype=np.float64)
    return total / n


HELD_NUMBERS = 2**24
"""Spots times dimensions, 67 MB, up to which what was computed is held: the axes look at every spot several times."""


@dataclass(frozen=True)
class StandardizedRows:
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
    def fit(
        cls, z: Rows, slide: np.ndarray, blocks: tuple[tuple[int, int], ...] = (), scale: SlideScale | None = None
    ) -> StandardizedRows:
        """Standardised over the spots of each slide, or with one scale for all; blocks of columns weigh alike."""
        weight = np.ones(z.shape[1], dtype=np.float32)
        for start, stop in blocks:
            weight[start:stop] = 1 / np.sqrt(stop - start)
        if scale is not None:
            return cls(z, (scale,), np.zeros(z.shape[0], dtype=np.int64), weight)
        names, number = np.unique(slide, return_inverse=True)
        scales = tuple(mean_and_std(z, np.flatnonzero(number == i)) for i in range(len(names)))
        return cls(z, scales, number, weight)

    def some(self, chosen: np.ndarray) -> StandardizedRows:
        """Some of the dimensions, by number, as they were standardised."""
        scales = tuple(SlideScale(scale.mean[chosen], scale.spread[chosen]) for scale in self.scales)
        return StandardizedRows(SomeColumns(self.z, chosen), scales, self.slide, self.weight[chosen])

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
            out[number == i] = self.scales[i].transform(part[number == i])
        return out * self.weight

    def __len__(self) -> int:
        return len(self.slide)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


@dataclass(frozen=True)
class NeighbourMeanRows:
    """Mean look of the nearest spots of the same slide, times a weight; computed block by block.

    Parameters
    ----------
    rows_standardized
        Of the spots themselves.
    near
        Spots x spots, CSR, rows sum to the weight.
    """

    rows_standardized: StandardizedRows
    near: csr_matrix

    @classmethod
    def fit(
        cls, rows_standardized: StandardizedRows, xy: np.ndarray, slide: np.ndarray, k: int, weight: float
    ) -> NeighbourMeanRows:
        """The ``k`` nearest other spots of the same slide, or all others if fewer."""
        near, _ = nearest_in_plane(xy, k, slide)
        near = csr_matrix(near, dtype=np.float32)
        near.data *= np.repeat(weight / np.diff(near.indptr), np.diff(near.indptr)).astype(np.float32)
        return cls(rows_standardized, near)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spots and dimensions."""
        return self.rows_standardized.shape

    @cached_property
    def _held(self) -> np.ndarray | None:
        return sum_over(self.near, self.rows_standardized) if np.prod(self.shape) <= HELD_NUMBERS else None

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return sum_over(self.near[rows], self.rows_standardized) if self._held is None else self._held[rows]


def sum_over(near: csr_matrix, x: Rows) -> np.ndarray:
    """The product of some rows of a graph with what its columns look like, of which only those joined are read."""
    needed, columns = np.unique(near.indices, return_inverse=True)
    near = csr_matrix((near.data, columns, near.indptr), shape=(near.shape[0], len(needed)))
    return np.asarray(near @ x[needed])
