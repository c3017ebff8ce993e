"""Split conformal prediction over groups: how large scores get on a group that is none of those that were held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRID = np.concatenate([np.linspace(0.0, 0.95, 96), np.linspace(0.955, 1.0, 46)])
"""Shares of the scores of a group at which they are kept, finer where an interval ends."""

N_SEARCHED = 2_001
"""Values between the least and the largest score among which a quantile is looked for."""


@dataclass(frozen=True)
class GroupScores:
    """Distribution of scores on each group that was held out, and on one that was not.

    A new group is one more draw of those that were held out, and its spots are draws within it (hierarchical conformal
    prediction: Lee, Barber and Willett 2023, "Distribution-free inference with hierarchical data", after Vovk, Gammerman
    and Shafer 2005; Dunn, Wasserman and Ramdas 2023). The quantile is that of the mixture in which each of ``K`` groups
    weighs ``1 / (K + 1)``, and the group that is not known yet weighs as much. Without any assumption the scores of that
    group are infinite, and with fewer than nine groups so is every interval of 90 %: that few groups guarantee nothing.
    What is assumed in its place is that it spreads like the known ones together, ``unseen`` times as far. The more groups
    there are, the less that number counts.

    Parameters
    ----------
    quantiles
        Scores at the shares of :data:`GRID`, groups x kinds x shares; kinds are such as genes of a similar level. NaN where a
        group has no score of a kind: it is then none of the groups of that kind.
    """

    quantiles: np.ndarray

    @classmethod
    def fit(cls, scores: list[list[np.ndarray]], *, leave_out: bool = False) -> GroupScores:
        """From the scores of each group and kind, in any order; those that are NaN have no part in it.

        With ``leave_out`` a group without a score of a kind is no group of that kind; otherwise its scores are 0.
        """
        found = np.array([[_quantiles(kind) for kind in group] for group in scores])
        if leave_out:
            empty = np.array([[not np.isfinite(kind).any() for kind in group] for group in scores])
            found[empty & ~empty.all(axis=0)] = np.nan
        return cls(found)

    @property
    def n_groups(self) -> int:
        """Groups that were held out."""
        return len(self.quantiles)

    def quantile(self, share: float, *, unseen: float, factor: float = 1.0) -> np.ndarray:
        """Score below which a share of a new group is expected, a number a kind.

        Parameters
        ----------
        share
            Between 0 and 1.
        unseen
            How many times as far the scores of the unknown group spread as those of the known ones.
        factor
            What all scores are multiplied by first.
        """
        return np.array([self._quantile(kind, share, unseen) for kind in self.quantiles.swapaxes(0, 1)]) * factor

    def share_below(self, score: np.ndarray, *, unseen: float, factor: float = 1.0, kind: int = 0) -> np.ndarray:
        """Share of a new group that is expected at most at some scores; the inverse of :meth:`quantile`."""
        return _mixture(_known(self.quantiles[:, kind]), np.asarray(score) / factor, unseen)

    def _quantile(self, groups: np.ndarray, share: float, unseen: float) -> float:
        groups = _known(groups)
        low, high = float(groups.min()), float(groups.max())
        values = np.linspace(min(low, low * unseen), max(high, high * unseen), N_SEARCHED)
        return float(np.interp(share, _mixture(groups, values, unseen), values))


def _known(groups: np.ndarray) -> np.ndarray:
    """Those groups that have scores."""
    return groups[~np.isnan(groups[:, 0])]


def _mixture(groups: np.ndarray, values: np.ndarray, unseen: float) -> np.ndarray:
    """Share of the mixture at most at some values."""
    known = np.mean([_share(group, values) for group in groups], axis=0)
    unknown = np.mean([_share(group, values / unseen) for group in groups], axis=0)
    return np.asarray((len(groups) * known + unknown) / (len(groups) + 1))


def _share(quantiles: np.ndarray, values: np.ndarray) -> np.ndarray:
    # Of equal quantiles, as where most residuals are alike, the last share counts; interp would take any.
    distinct = np.append(np.diff(quantiles) > 0, True)
    return np.interp(values, quantiles[distinct], GRID[distinct], left=0.0, right=1.0)


def _quantiles(scores: np.ndarray) -> np.ndarray:
    known = scores[np.isfinite(scores)]
    return np.quantile(known, GRID) if len(known) else np.zeros(len(GRID))
