"""Image features as plain methods see them: standardised by slide, averaged over neighbours, reduced. Arrays only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spahgc.pp._spatial_graph import nearest_in_plane

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


def standardize(z: np.ndarray, slide: np.ndarray) -> np.ndarray:
    """Every dimension to mean 0 and standard deviation 1 over the spots of each slide, float32.

    What stains and scanners add to a whole slide goes; a dimension that is constant on a slide becomes 0 there.

    Parameters
    ----------
    z
        Spots x dim.
    slide
        Name of each spot's slide.
    """
    out = np.empty_like(z, dtype=np.float32)
    for name in np.unique(slide):
        rows = slide == name
        part = z[rows].astype(np.float64)
        spread = part.std(axis=0)
        out[rows] = (part - part.mean(axis=0)) / np.where(spread < MIN_SPREAD, 1.0, spread)
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
    def of(cls, y: np.ndarray, slide: np.ndarray) -> SlideScale:
        """The scale of some spots, spots x genes, and the name of each spot's slide."""
        slides = [y[slide == name].astype(np.float64) for name in np.unique(slide)]
        return cls(
            np.mean([part.mean(axis=0) for part in slides], axis=0),
            np.mean([part.std(axis=0) for part in slides], axis=0),
        )

    def apply(self, y: np.ndarray) -> np.ndarray:
        """To standard deviations from the mean, float32; what does not vary is centred only."""
        spread = np.where(self.spread < MIN_SPREAD, 1.0, self.spread)
        return ((y - self.mean) / spread).astype(np.float32)

    def undo(self, y: np.ndarray) -> np.ndarray:
        """From standard deviations to the units of the references."""
        return self.mean + y * self.spread


def principal_axes(x: np.ndarray, n: int) -> np.ndarray:
    """Axes of largest variance, dim x at most ``n``; the largest entry of an axis is positive.

    Exact while spots or dimensions are at most 2,000; beyond that by randomised subspace iteration (Halko, Martinsson
    and Tropp 2011) with a fixed seed. At least one axis comes back: where nothing varies, all scores on it are 0.
    """
    mean = x.mean(axis=0, dtype=np.float64)
    axes = _exact_axes(x, mean, n) if min(x.shape) <= MAX_EXACT else _randomised_axes(x, mean, n)
    length = np.linalg.norm(axes, axis=0)
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0))
    return axes * np.where(length > 0, signs / np.where(length > 0, length, 1.0), 0.0)


def _exact_axes(x: np.ndarray, mean: np.ndarray, n: int) -> np.ndarray:
    from scipy.linalg import eigh

    few_spots = len(x) < x.shape[1]
    if few_spots:  # the smaller of the two matrices of products has the same information
        centred = x - mean
        products = centred @ centred.T
    else:
        products = sum(((block := x[rows] - mean).T @ block for rows in _blocks(len(x))), np.zeros([x.shape[1]] * 2))
    last = len(products) - 1
    values, vectors = eigh(products, subset_by_index=[max(0, last + 1 - n), last])
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > MIN_VARIANCE * values[0]
    kept[0] = True
    return np.asarray(centred.T @ vectors[:, kept] if few_spots else vectors[:, kept])


def _randomised_axes(x: np.ndarray, mean: np.ndarray, n: int) -> np.ndarray:
    from sklearn.utils.extmath import randomized_svd

    _, values, axes = randomized_svd((x - mean).astype(np.float32), n, n_iter=ITERATIONS, random_state=0)
    kept = values > np.sqrt(MIN_VARIANCE) * values[0]
    kept[0] = True
    return np.asarray(axes[kept].T, dtype=np.float64)


def project(x: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Scores of spots (spots x dim) on axes (dim x n) through a mean, in blocks of spots; float64."""
    return np.concatenate([(x[rows] - mean) @ axes for rows in _blocks(len(x))])


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK_SPOTS) for start in range(0, n, BLOCK_SPOTS))
