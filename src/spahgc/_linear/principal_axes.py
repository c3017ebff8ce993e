"""Principal axes of spots that are read in blocks, and scores on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spahgc._spots.rows import blocks_of, mean_of

if TYPE_CHECKING:
    from spahgc._spots.rows import Rows

MIN_VARIANCE = 1e-12
"""Principal axes of less variance, as a share of the first one's, are noise of the arithmetic."""

MAX_EXACT = 2_000
"""Spots or dimensions, the fewer of them, up to which principal axes are exact: a second on one core."""

ITERATIONS = 5
"""Passes over the data of the randomised principal axes."""

OVERSAMPLED = 10
"""Directions beyond the wanted ones that the randomised principal axes follow."""


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
