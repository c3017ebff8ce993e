"""What a slide's predictions say of themselves, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from anndata import AnnData

from spahgc._slides.tables import table_of
from spahgc._validate import check_anndata
from spahgc.tl._trust_record import prediction_keys, trust_record

if TYPE_CHECKING:
    from spatialdata import SpatialData


def summary(adata: AnnData | SpatialData, *, key: str | None = None, table_key: str | None = None) -> pd.DataFrame:
    """Genes and spots of the predictions of a slide, how many can be trusted, and for whom.

    The same is said in three lines after :func:`spahgc.tl.predict`.

    Parameters
    ----------
    adata
        A slide with a prediction, AnnData or SpatialData.
    key
        Key of the prediction; ``None`` takes all of them.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    One row a prediction, by its key: ``method``; ``n_genes`` and ``n_spots`` that were predicted; ``n_trusted``, genes of
    :func:`spahgc.tl.trusted_genes` at its defaults; ``for_whom`` that holds, in words; ``n_unknown``, spots with a support below
    0.05, which look like nothing on the references. Missing (``<NA>``) is what nobody knows: a baseline says nothing of trust.

    Raises
    ------
    KeyError
        If there is no prediction, or none under this key.

    See Also
    --------
    spahgc.tl.trusted_genes : names of the genes.
    spahgc.pl.support : where the unknown spots lie.

    Examples
    --------
    >>> import spahgc as sp
    >>> slide, *refs = sp.datasets.simulated(n_slides=3, n_spots=60, n_genes=30, n_domains=3)
    >>> for one in [slide, *refs]:
    ...     one.obsm["X_domains"] = one.obsm["truth_domains"]
    >>> sp.tl.predict(slide, refs, method="ridge", genes="all", embedding="X_domains", key_added="ridge")
    >>> sp.get.summary(slide)[["n_genes", "n_spots", "n_trusted"]].loc["ridge"].tolist()
    [30, 60, <NA>]
    """
    table = table_of(adata, table_key, "the slide")
    check_anndata(table, "the slide")
    records = [trust_record(table, name) for name in prediction_keys(table, key)]
    columns = {
        "method": [record.method or None for record in records],
        "n_genes": [record.n_genes for record in records],
        "n_spots": [record.n_spots for record in records],
        "n_trusted": [record.n_trusted for record in records],
        "for_whom": [record.for_whom for record in records],
        "n_unknown": [record.n_unknown for record in records],
    }
    index = pd.Index([record.key for record in records], name="prediction")
    kinds = {name: "Int64" if name.startswith("n_") else "string" for name in columns}
    return pd.DataFrame(columns, index=index, dtype=object).astype(kinds)
