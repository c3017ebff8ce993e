"""From scores of methods, slides and genes to means, intervals and paired tests. Tables and arrays only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import norm, t, wilcoxon

from spahgc._keys import POOLED_PEARSON, SLIDE_SCORES, STRUCTURE_SCORES

VARIANCE_RATIO = STRUCTURE_SCORES[0]
CONFIDENCE = 0.95
BLOCK_DRAWS = 5_000_000
"""Random genes drawn at a time: 40 MB, whatever the number of genes and of resamples."""
POOLED = "all"
"""What stands in column ``slide`` of a comparison over all slides."""


def score_matrix(scores: pd.DataFrame, method: str, value: str = "pearson") -> pd.DataFrame:
    """The scores of a method, slides x genes; NaN where a gene was not scored or has no correlation."""
    return scores[scores["method"] == method].pivot(index="slide", columns="gene", values=value).sort_index()


def mean_score(matrix: np.ndarray) -> float:
    """Mean over slides of the mean over genes, so that each slide counts the same; undefined entries are left out."""
    per_slide = slide_means(matrix)
    per_slide = per_slide[~np.isnan(per_slide)]
    return float(per_slide.mean()) if len(per_slide) else float("nan")


def slide_means(matrix: np.ndarray) -> np.ndarray:
    """Mean of every row over its defined entries; NaN where there is none."""
    defined = ~np.isnan(matrix)
    n = defined.sum(axis=1)
    return np.where(n > 0, np.where(defined, matrix, 0.0).sum(axis=1) / np.maximum(n, 1), np.nan)


def resampled_means(matrix: np.ndarray, *, n_bootstrap: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two-way bootstrap: genes and slides are drawn with replacement, independently of each other.

    Parameters
    ----------
    matrix
        Slides x genes, NaN where undefined.
    n_bootstrap
        Number of resamples.
    rng
        Random numbers.

    Returns
    -------
    ``(n_bootstrap,)``: the mean over slides of the mean over genes, both drawn anew in each resample; and
    ``n_bootstrap`` x slides: the mean of each slide when only genes are drawn. NaN where a resample met no defined entry.
    """
    matrix = matrix[:, ~np.isnan(matrix).all(axis=0)]
    n_slides, n_genes = matrix.shape
    if n_genes == 0:
        return np.full(n_bootstrap, np.nan), np.full((n_bootstrap, n_slides), np.nan)
    defined = (~np.isnan(matrix)).astype(np.float64)
    values = np.where(defined > 0, matrix, 0.0)
    by_slide = np.concatenate(
        [_ratio(drawn @ values.T, drawn @ defined.T) for drawn in _draws(rng, n_bootstrap, n_genes)]
    )
    # A slide without any defined entry is no slide of this comparison.
    there = np.flatnonzero(defined.any(axis=1))
    chosen = np.concatenate(list(_draws(rng, n_bootstrap, len(there))))
    known = ~np.isnan(by_slide[:, there])
    pooled = _ratio((chosen * np.where(known, by_slide[:, there], 0.0)).sum(axis=1), (chosen * known).sum(axis=1))
    return pooled, by_slide


