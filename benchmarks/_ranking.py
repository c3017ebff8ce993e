"""Which method is first on how many slides, and its rank over all of them, with the difference that is none by chance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import friedmanchisquare, rankdata, studentized_range

MARGIN = 0.005
"""Mean PCC below the best one that counts as good as it."""
CONFIDENCE = 0.95


class Ranking(NamedTuple):
    """Methods on many slides.

    Attributes
    ----------
    table
        One row a method, best first: ``first`` and ``within`` (slides on which it is the best, and is at most `MARGIN`
        below it), ``rank`` (mean over slides, 1 is best).
    p
        Of Friedman's test that all methods have the same rank.
    critical_difference
        Mean ranks that differ by less than this are not told apart by Nemenyi's test (Demšar, JMLR 2006, section 3.2.2).
    n_slides
        Slides behind it.
    left_out
        Methods without a score on any slide.
    """

    table: pd.DataFrame
    p: float
    critical_difference: float
    n_slides: int
    left_out: list[str]


def rank_methods(per_slide: pd.DataFrame) -> Ranking:
    """Rank methods by their score on every slide.

    Slides of one patient are no independent trials, so that p and critical difference are smaller than they ought to be.

    Parameters
    ----------
    per_slide
        Methods x slides. A method without a score on one slide is last there; without any it is left out.
    """
    without = per_slide.isna().all(axis=1)
    scores = per_slide[~without].fillna(-np.inf)
    n_methods, n_slides = scores.shape
    if n_methods < 3 or n_slides < 2:
        raise ValueError(f"{n_methods} methods on {n_slides} slides: Friedman's test asks for at least 3 on 2.")
    ranks = rankdata(-scores.to_numpy(), axis=0)
    best = scores.max(axis=0)
    table = pd.DataFrame(
        {
            "first": (scores == best).sum(axis=1),
            "within": (scores >= best - MARGIN).sum(axis=1),
            "rank": ranks.mean(axis=1),
        }
    ).sort_values("rank", kind="stable")
    quantile = studentized_range.ppf(CONFIDENCE, n_methods, np.inf) / np.sqrt(2)
    return Ranking(
        table,
        float(friedmanchisquare(*scores.to_numpy()).pvalue),
        float(quantile * np.sqrt(n_methods * (n_methods + 1) / (6 * n_slides))),
        n_slides,
        list(per_slide.index[without]),
    )
