"""Moments and correlations of genes over some spots, in blocks of rows, and genes of similar level together."""

from __future__ import annotations

import numpy as np

from spahgc._spots.rows import MIN_SPREAD, Rows, blocks_of, mean_of, read

MAX_PCC = 1 - 1e-6
"""Correlations beyond this are taken for it: Fisher's z of 1 is infinite."""

MIN_VARIANCE = MIN_SPREAD**2
"""Variance of a residual, in squared ``log1p`` units, below which there is none."""

GENES_PER_LEVEL, MAX_LEVELS = 12, 12
"""Genes of similar level share a trend: at least so many each, in at most so many levels."""


def pearson(measured: Rows, predicted: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Pearson correlation of the columns at some spots, by number; NaN where a column is constant."""
    centre = [mean_of(x, rows) for x in (measured, predicted)]
    sums = np.zeros((3, measured.shape[1]))
    for block in blocks_of(len(rows)):
        a, b = (read(x, rows[block]) - mean for x, mean in zip((measured, predicted), centre, strict=True))
        sums += [np.square(a).sum(axis=0), np.square(b).sum(axis=0), (a * b).sum(axis=0)]
    length_a, length_b = np.sqrt(sums[:2])
    constant = np.minimum(length_a, length_b) < MIN_SPREAD * np.sqrt(len(rows))
    return np.where(constant, np.nan, sums[2] / np.where(constant, 1.0, length_a * length_b))


def moments_of(x: Rows, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the columns at some spots, by number."""
    mean, squares = mean_of(x, rows), np.zeros(x.shape[1])
    for block in blocks_of(len(rows)):
        squares += np.square(read(x, rows[block]) - mean).sum(axis=0)
    return mean, squares / len(rows)


def groups_by_level(level: np.ndarray) -> list[np.ndarray]:
    """Genes by number, those of similar level together, the lowest first."""
    n_levels = int(np.clip(len(level) // GENES_PER_LEVEL, 1, MAX_LEVELS))
    return np.array_split(np.argsort(level, kind="stable"), n_levels)
