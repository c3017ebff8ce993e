"""Ridge regression whose penalty is chosen where it will be used: on a reference slide left out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PENALTIES = tuple(np.logspace(-4, 4, 17))
"""Ridge penalties to choose from, as shares of the mean sum of squares of a feature, whatever the encoder's scale."""

MIN_SCALE = 1e-12
"""Mean sum of squares below which features are constant and predict nothing."""


class Line(NamedTuple):
    """A linear map from features to responses."""

    coefficients: np.ndarray
    feature_mean: np.ndarray
    response_mean: np.ndarray
    penalty: float

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Responses at spots of these features (spots x features)."""
        return (x - self.feature_mean) @ self.coefficients + self.response_mean


def fit_line(x: np.ndarray, y: np.ndarray, slide: np.ndarray, *, n_judged: int | None = None) -> Line:
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
    n_judged
        Responses, from the first, whose error chooses the penalty; ``None`` for all.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    names = np.unique(slide)
    if len(names) == 1:
        errors = _errors_of_left_out_spots(_Decomposed.of(x, y[:, :n_judged]))
    else:
        errors = sum((_errors_on(x, y[:, :n_judged], slide == name) for name in names), np.zeros(len(PENALTIES)))
    penalty = PENALTIES[int(np.argmin(errors))]
    whole = _Decomposed.of(x, y)
    return Line(whole.vectors @ whole.solve(penalty), whole.feature_mean, whole.response_mean, penalty)


class _Decomposed(NamedTuple):
    """Spots in the principal axes of their features, where every penalty costs one division."""

    feature_mean: np.ndarray
    response_mean: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    scores: np.ndarray
    products: np.ndarray
    responses: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> _Decomposed:
        feature_mean, response_mean = x.mean(axis=0), y.mean(axis=0)
        centred, responses = x - feature_mean, y - response_mean
        values, vectors = np.linalg.eigh(centred.T @ centred)
        scores = centred @ vectors
        values = np.maximum(values, 0)
        return cls(feature_mean, response_mean, values, vectors, scores, scores.T @ responses, responses)

    def denominators(self, penalty: float) -> np.ndarray:
        return self.values + penalty * max(self.values.mean(), MIN_SCALE)

    def solve(self, penalty: float) -> np.ndarray:
        """Coefficients of the scores."""
        return self.products / self.denominators(penalty)[:, None]


def _errors_on(x: np.ndarray, y: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Summed squared error on the spots left out, one number a penalty."""
    known = _Decomposed.of(x[~left_out], y[~left_out])
    scores = (x[left_out] - known.feature_mean) @ known.vectors
    rest = y[left_out] - known.response_mean
    return np.array([np.square(rest - scores @ known.solve(penalty)).sum() for penalty in PENALTIES])


def _errors_of_left_out_spots(known: _Decomposed) -> np.ndarray:
    """Summed squared error over spots left out in turn, one number a penalty, without a fit for each of them.

    The error of a spot left out is its residual over ``1 - h``, where ``h`` is its entry on the diagonal of the matrix
    that maps responses to fitted ones.
    """
    errors = []
    for penalty in PENALTIES:
        leverage = 1 / len(known.scores) + (known.scores**2 / known.denominators(penalty)).sum(axis=1)
        residual = known.responses - known.scores @ known.solve(penalty)
        errors.append(np.square(residual / np.maximum(1 - leverage, MIN_SCALE)[:, None]).sum())
    return np.array(errors)
