"""Ridge regression whose penalty is chosen where it will be used: on a reference slide left out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spahgc._spots.rows import blocks_of, centred_products

PENALTIES = tuple(np.logspace(-4, 4, 17))
"""Ridge penalties to choose from, as shares of the mean sum of squares of a feature, whatever the encoder's scale."""

MIN_SCALE = 1e-12
"""Mean sum of squares below which features are constant and predict nothing."""


class Ridge(NamedTuple):
    """A linear map from features to responses."""

    coefficients: np.ndarray
    feature_mean: np.ndarray
    response_mean: np.ndarray
    penalty: float

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Responses at spots of these features (spots x features), float64."""
        out = np.empty((len(x), self.coefficients.shape[1]))
        for rows in blocks_of(len(x)):
            out[rows] = (x[rows] - self.feature_mean) @ self.coefficients + self.response_mean
        return out


def fit_ridge(x: np.ndarray, y: np.ndarray, slide: np.ndarray, *, n_scored: int | None = None) -> Ridge:
    """Ridge regression of ``y`` on ``x``.

    The penalty is that of the least squared error over slides left out in turn, each predicted by all others; over
    spots left out in turn where there is a single slide. It is the same for all responses.

    Parameters
    ----------
    x
        Spots x features.
    y
        Spots x responses.
    slide
        Name of each spot's slide.
    n_scored
        Responses, from the first, whose error chooses the penalty; ``None`` for all.
    """
    names, everything = np.unique(slide), np.arange(len(x))
    if len(names) == 1:
        errors = _errors_of_left_out_spots(x, y[:, :n_scored])
    else:
        errors = sum((_errors_on(x, y[:, :n_scored], slide == name) for name in names), np.zeros(len(PENALTIES)))
    penalty = PENALTIES[int(np.argmin(errors))]
    whole = _Decomposed.fit(x, y, everything)
    return Ridge(whole.vectors @ whole.solve(penalty), whole.feature_mean, whole.response_mean, penalty)


class _Decomposed(NamedTuple):
    """Spots in the principal axes of their features, where every penalty costs one division."""

    feature_mean: np.ndarray
    response_mean: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    products: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray, spots: np.ndarray) -> _Decomposed:
        """From some spots, by number, of which a block at a time is held in double precision."""
        feature_mean, response_mean, squares, products = centred_products(x, y, spots)
        values, vectors = np.linalg.eigh(squares)
        return cls(feature_mean, response_mean, np.maximum(values, 0), vectors, vectors.T @ products)

    def denominators(self, penalty: float) -> np.ndarray:
        return self.values + penalty * max(self.values.mean(), MIN_SCALE)

    def solve(self, penalty: float) -> np.ndarray:
        """Coefficients of the scores."""
        return self.products / self.denominators(penalty)[:, None]


def _errors_on(x: np.ndarray, y: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Summed squared error on the spots left out, one number a penalty."""
    known = _Decomposed.fit(x, y, np.flatnonzero(~left_out))
    solutions = [known.solve(penalty) for penalty in PENALTIES]
    errors, spots = np.zeros(len(PENALTIES)), np.flatnonzero(left_out)
    for block in blocks_of(len(spots)):
        scores = (x[spots[block]] - known.feature_mean) @ known.vectors
        rest = y[spots[block]] - known.response_mean
        errors += [np.square(rest - scores @ solution).sum() for solution in solutions]
    return errors


def _errors_of_left_out_spots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Summed squared error over spots left out in turn, one number a penalty, without a fit for each of them.

    The error of a spot left out is its residual over ``1 - h``, where ``h`` is its entry on the diagonal of the matrix
    that maps responses to fitted ones.
    """
    known = _Decomposed.fit(x, y, np.arange(len(x)))
    errors = np.zeros(len(PENALTIES))
    for rows in blocks_of(len(x)):
        scores, responses = (x[rows] - known.feature_mean) @ known.vectors, y[rows] - known.response_mean
        for i, penalty in enumerate(PENALTIES):
            leverage = 1 / len(x) + (scores**2 / known.denominators(penalty)).sum(axis=1)
            residual = responses - scores @ known.solve(penalty)
            errors[i] += np.square(residual / np.maximum(1 - leverage, MIN_SCALE)[:, None]).sum()
    return errors
