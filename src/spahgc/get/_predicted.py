"""A prediction as a slide of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from spahgc._keys import UNITS, UNS, Layers, Uns, Var
from spahgc._slides.tables import table_of
from spahgc._validate import check_anndata
from spahgc.tl._prediction import prediction_and_panel, prediction_record, reference_spots
from spahgc.tl._trust_record import for_whom, unknown_spots
from spahgc.tl._trusted import trusted_genes

if TYPE_CHECKING:
    from spatialdata import SpatialData


def predicted(
    adata: AnnData | SpatialData, *, key: str = "spahgc", trusted: bool = False, table_key: str | None = None
) -> AnnData:
    """A prediction as an AnnData of its own, without NaN: for scanpy, or to hand it on.

    Parameters
    ----------
    adata
        A slide with a prediction, AnnData or SpatialData.
    key
        Key of the prediction.
    trusted
        Keep what can be trusted alone: genes of :func:`spahgc.tl.trusted_genes` at its defaults, and spots that look like
        something on the references (a support of at least 0.05).
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    A new AnnData that shares nothing with the slide. ``X`` is the prediction, spots x genes, float32, ``log1p`` counts per
    10,000; measured counts are not in it. Kept are ``obs``, ``obsm`` and ``obsp`` of the spots that were predicted,
    ``uns["spatial"]`` with its pictures, the columns of ``var``, and where there are some, the spread as ``layers["std"]`` and ends of
    intervals as ``layers["low"]`` and ``layers["high"]``.
    ``uns["spahgc"]`` keeps the record of this prediction alone, and says ``predicted``: ``key``, ``units``, ``trusted`` and, where
    something is known of trust, ``for_whom``.

    Left out are genes outside the panel, and spots without a prediction: off the tissue, or measured ones that were a reference.

    Raises
    ------
    KeyError
        If there is no prediction under this key; or with ``trusted`` if it says nothing of trust.
    ValueError
        If nothing is left, or values are missing inside the panel.

    See Also
    --------
    spahgc.get.summary : how many genes and spots these are.

    Examples
    --------
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide.layers["oracle"] = slide.layers["truth"]
    >>> slide.var["oracle_panel"] = slide.var["truth_kind"] == "morphology"
    >>> sp.get.predicted(slide, key="oracle").shape
    (40, 10)
    """
    table = table_of(adata, table_key, "the slide")
    check_anndata(table, "the slide")
    values, panel = prediction_and_panel(table, key)
    genes = np.flatnonzero(panel)
    if trusted:
        wanted = set(trusted_genes(table, key=key))
        genes = genes[[name in wanted for name in table.var_names[genes]]]
    if not len(genes):
        what = "no gene of it can be trusted" if trusted else "its panel is empty"
        raise ValueError(f'nothing is left of the prediction "{key}": {what}. See spahgc.get.summary(adata).')
    inside = np.isfinite(values[:, genes])
    spots = inside.any(axis=1) & ~reference_spots(table, key)
    broken = spots & ~inside.all(axis=1)
    if broken.any():
        raise ValueError(
            f'layers["{key}"] has NaN in {int(broken.sum())} spots that it predicts in other genes. Run spahgc.tl.predict again, '
            f'or correct var["{Var.panel(key)}"].'
        )
    if trusted:
        spots &= ~unknown_spots(table, key)
    if not spots.any():
        what = "all its spots look like nothing on the references" if trusted else "it predicts no spot"
        raise ValueError(f'nothing is left of the prediction "{key}": {what}. See spahgc.get.summary(adata).')
    return _slide_of(table, values, key, np.flatnonzero(spots), genes, trusted)


def _slide_of(
    table: AnnData, values: np.ndarray, key: str, spots: np.ndarray, genes: np.ndarray, trusted: bool
) -> AnnData:
    """The chosen spots and genes of a prediction."""
    from copy import deepcopy

    part = table[spots]
    found = AnnData(
        np.array(values[np.ix_(spots, genes)], dtype=np.float32),
        obs=part.obs.copy(),
        var=table.var.iloc[genes].copy(),
        obsm={name: part.obsm[name].copy() for name in part.obsm},
        obsp={name: part.obsp[name].copy() for name in part.obsp},
        uns={name: deepcopy(entry) for name, entry in table.uns.items() if name != UNS},
    )
    for name, source in (("std", Layers.spread(key)), ("low", Layers.low(key)), ("high", Layers.high(key))):
        if source in table.layers:
            found.layers[name] = np.array(table.layers[source][spots][:, genes], dtype=np.float32)
    record = prediction_record(table, key)
    said = {"key": key, "units": str(record.get("units", UNITS)), "trusted": bool(trusted)}
    said |= {Uns.for_whom: for_whom(table, key)} if Var.cv_pcc(key) in table.var else {}
    of_slide = {
        name: entry for name, entry in table.uns.get(UNS, {}).items() if name in (Uns.slide_mpp, Uns.embeddings)
    }
    found.uns[UNS] = deepcopy(of_slide | ({Uns.predictions: {key: record}} if record else {}) | {"predicted": said})
    return found
