"""Do the pathways of a prediction light up where the measured ones do?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from spahgc._validate import quoted
from spahgc.tl._gene_sets import SOURCE, TARGET, WEIGHT

MIN_PATHWAY_GENES = 5
"""Genes that a pathway must have in the panel, varying on both sides: the default of ``spahgc.tl.enrich``."""


def pathway_agreement(
    predicted: np.ndarray, measured: np.ndarray, genes: Sequence[str], net: pd.DataFrame
) -> pd.DataFrame:
    """Pearson correlation over spots of each pathway's score as predicted and as measured.

    The score of a pathway at a spot is the mean, weighted by the gene set's weights if it has some, of the z-scores of
    its genes: the expression less the gene's mean over spots, divided by its standard deviation, on either side by its
    own. Genes that are constant on either side are left out.

    Parameters
    ----------
    predicted, measured
        Spots x genes.
    genes
        Names of the columns.
    net
        From :func:`spahgc.tl._gene_sets.gene_sets`.

    Returns
    -------
    One row a pathway, in the order of the gene sets: ``pearson`` (NaN with fewer than five genes, or where the scores
    are the same at all spots), ``n_genes`` (that counted), ``n_genes_in_set``.
    """
    pathways = pd.unique(net[SOURCE])
    varying = (np.ptp(predicted, axis=0) > 0) & (np.ptp(measured, axis=0) > 0)
    column = pd.Index(genes).get_indexer(pd.Index(net[TARGET]))
    row = pd.Index(pathways).get_indexer(pd.Index(net[SOURCE]))
    known = (column >= 0) & varying[column]
    entries = net[WEIGHT].to_numpy()[known], (column[known], row[known])
    weights = csr_matrix(entries, shape=(len(genes), len(pathways)))
    n_genes = np.bincount(row[known], minlength=len(pathways))
    p, m = (_z_scores(values) @ weights for values in (predicted, measured))
    p, m = p - p.mean(axis=0), m - m.mean(axis=0)
    scale = np.sqrt(np.square(p).sum(axis=0) * np.square(m).sum(axis=0))
    defined = (n_genes >= MIN_PATHWAY_GENES) & (scale > 0)
    return pd.DataFrame(
        {
            "pearson": np.where(defined, (p * m).sum(axis=0) / np.where(defined, scale, 1.0), np.nan),
            "n_genes": n_genes,
            "n_genes_in_set": np.bincount(row, minlength=len(pathways)),
        },
        index=pd.Index([str(name) for name in pathways], name="pathway"),
    )


def check_pathways(net: pd.DataFrame, genes: Sequence[str], label: str) -> None:
    """Refuse gene sets of which none has enough genes among those that are compared, before anything is computed."""
    sizes = net[net[TARGET].isin(genes)].groupby(SOURCE).size()
    if not (sizes >= MIN_PATHWAY_GENES).any():
        raise ValueError(
            f"no pathway of gene_sets= has {MIN_PATHWAY_GENES} genes among the {len(genes)} of {label}; these look like "
            f"{quoted(list(genes)[:3])}, those of the pathways like {quoted(net[TARGET][:3])}. Check whether one side uses "
            "Ensembl identifiers, or another species."
        )


def _z_scores(values: np.ndarray) -> np.ndarray:
    spread = values.std(axis=0)
    return np.asarray((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
