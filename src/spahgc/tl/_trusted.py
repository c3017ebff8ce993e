"""The genes whose prediction can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from spahgc._keys import Var
from spahgc._slides.tables import table_of
from spahgc._validate import check_anndata, quoted

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
    table_key: str | None = None,
) -> list[str]:
    """Genes of a prediction that were predicted well on references held out in turn.

    Nothing measured on the slide itself is looked at, so this works where there is nothing.

    Parameters
    ----------
    adata
        A slide with a prediction of :func:`spahgc.tl.predict`, AnnData or SpatialData.
    key
        Key of the prediction.
    min_pcc
        Least mean PCC over the references, between -1 and 1.
    bound
        Ask it of the lower end of the 95 % interval of the mean: fewer genes, of which more keep what they promise.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    Names of genes, those of highest PCC first. A gene that is constant on all references has no PCC and is left out.

    Raises
    ------
    KeyError
        If the prediction says nothing of trust: a baseline or ``preset="paper"`` made it, or there is none.
    ValueError
        If ``min_pcc`` is no correlation.

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
    column = Var.cv_pcc_low(key) if bound else Var.cv_pcc(key)
    if column not in adata.var:
        raise KeyError(_why_none(adata, key, column))
    pcc = adata.var[column].to_numpy(dtype=np.float64)
    order = np.argsort(-pcc, kind="stable")  # NaN comes last
    return [str(gene) for gene in adata.var_names[order[pcc[order] >= min_pcc]]]


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
