"""Spread: by how much a predicted value is off, as it is on references held out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spahgc._linear.statistics import MIN_VARIANCE, groups_by_level
from spahgc._spots.known import mean_where_known
from spahgc._spots.rows import Rows, blocks_of, mean_of, read

MAX_LOG_RATIO = 3.0
"""A gene's variance differs from that of other genes of its level by at most this, in natural logarithms."""

MAX_LOG_SLOPE = 0.5
"""A spot's variance differs from that of the gene by at most this, in natural logarithms: 28 % of the spread."""


@dataclass(frozen=True)
class Spread:
    """Standard deviation of what a prediction of a new slide is off by, as it is on references held out in turn.

    Whatever keeps a prediction from the measurement is in it: the noise of counting, what the image does not show, and
    by how much whole slides differ. A gene's variance is shrunk towards that of genes of the same level, as far as it
    is the noise of few slides that sets it apart (empirical Bayes). A gene's spots differ by how much more or less of
    it is predicted there, with a slope that genes of the same level share.

    It is that of a slide like the references. Counting noise depends on the number of counts, and nobody knows those
    of a slide that was not measured: on one of far fewer counts than the references, it is too small.

    Parameters
    ----------
    variance
        Of every gene where its mean level is predicted, squared ``log1p`` units.
    level
        The gene's mean level on references held out.
    slope
        Change of the logarithm of the variance by each unit of the prediction.
    """

    variance: np.ndarray
    level: np.ndarray
    slope: np.ndarray

    @classmethod
    def fit(cls, measured: Rows, predicted: np.ndarray, slide: np.ndarray) -> Spread:
        """From held-out predictions.

        Every slide counts the same. The last step makes the mean over slides of the squared standardised residuals 1.

        Parameters
        ----------
        measured, predicted
            Spots x genes, ``log1p`` counts per 10,000; NaN where a slide says nothing of a gene. Some slide does of each gene.
        slide
            Name of each spot's slide.
        """
        parts = [np.flatnonzero(slide == name) for name in np.unique(slide)]
        moments = np.array([_moments(measured, predicted, rows) for rows in parts])
        squares, levels, spreads, covariances = moments.swapaxes(0, 1)
        level = mean_where_known(levels)
        variance = _shrunk(squares, level)
        # Slides of more noise would rule the slope.
        size = np.maximum(mean_where_known(squares / variance, axis=1, keepdims=True), MIN_VARIANCE)
        slope = _by_level(level, mean_where_known(covariances / (variance * size)), mean_where_known(spreads))
        raw = cls(variance, level, slope)
        of_slides = [raw.standardised_square(measured, predicted, rows) for rows in parts]
        return replace(raw, variance=np.maximum(variance * np.mean(of_slides), MIN_VARIANCE))

    def __call__(self, predicted: np.ndarray) -> np.ndarray:
        """Standard deviations of predictions (spots x genes, ``log1p`` counts per 10,000), same units, float32."""
        change = np.clip((predicted - self.level) * self.slope, -MAX_LOG_SLOPE, MAX_LOG_SLOPE)
        return np.sqrt(self.variance * np.exp(change)).astype(np.float32)

    def standardised_square(self, measured: Rows, predicted: np.ndarray, rows: np.ndarray) -> float:
        """Mean square of the residuals over their standard deviations, at some spots by number."""
        total, n = 0.0, 0
        for block in blocks_of(len(rows)):
            known, estimate = read(measured, rows[block]), read(predicted, rows[block])
            squares = np.square((known - estimate) / self(estimate))
            total += float(np.nansum(squares, dtype=np.float64))
            n += int(np.count_nonzero(~np.isnan(squares)))
        return total / n


def _moments(measured: Rows, predicted: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of some spots: mean square of the residuals, mean and variance of the predictions, covariance of both."""
    level, sums = mean_of(predicted, rows), np.zeros((3, predicted.shape[1]))
    for block in blocks_of(len(rows)):
        known, estimate = read(measured, rows[block]), read(predicted, rows[block])
        square, deviation = np.square(np.subtract(known, estimate, dtype=np.float64)), estimate - level
        sums += [square.sum(axis=0), np.square(deviation).sum(axis=0), (square * deviation).sum(axis=0)]
    square, spread, covariance = sums / len(rows)
    return np.array([square, level, spread, covariance])


def _shrunk(squares: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Variance of every gene from its mean squares on some slides (slides x genes), shrunk towards the trend."""
    n_slides, n_genes = squares.shape
    n_known = int(np.count_nonzero(~np.isnan(squares)))
    own = np.maximum(mean_where_known(squares), MIN_VARIANCE)
    trend = np.maximum(_by_level(level, own, np.ones(n_genes)), MIN_VARIANCE)
    apart = np.clip(np.log(own / trend), -MAX_LOG_RATIO, MAX_LOG_RATIO)
    of_slides = np.log(np.clip(squares / own, np.exp(-MAX_LOG_RATIO), np.exp(MAX_LOG_RATIO)))
    noise = of_slides - mean_where_known(of_slides) - mean_where_known(of_slides, axis=1, keepdims=True)
    noise += mean_where_known(of_slides, axis=None)
    # Of complete slides the freedom is (slides - 1) x (genes - 1), and every gene's mean is over all slides.
    freedom, n_of_gene = max(n_known - n_slides - n_genes + 1, 1), n_known / n_genes
    error = np.nansum(np.square(noise)) / freedom / n_of_gene
    total = apart.var()
    kept = max(1 - error / total, 0.0) if total > 0 else 0.0
    return trend * np.exp(kept * apart)


def _by_level(level: np.ndarray, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Ratio of two sums over genes of similar level, interpolated at the level of every gene."""
    groups = groups_by_level(level)
    ratios = [numerator[genes].sum() / max(denominator[genes].sum(), MIN_VARIANCE) for genes in groups]
    return np.interp(level, [level[genes].mean() for genes in groups], ratios)
