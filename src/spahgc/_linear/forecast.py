"""What is to be expected of a new slide, from references held out: correlations of its genes, and widths of its intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import lsq_linear

from spahgc._linear.conformal import GroupScores
from spahgc._linear.spread import Spread
from spahgc._linear.statistics import MAX_PCC, MIN_VARIANCE, groups_by_level, moments_of, pearson
from spahgc._spots.known import mean_where_known
from spahgc._spots.rows import Rows, read

MAX_SIGNAL = 1.5
"""Standard deviation of a prediction over that of a measurement from which on it tells no more."""

MAX_COEFFICIENT = 1.5
"""Largest coefficient of past correlation and of signal that few references may give."""

N_SCORED_SPOTS = 2_000
"""Spots of a slide, evenly, whose residuals are looked at."""

MIN_SUPPORT_SLOPE, MAX_SUPPORT_SLOPE = 0.05, 0.5
"""Least and largest growth of the logarithm of a variance with that of one over the support. The least is assumed where
references show none: held out, they hold no tissue that is really foreign."""

MIN_SPOTS_BEYOND = 3
"""Spots that a correlation takes before it tells anything, in Fisher's variance ``1 / (n - 3)``."""


@dataclass(frozen=True)
class GeneForecast:
    """Correlation of every gene on a new slide.

    Fisher's z of a gene is expected to be a line in two numbers: its mean on references held out, and the signal, which is
    the standard deviation that is predicted over the slide as a share of that which is measured on the references. A
    prediction that is right about its own size correlates by as much. Both coefficients are those that serve best on
    references held out, each from the others.

    Parameters
    ----------
    z
        Mean of Fisher's z over the references, a number a gene; NaN where no reference has one.
    spread
        Standard deviation that was measured, mean over the references.
    coefficients
        Intercept, and of mean and signal.
    between
        Variance of z that is left between slides, beyond ``1 / (n - 3)`` of the number of spots.
    residuals
        Of z over its standard deviation; one kind.
    """

    z: np.ndarray
    spread: np.ndarray
    coefficients: np.ndarray
    between: float
    residuals: GroupScores

    @classmethod
    def fit(cls, measured: Rows, predicted: np.ndarray, slide: np.ndarray, group: np.ndarray) -> GeneForecast:
        """From held-out predictions.

        Parameters
        ----------
        measured, predicted
            Spots x genes.
        slide, group
            Name of each spot's slide, and of what was held out together.
        """
        names = np.unique(slide)
        parts = [np.flatnonzero(slide == name) for name in names]
        groups = np.array([group[rows[0]] for rows in parts])
        z = np.array([np.arctanh(np.clip(pearson(measured, predicted, rows), -MAX_PCC, MAX_PCC)) for rows in parts])
        noise = np.array([noise_of(len(rows)) ** 2 for rows in parts])
        spreads = np.sqrt(np.array([moments_of(measured, rows)[1] for rows in parts]))
        signals = np.sqrt(np.array([moments_of(predicted, rows)[1] for rows in parts]))
        seen = [_others(z, noise, spreads, i) for i in range(len(parts))]
        lines = [_columns(mean, _signal(signals[i], spread)) for i, (mean, spread) in enumerate(seen)]
        coefficients = _coefficients(lines, list(z))
        residuals = [z[i] - line @ coefficients for i, line in enumerate(lines)]
        excess = [np.nanmean(np.square(part)) - noise[i] for i, part in enumerate(residuals) if np.isfinite(part).any()]
        between = max(float(np.mean(excess)) if excess else 0.0, 0.0)
        scaled = [part / np.sqrt(between + noise[i]) for i, part in enumerate(residuals)]
        by_group = [[np.concatenate([scaled[i] for i in np.flatnonzero(groups == name)])] for name in np.unique(groups)]
        return cls(_mean(z, noise), mean_where_known(spreads), coefficients, between, GroupScores.fit(by_group))

    def expected(self, deviations: np.ndarray) -> np.ndarray:
        """Fisher's z of every gene on a slide; NaN where nothing tells.

        Parameters
        ----------
        deviations
            Standard deviation of every gene's prediction over the slide.
        """
        return _columns(self.z, _signal(deviations, self.spread)) @ self.coefficients

    def signal(self, deviations: np.ndarray) -> np.ndarray:
        """Signal of every gene on a slide over which so much is predicted; NaN where no reference has a correlation."""
        return np.where(np.isnan(self.z), np.nan, _signal(deviations, self.spread))

    def deviation(self, n_spots: int) -> float:
        """Standard deviation of z on a slide of so many spots, with which the residuals are multiplied."""
        return float(np.sqrt(self.between + noise_of(n_spots) ** 2))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays by name."""
        return {
            "z": np.ascontiguousarray(self.z),
            "spread": np.ascontiguousarray(self.spread),
            "coefficients": self.coefficients,
            "between": np.array(self.between),
            "residuals": self.residuals.quantiles,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> GeneForecast:
        """The inverse of :meth:`to_arrays`."""
        residuals = GroupScores(arrays["residuals"])
        return cls(arrays["z"], arrays["spread"], arrays["coefficients"], arrays["between"].item(), residuals)


def noise_of(n_spots: int) -> float:
    """Standard deviation of Fisher's z of so many spots."""
    return float(1 / np.sqrt(max(n_spots - MIN_SPOTS_BEYOND, 1)))


