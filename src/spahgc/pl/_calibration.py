"""Whether measured values are as far from the prediction as its spread says: the numbers of a figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._features import blocks_of

N_BINS = 12
"""Groups of values of similar spread."""
MAX_SAMPLE = 500_000
"""Values from which the bounds of the groups are taken, evenly spaced over all."""
EXPECTED = np.round(np.arange(0.05, 1.0, 0.05), 2)
"""Shares of values: what normal errors would have within so many spreads."""


@dataclass(frozen=True)
class Compared:
    """Values that were measured and predicted with a spread.

    Parameters
    ----------
    measured
        Spots x genes, CSR.
    predicted, spread
        The same in dense arrays, in the same units.
    spots, genes
        Which of them are compared, by number.
    """

    measured: csr_matrix
    predicted: np.ndarray
    spread: np.ndarray
    spots: np.ndarray
    genes: np.ndarray

    @property
    def n(self) -> int:
        """Number of values."""
        return len(self.spots) * len(self.genes)

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Absolute errors and spreads, flat, of some spots at a time."""
        for block in blocks_of(len(self.spots)):
            rows = self.spots[block]
            measured = self.measured[rows][:, self.genes].toarray()
            corner = np.ix_(rows, self.genes)
            error, spread = np.abs(measured - self.predicted[corner]), self.spread[corner]
            known = np.isfinite(error) & (spread > 0)
            yield error[known], spread[known]


def error_by_spread(values: Compared) -> np.ndarray:
    """Root mean square of spread and of error in groups of similar spread, groups x 2; those without a value left out.

    A calibrated spread gives two equal columns, whatever the shape of the errors.
    """
    step = ceil(values.n / MAX_SAMPLE)
    sample = np.concatenate([spread[::step] for _, spread in values.parts()])
    bounds = np.unique(np.quantile(sample, np.linspace(0, 1, N_BINS + 1)[1:-1])) if len(sample) else np.zeros(0)
    sums = np.zeros((3, len(bounds) + 1))
    for error, spread in values.parts():
        group = np.searchsorted(bounds, spread, side="right")
        for row, numbers in enumerate((np.ones(len(spread)), np.square(spread), np.square(error))):
            sums[row] += np.bincount(group, weights=numbers, minlength=len(bounds) + 1)
    n, squared_spread, squared_error = sums[:, sums[0] > 0]
    return np.sqrt(np.column_stack([squared_spread / n, squared_error / n]))


def share_by_expected(values: Compared) -> np.ndarray:
    """Expected and found share of values within so many spreads, shares x 2.

    Expected is what normal errors would have. Counts are not normal: most of a rare gene's are zero, and then more values
    than expected are close to the prediction although the spread is right.
    """
    from scipy.stats import norm

    limits = norm.ppf((1 + EXPECTED) / 2)
    inside, total = np.zeros(len(limits)), 0
    for error, spread in values.parts():
        inside += np.searchsorted(np.sort(error / spread), limits, side="right")
        total += len(error)
    return np.column_stack([EXPECTED, inside / max(total, 1)])
