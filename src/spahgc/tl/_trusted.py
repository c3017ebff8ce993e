"""The genes whose prediction can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from spahgc._keys import UNS, Uns, Var
from spahgc._linear.expected import SHARES
from spahgc._linear.statistics import MAX_PCC
from spahgc._slides.tables import table_of
from spahgc._validate import check_anndata, quoted
from spahgc.tl._prediction import prediction_record

if TYPE_CHECKING:
    from spatialdata import SpatialData

MIN_PCC = 0.2
"""PCC from which on a gene counts as predicted where nothing else is said."""


def trusted_genes(
    adata: AnnData | SpatialData,
    *,
    key: str = "spahgc",
    min_pcc: float = MIN_PCC,
    bound: bool = False,
    fdr: float | None = None,
    table_key: str | None = None,
) -> list[str]:
    """Genes of a prediction that references held out in turn let expect to be predicted well on this slide.

    Nothing measured on the slide itself is looked at, so this works where there is nothing.

    Parameters
    ----------
    adata
        A slide with a prediction of :func:`spahgc.tl.predict`, AnnData or SpatialData.
    key
        Key of the prediction.
    min_pcc
        Least PCC on this slide, between -1 and 1. Without `bound` and `fdr` it is asked of the PCC that is expected.
    bound
        Ask it of the lower end of the 95 % interval: fewer genes, of which more keep what they promise.
    fdr
        Share of the returned genes, between 0 and 1, that may be expected to have less than `min_pcc` on a slide of this
        kind. Of every gene the probability of less is known from what references held out reached and what had been
        expected of them; returned are as many genes as keep the mean of these probabilities at most `fdr`.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    Names of genes, those of highest PCC first; none where nothing can be promised. A gene that is constant on all references
    has no PCC and is left out.

    Raises
    ------
    KeyError
        If the prediction says nothing of trust: a baseline or ``preset="paper"`` made it, or there is none.
    ValueError
        If ``min_pcc`` is no correlation, ``fdr`` no share, both ``bound`` and ``fdr`` are asked for, or if the model is of an
        earlier version, which tells no probabilities.

    Notes
    -----
    For whom this holds stands in ``uns["spahgc"]["predictions"]["spahgc"]["trust"]["for"]``. The rate is one in the mean over
    slides (Bayesian false discovery rate; Mueller, Parmigiani, Robert and Rousseau 2004): genes of one slide rise and fall
    together, and on a single slide the share may be larger. Where references are of one patient and the slide is of another,
    few genes or none are returned.

    Examples
    --------
    >>> import spahgc as sp
    >>> slide, *refs = sp.datasets.simulated(n_slides=3, n_spots=60, n_genes=30, n_domains=3)
    >>> for one in [slide, *refs]:
    ...     one.obsm["X_domains"] = one.obsm["truth_domains"]
    >>> linear = sp.Parameters(n_axes=3, line=True, epochs=0)
    >>> sp.tl.predict(slide, refs, genes="all", embedding="X_domains", preset=linear)
    >>> trusted = sp.tl.trusted_genes(slide, min_pcc=0.3)
    >>> set(slide.var["truth_kind"][trusted])
    {'morphology'}
    """
    adata = table_of(adata, table_key, "the slide")
    check_anndata(adata, "the slide")
    if not -1 <= min_pcc <= 1:
        raise ValueError(f"min_pcc={min_pcc} is no correlation. Pass a number between -1 and 1.")
    if fdr is not None and not 0 < fdr < 1:
        raise ValueError(f"fdr={fdr} is no share of false discoveries. Pass a number between 0 and 1, such as 0.1.")
    if fdr is not None and bound:
        raise ValueError("bound=True and fdr= are two ways to be careful. Pass one of them.")
    column = Var.cv_pcc_low(key) if bound else Var.cv_pcc(key)
    if column not in adata.var:
        raise KeyError(_why_none(adata, key, column))
    pcc = adata.var[column].to_numpy(dtype=np.float64)
    order = np.argsort(-pcc, kind="stable")  # NaN comes last
    if fdr is not None:
        misses = _misses(adata, key, pcc[order][np.isfinite(pcc[order])], min_pcc)
        rate = np.cumsum(misses) / np.arange(1, len(misses) + 1)
        return [str(gene) for gene in adata.var_names[order[: int((rate <= fdr).sum())]]]
    return [str(gene) for gene in adata.var_names[order[pcc[order] >= min_pcc]]]


def _misses(adata: AnnData, key: str, pcc: np.ndarray, min_pcc: float) -> np.ndarray:
    """Probability of genes of which so much is expected, that they have less than ``min_pcc`` on a slide of this kind."""
    told = prediction_record(adata, key).get(Uns.trust, {})
    if "z_residuals" not in told:
        raise ValueError(
            f'fdr= needs probabilities, and uns["{UNS}"] holds none for layers["{key}"]: the model is of an earlier version. Fit it '
            "again and predict, or leave fdr= out."
        )
    expected, least = (np.arctanh(np.clip(x, -MAX_PCC, MAX_PCC)) for x in (pcc, min_pcc))
    return np.interp(least - expected, np.asarray(told["z_residuals"], dtype=np.float64), SHARES, left=0.0, right=1.0)


def _why_none(adata: AnnData, key: str, column: str) -> str:
    if key not in adata.layers:
        return (
            f'var["{column}"] not found, nor is there a prediction layers["{key}"]: layers are '
            f"{quoted(adata.layers)}. Run spahgc.tl.predict(adata, refs) first."
        )
    return (
        f'var["{column}"] not found: layers["{key}"] comes from a baseline, from preset="paper" or from an earlier '
        "version, none of which tells how far its genes can be trusted. Run spahgc.tl.predict(adata, refs) with "
        'method="spahgc" and preset="default".'
    )