def _mean(z: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Mean over slides, those of more spots weighing more; NaN where no slide has a value."""
    weight = np.where(np.isnan(z), 0.0, 1 / noise[:, None])
    total = weight.sum(axis=0)
    return np.divide((weight * np.nan_to_num(z)).sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0)


def _others(z: np.ndarray, noise: np.ndarray, spreads: np.ndarray, slide: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of z and of the measured spread on all slides but one; of a single one its own, for want of others."""
    others = np.arange(len(z)) != slide if len(z) > 1 else np.ones(1, dtype=bool)
    return _mean(z[others], noise[others]), mean_where_known(spreads[others])


def _signal(deviations: np.ndarray, spread: np.ndarray) -> np.ndarray:
    least = np.sqrt(MIN_VARIANCE)
    return np.clip(deviations / np.maximum(spread, least), 0, MAX_SIGNAL)


def _columns(z: np.ndarray, signal: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(z)), z, signal])


def _coefficients(lines: list[np.ndarray], z: list[np.ndarray]) -> np.ndarray:
    """Least squares with coefficients that are not negative; the mean alone where nothing tells."""
    x, y = np.concatenate(lines), np.concatenate(z)
    known = np.isfinite(x).all(axis=1) & np.isfinite(y)
    if known.sum() <= x.shape[1]:
        return np.array([0.0, 1.0, 0.0])
    low, high = [-np.inf, 0, 0], [np.inf, MAX_COEFFICIENT, MAX_COEFFICIENT]
    return np.asarray(lsq_linear(x[known], y[known], bounds=(low, high)).x)


@dataclass(frozen=True)
class ValueForecast:
    """By how many spreads a value of a new slide may be off.

    Parameters
    ----------
    kind
        Of every gene, which of the groups of similar level it belongs to.
    support_slope
        Growth of the logarithm of the variance with that of one over the support.
    support_level
        What the variance is divided by, so that the mean over the references is 1.
    scores
        Absolute residuals over spread and growth; a kind for each level.
    """

    kind: np.ndarray
    support_slope: float
    support_level: float
    scores: GroupScores

    @classmethod
    def fit(
        cls,
        measured: Rows,
        predicted: np.ndarray,
        spread: Spread,
        slide: np.ndarray,
        group: np.ndarray,
        support: np.ndarray,
    ) -> ValueForecast:
        """From held-out predictions.

        Parameters
        ----------
        measured, predicted
            Spots x genes, same units.
        spread
            Of such predictions.
        slide, group
            Name of each spot's slide, and of what was held out together.
        support
            Of every spot by the other slides; NaN where it was not computed.
        """
        rows = np.concatenate([_some(np.flatnonzero(slide == name)) for name in np.unique(slide)])
        apart = np.abs(read(measured, rows) - predicted[rows]) / spread(predicted[rows])
        slope, size = _by_support(mean_where_known(np.square(apart), axis=1), support[rows], slide[rows])
        grown = apart / _growth(support[rows], slope, size)[:, None]
        kinds = groups_by_level(spread.level)
        kind = np.empty(len(spread.level), dtype=np.int64)
        for i, genes in enumerate(kinds):
            kind[genes] = i
        scores = [[grown[group[rows] == name][:, genes].ravel() for genes in kinds] for name in np.unique(group)]
        return cls(kind, slope, size, GroupScores.fit(scores, leave_out=True))

    def growth(self, support: np.ndarray) -> np.ndarray:
        """What the spread of spots is multiplied by, a number a spot."""
        return _growth(support, self.support_slope, self.support_level)

    def widths(self, level: float, *, unseen: float, factor: float) -> np.ndarray:
        """Half width of an interval of that level in spreads, a number a gene."""
        return self.scores.quantile(level, unseen=unseen, factor=factor)[self.kind]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays by name."""
        numbers = {"support_slope": np.array(self.support_slope), "support_level": np.array(self.support_level)}
        return {"kind": self.kind, **numbers, "scores": self.scores.quantiles}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ValueForecast:
        """The inverse of :meth:`to_arrays`."""
        slope, size = arrays["support_slope"].item(), arrays["support_level"].item()
        return cls(arrays["kind"], slope, size, GroupScores(arrays["scores"]))


def _some(rows: np.ndarray) -> np.ndarray:
    n = min(len(rows), N_SCORED_SPOTS)
    return rows[np.linspace(0, len(rows) - 1, n).round().astype(np.int64)]


def _by_support(square: np.ndarray, support: np.ndarray, slide: np.ndarray) -> tuple[float, float]:
    """Slope of the logarithm of mean squares on minus that of the support, within slides, and the mean of the growth."""
    known = np.isfinite(support) & (square > 0)
    x, y = -np.log(np.where(known, support, 1.0)), np.log(np.where(known, square, 1.0))
    products = np.zeros(2)
    for name in np.unique(slide[known]):
        rows = known & (slide == name)
        far = x[rows] - x[rows].mean()
        products += [(far * y[rows]).sum(), np.square(far).sum()]
    found = products[0] / products[1] if products[1] > 0 else 0.0
    slope = float(np.clip(found, MIN_SUPPORT_SLOPE, MAX_SUPPORT_SLOPE))
    return slope, float(np.exp(slope * x[known]).mean()) if known.any() else 1.0


def _growth(support: np.ndarray, slope: float, size: float) -> np.ndarray:
    """Of the spread of some spots; 1 where the support is not known."""
    found = np.sqrt(np.power(np.where(np.isfinite(support), support, 1.0), -slope) / size)
    return np.where(np.isfinite(support), found, 1.0)
