"""Image features as plain methods see them: standardised by slide, averaged over neighbours, reduced. Arrays only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spahgc._spots import read
from spahgc.pp._spatial_graph import nearest_in_plane

if TYPE_CHECKING:
    from spahgc._spots import Rows

MIN_SPREAD = 1e-6
"""What varies less than this is centred, not scaled."""

N_NEIGHBORS = 6
"""Nearest spots whose features are averaged: those around a spot of a hexagonal array."""

MIN_VARIANCE = 1e-12
"""Principal axes of less variance, as a share of the first one's, are noise of the arithmetic."""

MAX_EXACT = 2_000
"""Spots or dimensions, the fewer of them, up to which principal axes are exact: a second on one core."""

ITERATIONS = 5
"""Passes over the data of the randomised principal axes."""

BLOCK_SPOTS = 4096
"""Spots that are converted to double precision at a time."""

OVERSAMPLED = 10
"""Directions beyond the wanted ones that the randomised principal axes follow."""


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
        scale = spread_of(z, rows)
        for block in blocks_of(len(rows)):
            out[rows[block]] = scale.apply(read(z, rows[block]))
    return out


def neighbour_mean(z: np.ndarray, xy: np.ndarray, slide: np.ndarray, k: int = N_NEIGHBORS) -> np.ndarray:
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


def reduce(reference: np.ndarray, target: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of the reference spots, and the target's scores on the same axes.

    Parameters
    ----------
    reference
        Spots x dim, on which the axes are fitted.
    target
        Spots x dim.
    n
        Components; fewer come back where the references have no more.

    Returns
    -------
    Reference scores and target scores, spots x components, float64.
    """
    mean = reference.mean(axis=0, dtype=np.float64)
    axes = principal_axes(reference, n)
    return project(reference, mean, axes), project(target, mean, axes)


def rescale(reference: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both over the root mean square of the reference: a network's step then fits the features of any encoder."""
    size = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64))))
    size = size if size > 0 else 1.0
    return reference / size, target / size


@dataclass(frozen=True)
class SlideScale:
    """Mean and spread of every gene on a typical slide: means over the slides of a slide's own mean and spread.

    The inverse of :func:`standardize` for a slide on which nothing was measured.
    """

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, y: Rows, slide: np.ndarray) -> SlideScale:
        """The scale of some spots, spots x genes, and the name of each spot's slide."""
        slides = [spread_of(y, np.flatnonzero(slide == name)) for name in np.unique(slide)]
        return cls(np.mean([own.mean for own in slides], axis=0), np.mean([own.spread for own in slides], axis=0))

    def apply(self, y: np.ndarray) -> np.ndarray:
        """To standard deviations from the mean, float32; what does not vary is centred only."""
        spread = np.where(self.spread < MIN_SPREAD, 1.0, self.spread)
        return ((y - self.mean) / spread).astype(np.float32)

    def undo(self, y: np.ndarray) -> np.ndarray:
        """From standard deviations to the units of the references."""
        return self.mean + y * self.spread


def spread_of(z: Rows, rows: np.ndarray) -> SlideScale:
    """Mean and standard deviation of every dimension over some spots, by number, in two passes of blocks."""
    mean, squares = mean_of(z, rows), np.zeros(z.shape[1])
    for block in blocks_of(len(rows)):
        squares += np.square(read(z, rows[block]) - mean).sum(axis=0)
    return SlideScale(mean, np.sqrt(squares / len(rows)))


def principal_axes(x: Rows, n: int, mean: np.ndarray | None = None) -> np.ndarray:
    """Axes of largest variance, dim x at most ``n``; the largest entry of an axis is positive.

    Exact while spots or dimensions are at most 2,000; beyond that by randomised subspace iteration (Halko, Martinsson
    and Tropp 2011) with a fixed seed. Spots are read in blocks. At least one axis comes back: where nothing varies, all
    scores on it are 0.

    Parameters
    ----------
    x
        Spots x dim: an array, or what computes blocks of rows.
    n
        Axes, at most.
    mean
        Of every dimension, if it is known.
    """
    mean = mean_of(x) if mean is None else mean
    axes = _exact_axes(x, mean, n) if min(x.shape) <= MAX_EXACT else _randomised_axes(x, mean, n)
    length = np.linalg.norm(axes, axis=0)
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0))
    return axes * np.where(length > 0, signs / np.where(length > 0, length, 1.0), 0.0)


def mean_of(x: Rows, rows: np.ndarray | None = None) -> np.ndarray:
    """Mean of every dimension over all spots, or over some of them by number; float64."""
    total, n = np.zeros(x.shape[1]), x.shape[0] if rows is None else len(rows)
    for block in blocks_of(n):
        total += (x[block] if rows is None else read(x, rows[block])).sum(axis=0, dtype=np.float64)
    return total / n


def _exact_axes(x: Rows, mean: np.ndarray, n: int) -> np.ndarray:
    from scipy.linalg import eigh

    few_spots = x.shape[0] < x.shape[1]
    if few_spots:  # the smaller of the two matrices of products has the same information
        centred = x[:] - mean
        products = centred @ centred.T
    else:
        products = np.zeros([x.shape[1]] * 2)
        for rows in blocks_of(x.shape[0]):
            block = x[rows] - mean
            products += block.T @ block
    last = len(products) - 1
    values, vectors = eigh(products, subset_by_index=[max(0, last + 1 - n), last])
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > MIN_VARIANCE * values[0]
    kept[0] = True
    return np.asarray(centred.T @ vectors[:, kept] if few_spots else vectors[:, kept])


def _randomised_axes(x: Rows, mean: np.ndarray, n: int) -> np.ndarray:
    start = np.random.default_rng(0).standard_normal((x.shape[1], min(n + OVERSAMPLED, *x.shape)))
    axes, _ = np.linalg.qr(start)
    for _ in range(ITERATIONS):
        products = np.zeros_like(axes)
        for rows in blocks_of(x.shape[0]):
            block = (x[rows] - mean).astype(np.float32)
            products += block.T @ (block @ axes.astype(np.float32))
        axes, _ = np.linalg.qr(products)
    scores = project(x, mean, axes)
    values, turn = np.linalg.eigh(scores.T @ scores)
    order = np.argsort(-values)[:n]
    kept = values[order] > MIN_VARIANCE * values[order[0]]
    kept[0] = True
    return np.asarray(axes @ turn[:, order[kept]])


def project(x: Rows, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Scores of spots (spots x dim) on axes (dim x n) through a mean, in blocks of spots; float64."""
    return np.concatenate([(x[rows] - mean) @ axes for rows in blocks_of(x.shape[0])])


def blocks_of(n: int) -> Iterator[slice]:
    """Slices of so many spots that a block is small beside any slide."""
    return (slice(start, start + BLOCK_SPOTS) for start in range(0, n, BLOCK_SPOTS))
