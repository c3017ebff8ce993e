"""The predicted expression that lies in a slide, as the analyses downstream of it read it."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from scipy.sparse import issparse

from spahgc._keys import UNS, Uns, Var
from spahgc._validate import check_anndata, listing


def prediction_record(adata: AnnData, key: str) -> dict[str, Any]:
    """What ``uns`` says of the prediction under a key; empty for a layer from elsewhere."""
    return dict(adata.uns.get(UNS, {}).get(Uns.predictions, {}).get(key, {}))


def predicted_expression(adata: AnnData, key: str) -> tuple[np.ndarray, list[str]]:
    """Prediction of the genes of the panel, and their names.

    Parameters
    ----------
    adata
        A slide with a prediction in ``layers[key]``. Where ``var[f"{key}_panel"]`` is missing, the panel is every gene
        with a value.
    key
        Key of the prediction.

    Returns
    -------
    Spots x genes, float64, a new array; and the genes.

    Raises
    ------
    KeyError
        If there is no prediction under this key.
    ValueError
        If no gene was predicted, if values are missing inside the panel, or if all spots are alike: neither a cluster
        nor a pathway can be seen in such a prediction.
    """
    check_anndata(adata, "the slide")
    values, panel = prediction_and_panel(adata, key)
    if not panel.any():
        raise ValueError(f'the panel of layers["{key}"] is empty: no gene was predicted. Run spahgc.tl.predict again.')
    expression, genes = values[:, panel].astype(np.float64), [str(gene) for gene in adata.var_names[panel]]
    broken = ~np.isfinite(expression)
    if broken.any():
        raise ValueError(
            f'layers["{key}"] has {int(broken.sum())} NaN or infinite values inside its panel, in the genes '
            f'{listing(np.asarray(genes)[broken.any(axis=0)])}. Run spahgc.tl.predict again, or correct var["'
            f'{Var.panel(key)}"].'
        )
    if not np.ptp(expression, axis=0).any():
        raise ValueError(
            f'layers["{key}"] is the same in all {adata.n_obs} spots, so there is nothing to tell them apart '
            '(method="mean" predicts so). Predict with another method.'
        )
    return expression, genes


def prediction_and_panel(adata: AnnData, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The layer of a prediction, dense, and which genes are in its panel: those that ``var`` names, or have a value."""
    if key not in adata.layers:
        raise KeyError(
            f'layers["{key}"] not found, layers are {listing(adata.layers)}. Run spahgc.tl.predict(adata, refs) first.'
        )
    layer = adata.layers[key]
    values = layer.toarray() if issparse(layer) else np.asarray(layer)
    if Var.panel(key) in adata.var:
        return values, adata.var[Var.panel(key)].to_numpy(dtype=bool)
    return values, ~np.isnan(values).all(axis=0)


def check_new_key(name: str, where: str) -> str:
    """Refuse a name under which h5ad and zarr cannot write."""
    if not name or "/" in name:
        raise ValueError(f'key_added="{name}" cannot name an entry of {where}: it is empty or contains "/".')
    return name
