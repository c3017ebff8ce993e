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
        errors = _errors_of_left_out_slides(x, y[:, :n_scored], [np.flatnonzero(slide == name) for name in names])
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
        return cls.of(*centred_products(x, y, spots))

    @classmethod
    def of(
        cls, feature_mean: np.ndarray, response_mean: np.ndarray, squares: np.ndarray, products: np.ndarray
    ) -> _Decomposed:
        """From means, and sums of squares and products about them."""
        values, vectors = np.linalg.eigh(squares)
        return cls(feature_mean, response_mean, np.maximum(values, 0), vectors, vectors.T @ products)

    def denominators(self, penalty: float) -> np.ndarray:
        return self.values + penalty * max(self.values.mean(), MIN_SCALE)

    def solve(self, penalty: float) -> np.ndarray:
        """Coefficients of the scores."""
        return self.products / self.denominators(penalty)[:, None]


def _errors_of_left_out_slides(x: np.ndarray, y: np.ndarray, slides: list[np.ndarray]) -> np.ndarray:
    """Summed squared error over slides left out in turn, one number a penalty.

    Sums of squares and products of all slides but one are those of all less its own, so that the time does not grow with the
    square of the number of slides.
    """
    n = np.array([len(spots) for spots in slides], dtype=np.float64)
    means_x, means_y, squares, products = zip(*(centred_products(x, y, spots) for spots in slides), strict=True)
    centre_x, centre_y = (np.average(means, axis=0, weights=n) for means in (means_x, means_y))
    apart_x, apart_y = np.array(means_x) - centre_x, np.array(means_y) - centre_y
    all_squares = sum(squares) + (n[:, None] * apart_x).T @ apart_x
    all_products = sum(products) + (n[:, None] * apart_x).T @ apart_y
    errors = np.zeros(len(PENALTIES))
    for i, spots in enumerate(slides):
        rest = n.sum() - n[i]
        off_x, off_y = (-n[i] * apart[i] / rest for apart in (apart_x, apart_y))  # mean of the others, from that of all
        known = _Decomposed.of(
            centre_x + off_x,
            centre_y + off_y,
            all_squares - squares[i] - n[i] * np.outer(apart_x[i], apart_x[i]) - rest * np.outer(off_x, off_x),
            all_products - products[i] - n[i] * np.outer(apart_x[i], apart_y[i]) - rest * np.outer(off_x, off_y),
        )
        errors += _errors_on(known, x, y, spots)
    return errors


def _errors_on(known: _Decomposed, x: np.ndarray, y: np.ndarray, spots: np.ndarray) -> np.ndarray:
    """Summed squared error on spots left out, by number, one number a penalty."""
    solutions = [known.solve(penalty) for penalty in PENALTIES]
    errors = np.zeros(len(PENALTIES))
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
