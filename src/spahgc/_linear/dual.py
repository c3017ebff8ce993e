"""What a linear prediction is made of: the weights with which the responses of known spots add up to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from spahgc._linear.kernel import Kernel, KernelRidge, arc_cosine, decompose_through
from spahgc._linear.ridge import MIN_SCALE, Ridge
from spahgc._spots.rows import blocks_of, centred_products


class Dual(NamedTuple):
    """Weights of the known spots for some responses that share a penalty.

    Parameters
    ----------
    responses
        Which responses, by number.
    slopes
        What the weights are multiplied by, a number a response.
    weights
        Spots x known spots, float64.
    """

    responses: np.ndarray
    slopes: np.ndarray
    weights: np.ndarray


def ridge_dual(ridge: Ridge, known: np.ndarray, x: np.ndarray) -> Iterator[Dual]:
    """Weights of the spots on which a ridge regression stands: times their responses they add up to its prediction.

    Parameters
    ----------
    ridge
        The regression.
    known
        Features of the spots on which it was fitted, spots x features.
    x
        Features of the spots in question.
    """
    everything, n_responses = np.arange(len(known)), ridge.coefficients.shape[1]
    _, _, squares, _ = centred_products(known, np.empty((len(known), 0)), everything)
    unit = max(float(np.trace(squares)) / len(squares), MIN_SCALE)
    towards = np.linalg.solve(squares + ridge.penalty * unit * np.eye(len(squares)), (x - ridge.feature_mean).T)
    weights = np.empty((len(x), len(known)))
    for rows in blocks_of(len(known)):
        # The mean of the responses is one nth of each of them.
        weights[:, rows] = ((known[rows] - ridge.feature_mean) @ towards).T + 1 / len(known)
    yield Dual(np.arange(n_responses), np.ones(n_responses), weights)


def kernel_dual(expert: KernelRidge, known: np.ndarray, x: np.ndarray, kernel: Kernel = arc_cosine) -> Iterator[Dual]:
    """The same of a kernel ridge regression, a member for each of its penalties.

    Parameters
    ----------
    expert
        The regression, exact or through landmarks.
    known
        Features of all spots on which it was fitted, spots x features; where it is exact, they are its landmarks.
    x
        Features of the spots in question.
    kernel
        With which it was fitted.
    """
    penalties = np.unique(expert.penalties)
    weights_of = _exact if len(expert.landmarks) == len(known) else _through_landmarks
    for penalty, weights in zip(penalties, weights_of(expert, known, x, kernel, penalties), strict=True):
        responses = np.flatnonzero(expert.penalties == penalty)
        yield Dual(responses, expert.slopes[responses], weights)


def _exact(
    expert: KernelRidge, known: np.ndarray, x: np.ndarray, kernel: Kernel, penalties: np.ndarray
) -> Iterator[np.ndarray]:
    between, towards = kernel(known, known), kernel(known, x)
    # The mean of the eigenvalues is that of the diagonal; solving is many times as fast as finding them.
    unit = max(float(between.diagonal().mean()), np.finfo(np.float64).tiny)
    for penalty in penalties:
        penalised = between.copy()
        penalised[np.diag_indices_from(penalised)] += penalty * unit
        yield cho_solve(cho_factor(penalised, lower=True, overwrite_a=True), towards).T


def _through_landmarks(
    expert: KernelRidge, known: np.ndarray, x: np.ndarray, kernel: Kernel, penalties: np.ndarray
) -> Iterator[np.ndarray]:
    axes = decompose_through(known, np.empty((len(known), 0)), kernel, expert.landmarks)
    scores, found = axes.scores(x, kernel), [np.empty((len(x), len(known))) for _ in penalties]
    for rows in blocks_of(len(known)):
        of_known = axes.scores(known[rows], kernel).T
        for penalty, weights in zip(penalties, found, strict=True):
            weights[:, rows] = (scores / (axes.values + penalty * axes.penalty_unit)) @ of_known
    yield from found
