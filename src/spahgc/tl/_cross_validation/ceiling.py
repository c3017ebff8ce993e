"""How well any prediction could correlate with a measurement that is itself noisy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.sparse import csc_matrix, csr_matrix

from spahgc._keys import COUNTS_PER_SPOT
from spahgc._logging import warn
from spahgc._slides.measured import MeasuredSlide
from spahgc._validate import quoted
from spahgc.tl._evaluate import MIN_SPOTS, correlation

N_SPLITS = 10
"""Splits of the counts over which the correlation of the halves is averaged."""
BLOCK_GENES = 1000
"""Genes that are dense at a time."""


def is_counts(matrix: csr_matrix) -> bool:
    """Whether the values are whole numbers of at least zero, without which nothing can be split."""
    return bool(np.all(matrix.data >= 0) and np.all(matrix.data == np.rint(matrix.data)))


def slide_ceilings(slides: Mapping[str, MeasuredSlide], scores: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Noise ceilings, genes x slides; NaN where a gene was not scored, and for slides that hold no counts."""
    ceilings = pd.DataFrame(np.nan, index=pd.Index(sorted(scores["gene"].unique()), name="gene"), columns=list(slides))
    without = [name for name, slide in slides.items() if not is_counts(slide.counts())]
    for name in (name for name in slides if name not in without):
        genes = sorted(scores.loc[scores["slide"] == name, "gene"].unique())
        rng = np.random.default_rng([seed, *name.encode()])
        ceilings.loc[genes, name] = noise_ceiling(
            slides[name].counts(), slides[name].var_names.get_indexer(genes), rng=rng, totals=slides[name].totals
        )
    if without:
        warn(
            f"{quoted(without)} do not hold whole numbers, so that their counts cannot be split: no noise ceiling is "
            "known. Pass layer= with the counts.",
            stacklevel=3,
        )
    return ceilings.rename_axis(columns="slide")


def noise_ceiling(
    counts: csr_matrix,
    genes: np.ndarray,
    *,
    rng: np.random.Generator,
    n_splits: int = N_SPLITS,
    totals: np.ndarray | None = None,
) -> np.ndarray:
    """Noise ceiling of the PCC of each gene: the PCC with the measurement that its noise-free value would reach.

    The counts of each (spot, gene) are split in two by ``Binomial(n, 1/2)``; of Poisson counts these halves are two
    independent measurements at half the depth. Each is normalised as the package does, by its own total:
    ``log1p(10,000 * half / total of the half)``. With ``r`` the Pearson correlation of the halves over spots, averaged
    over the splits, the Spearman-Brown formula gives the reliability at full depth, and its root the ceiling::

        reliability = 2 r / (1 + r)
        ceiling = sqrt(max(reliability, 0))

    What varies beyond Poisson noise counts as signal, so that the ceiling is, if anything, too high.

    Parameters
    ----------
    counts
        Spots x all genes of the slide, whole numbers; the other genes are needed for the totals.
    genes
        Columns of which the ceiling is wanted.
    rng
        Random numbers.
    n_splits
        Number of splits.
    totals
        Counts of every spot over all genes that were measured, whole numbers; ``None`` takes the sums of ``counts``.

    Returns
    -------
    One number a gene, 0 to 1; NaN where a half is constant in every split, as of a gene that was never seen.
    """
    chosen = counts[:, genes]
    rest = (np.asarray(counts.sum(axis=1)).ravel() if totals is None else np.rint(totals)) - _totals(chosen)
    total, n_defined = np.zeros(len(genes)), np.zeros(len(genes))
    for _ in range(n_splits):
        r = _split_correlation(chosen, rest.astype(np.int64), rng)
        total += np.nan_to_num(r)
        n_defined += ~np.isnan(r)
    mean = np.divide(total, n_defined, out=np.full(len(genes), np.nan), where=n_defined > 0)
    # r = -1 makes the formula divide by zero; nothing below 0 survives it anyway.
    positive = np.maximum(mean, 0.0)
    return np.sqrt(2 * positive / (1 + positive))


def _split_correlation(chosen: csr_matrix, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Correlation of two random halves over spots, one number a gene."""
    first, second = chosen.copy(), chosen.copy()
    first.data = rng.binomial(chosen.data.astype(np.int64), 0.5).astype(np.float64)
    second.data = chosen.data - first.data
    # A sum of binomials of the same chance is a binomial, so the other genes can be split all at once.
    rest_first = rng.binomial(rest, 0.5)
    totals = [_totals(first) + rest_first, _totals(second) + rest - rest_first]
    measured = (totals[0] > 0) & (totals[1] > 0)
    r = np.full(chosen.shape[1], np.nan)
    if measured.sum() < MIN_SPOTS:
        return r
    scales = [COUNTS_PER_SPOT / total[measured, None] for total in totals]
    halves = [csc_matrix(half[measured]) for half in (first, second)]
    for start in range(0, chosen.shape[1], BLOCK_GENES):
        block = slice(start, start + BLOCK_GENES)
        a, b = (np.log1p(half[:, block].toarray() * scale) for half, scale in zip(halves, scales, strict=True))
        r[block] = correlation(a, b)
    return r


def _totals(matrix: csr_matrix) -> np.ndarray:
    return np.asarray(matrix.sum(axis=1)).ravel()