def _draws(rng: np.random.Generator, n_draws: int, n: int) -> Iterator[np.ndarray]:
    """How often each of ``n`` things is drawn in ``n`` draws with replacement, in blocks of rows."""
    block = max(1, BLOCK_DRAWS // n)
    for start in range(0, n_draws, block):
        rows = min(block, n_draws - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def expanded_interval(samples: np.ndarray, n_units: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Bootstrap percentile interval, widened for few units.

    With four slides the plain percentiles of a 95 % interval hold the truth in little more than 80 % of cases. The
    expanded percentiles ``Phi(-/+ sqrt(n / (n - 1)) * t(n - 1))`` repair most of that (Hesterberg 2015, The American
    Statistician 69:371, section 4). They cannot reach further than the resamples do.

    Parameters
    ----------
    samples
        Means of the resamples.
    n_units
        Independent units that were resampled, at least 2; else there is no interval.
    confidence
        Intended coverage.
    """
    samples = samples[~np.isnan(samples)]
    if n_units < 2 or len(samples) == 0:
        return float("nan"), float("nan")
    tail = float(norm.cdf(-np.sqrt(n_units / (n_units - 1)) * t.ppf((1 + confidence) / 2, n_units - 1)))
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test of paired differences; NaN without a pair, 1 where all are zero."""
    differences = differences[~np.isnan(differences)]
    if len(differences) == 0:
        return float("nan")
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences).pvalue)


def summarize(scores: pd.DataFrame, seconds: dict[str, float], *, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """One row a method: mean scores, the interval of the mean PCC, and what stands behind it.

    Parameters
    ----------
    scores
        Columns ``method``, ``slide``, ``gene``, ``pearson``, ``spearman``, ``rmse``, ``ceiling``; and scores of structure
        and ``pearson_pooled`` (with ``group``), if there are some.
    seconds
        Time a method took; its keys are the methods, in the order of the rows.
    n_bootstrap
        Resamples of an interval.
    seed
        Seed of the resamples, the same for all methods.
    """
    rows = [
        _summary_row(scores, method, n_bootstrap, np.random.default_rng(seed))
        | {"seconds": seconds[method]}
        | _structure_means(scores, method)
        for method in seconds
    ]
    return pd.DataFrame(rows, index=pd.Index(list(seconds), name="method"))


def _summary_row(scores: pd.DataFrame, method: str, n_bootstrap: int, rng: np.random.Generator) -> dict[str, float]:
    own = scores[scores["method"] == method]
    matrix = score_matrix(scores, method).to_numpy()
    pooled, _ = resampled_means(matrix, n_bootstrap=n_bootstrap, rng=rng)
    low, high = expanded_interval(pooled, _n_defined_rows(matrix))
    return {
        "pearson": mean_score(matrix),
        "low": low,
        "high": high,
        "spearman": mean_score(score_matrix(scores, method, "spearman").to_numpy()),
        "rmse": mean_score(score_matrix(scores, method, "rmse").to_numpy()),
        "ceiling_share": ceiling_share(own["pearson"].to_numpy(), own["ceiling"].to_numpy()),
        "n_slides": own["slide"].nunique(),
        "n_genes": own["gene"].nunique(),
        "n_undefined": int(own["pearson"].isna().sum()),
    }


def _structure_means(scores: pd.DataFrame, method: str) -> dict[str, float]:
    """Means of the scores beside correlation and error, as far as the table has them."""
    means = {}
    for score in (*STRUCTURE_SCORES, *SLIDE_SCORES):
        if score in scores:
            matrix = score_matrix(scores, method, score).to_numpy(dtype=np.float64)
            # One gene that hardly varies, as measured, would rule a mean of ratios.
            means[score] = mean_of_medians(matrix) if score == VARIANCE_RATIO else mean_score(matrix)
    if POOLED_PEARSON in scores:
        own = scores[scores["method"] == method].drop_duplicates(["group", "gene"])
        means[POOLED_PEARSON] = mean_score(own.pivot(index="group", columns="gene", values=POOLED_PEARSON).to_numpy())
    return means


def mean_of_medians(matrix: np.ndarray) -> float:
    """Mean over slides of the median over genes; undefined entries are left out."""
    medians = [float(np.median(row[~np.isnan(row)])) for row in matrix if not np.isnan(row).all()]
    return float(np.mean(medians)) if medians else float("nan")


def ceiling_share(pearson: np.ndarray, ceiling: np.ndarray) -> float:
    """Share of the noise ceiling that is reached: mean PCC over mean ceiling, where both are defined.

    A mean of ratios would be ruled by the genes whose ceiling is next to zero.
    """
    both = ~(np.isnan(pearson) | np.isnan(ceiling))
    total = ceiling[both].sum()
    return float(pearson[both].sum() / total) if total > 0 else float("nan")


def compare(scores: pd.DataFrame, methods: Sequence[str], *, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Paired comparison of every two methods over the (slide, gene) pairs where both have a PCC.

    Returns
    -------
    Rows for each pair of methods: over all slides (``slide`` is ``"all"``), then each slide. ``difference`` is the mean
    PCC of ``method`` less that of ``other``; ``low`` and ``high`` its bootstrap interval (genes and slides, or genes
    alone within a slide), ``p`` that of the signed-rank test, ``n`` the number of pairs.
    """
    matrices = {method: score_matrix(scores, method) for method in methods}
    rows = [
        {"method": method, "other": other} | row
        for method, other in combinations(methods, 2)
        for row in _comparison(matrices[method] - matrices[other], n_bootstrap, np.random.default_rng(seed))
    ]
    return pd.DataFrame(rows, columns=["method", "other", "slide", "difference", "low", "high", "p", "n"])


def _comparison(difference: pd.DataFrame, n_bootstrap: int, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    matrix = difference.to_numpy(dtype=np.float64)
    pooled, by_slide = resampled_means(matrix, n_bootstrap=n_bootstrap, rng=rng)
    yield _comparison_row(POOLED, matrix, pooled, _n_defined_rows(matrix))
    for place, slide in enumerate(difference.index):
        row = matrix[place : place + 1]
        yield _comparison_row(slide, row, by_slide[:, place], int((~np.isnan(row)).sum()))


def _comparison_row(slide: str, matrix: np.ndarray, samples: np.ndarray, n_units: int) -> dict[str, object]:
    low, high = expanded_interval(samples, n_units)
    return {
        "slide": slide,
        "difference": mean_score(matrix),
        "low": low,
        "high": high,
        "p": signed_rank_p(matrix.ravel()),
        "n": int((~np.isnan(matrix)).sum()),
    }


def _n_defined_rows(matrix: np.ndarray) -> int:
    return int((~np.isnan(matrix)).any(axis=1).sum())
