"""Do the genes of a prediction go together as the measured ones do?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

MIN_GENES = 3
"""Fewer genes have fewer than three pairs, which define no correlation worth the name."""
MAX_GENES = 2000
"""Genes whose pairs are looked at: four million correlations on either side. Of more, those of highest measured variance."""
BLOCK_GENES = 500
"""Rows of the two matrices that are held at a time: 16 MB."""


def gene_correlation_agreement(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, int]:
    """Agreement of the gene-gene correlations: Pearson correlation of the upper triangles of the two matrices.

    The matrices hold the Pearson correlation over spots of every two genes, as predicted and as measured. Genes that
    are constant on either side have none and are left out; of more than 2,000 genes, those of highest measured variance
    are taken. 1: the same genes rise and fall together; a prediction from few components makes all of them do so.

    Parameters
    ----------
    predicted, measured
        Spots x genes.

    Returns
    -------
    The correlation, and the number of genes behind it; NaN with fewer than three genes, or where all pairs of a side
    correlate alike.
    """
    varying = np.flatnonzero((np.ptp(predicted, axis=0) > 0) & (np.ptp(measured, axis=0) > 0))
    if len(varying) > MAX_GENES:
        ranked = np.argsort(-measured[:, varying].var(axis=0), kind="stable")
        varying = np.sort(varying[ranked[:MAX_GENES]])
    if len(varying) < MIN_GENES:
        return float("nan"), len(varying)
    p, m = _unit_columns(predicted[:, varying]), _unit_columns(measured[:, varying])
    means, products = np.zeros(2), np.zeros((2, 2))
    n_pairs = len(varying) * (len(varying) - 1) // 2
    # Two passes, so that nothing is lost where all correlations are nearly the same.
    for pairs in _upper_triangles(p, m):
        means += pairs.sum(axis=1) / n_pairs
    for pairs in _upper_triangles(p, m):
        centred = pairs - means[:, None]
        products += centred @ centred.T
    scale = np.sqrt(products[0, 0] * products[1, 1])
    return float(products[0, 1] / scale) if scale > 0 else float("nan"), len(varying)


def _upper_triangles(p: np.ndarray, m: np.ndarray) -> Iterator[np.ndarray]:
    """Entries of both matrices above the diagonal, 2 x pairs, a block of rows at a time."""
    for start in range(0, p.shape[1], BLOCK_GENES):
        rows = slice(start, start + BLOCK_GENES)
        above = np.triu(np.ones((len(p[0, rows]), p.shape[1]), dtype=bool), start + 1)
        yield np.stack([(side[:, rows].T @ side)[above] for side in (p, m)])


def _unit_columns(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=0)
    return np.asarray(centred / np.linalg.norm(centred, axis=0))
