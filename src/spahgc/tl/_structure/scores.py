"""All scores of structure as tables: those of genes, and those of a slide."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from spahgc._keys import SLIDE_SCORES, STRUCTURE_SCORES
from spahgc.tl._structure.gene_correlation import gene_correlation_agreement
from spahgc.tl._structure.moran import moran_difference
from spahgc.tl._structure.pathways import pathway_agreement
from spahgc.tl._structure.ssim import structural_similarity
from spahgc.tl._structure.variance import variance_ratio

GENE_CORRELATION, PATHWAY_CORRELATION = SLIDE_SCORES

BLOCK_GENES = 500
"""Genes that are compared at a time: 20 MB an array on a slide of 5,000 spots."""


def structure_scores(
    predicted: np.ndarray, measured: np.ndarray, genes: Sequence[str], near: csr_matrix | None
) -> pd.DataFrame:
    """Structure of every gene's map beside the measured one.

    Parameters
    ----------
    predicted, measured
        Spots x genes, in the same units.
    genes
        Names of the columns.
    near
        Neighbours from :func:`spahgc.tl._structure.neighbours.neighbour_graph`; ``None`` where positions are not known.

    Returns
    -------
    One row a gene: ``variance_ratio``, ``moran_difference``, ``ssim``, the latter two NaN without neighbours.
    """
    out = np.full((len(genes), len(STRUCTURE_SCORES)), np.nan)
    for start in range(0, len(genes), BLOCK_GENES):
        block = slice(start, start + BLOCK_GENES)
        p, m = (np.asarray(values[:, block], dtype=np.float64) for values in (predicted, measured))
        out[block, 0] = variance_ratio(p, m)
        if near is not None:
            out[block, 1] = moran_difference(p, m, near)
            out[block, 2] = structural_similarity(p, m, near)
    return pd.DataFrame(out, index=pd.Index(genes, name="gene"), columns=list(STRUCTURE_SCORES))


def slide_structure(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float | int]:
    """Agreement of the gene-gene correlations on a slide, and the number of genes behind it."""
    p, m = (np.asarray(values, dtype=np.float64) for values in (predicted, measured))
    agreement, n_genes = gene_correlation_agreement(p, m)
    return {GENE_CORRELATION: agreement, "n_genes_correlated": n_genes}


def pathway_structure(
    predicted: np.ndarray, measured: np.ndarray, genes: Sequence[str], net: pd.DataFrame | None
) -> dict[str, float | pd.DataFrame]:
    """Mean agreement of the pathways' scores on a slide, and the table of them; nothing without gene sets."""
    if net is None:
        return {}
    table = pathway_agreement(predicted, measured, genes, net)
    return {PATHWAY_CORRELATION: float(table["pearson"].mean()), "pathways": table}
