"""The one place through which predictions enter an AnnData."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import SCORES, UNS, Uns, Var
from spahgc._validate import listing


def write_prediction(
    target: AnnData, predicted: np.ndarray, genes: list[str], key: str, record: dict[str, Any]
) -> None:
    """Write a prediction of a panel into the genes of the target, and its record into ``uns``.

    Parameters
    ----------
    target
        The slide. If it has no genes, it gets those of the panel.
    predicted
        Spots x ``genes``.
    genes
        The panel.
    key
        Name of the layer.
    record
        What is needed to repeat it.
    """
    if target.n_vars == 0:
        _give_genes(target, genes)
    columns = target.var_names.get_indexer(genes)
    inside = columns >= 0
    if not inside.all():
        absent = [gene for gene, there in zip(genes, inside, strict=True) if not there]
        warnings.warn(
            f"{len(absent)} of {len(genes)} genes of the panel are not among the genes of the target "
            f"({listing(absent)}); their prediction has no place in it. Predict into a target without genes to keep it.",
            stacklevel=3,
        )
    layer = np.full(target.shape, np.nan, dtype=np.float32)
    layer[:, columns[inside]] = predicted[:, inside]
    target.layers[key] = layer
    target.var[Var.panel(key)] = np.isin(np.arange(target.n_vars), columns)
    _forget_scores(target, key)
    uns = target.uns.setdefault(UNS, {})
    uns[Uns.predictions] = {**uns.get(Uns.predictions, {}), key: record}


def _forget_scores(target: AnnData, key: str) -> None:
    """Drop what an evaluation said of an earlier prediction under this key."""
    stale = [Var.score(key, name) for name in SCORES if Var.score(key, name) in target.var]
    target.var = target.var.drop(columns=stale)
    target.uns.get(UNS, {}).get(Uns.evaluations, {}).pop(key, None)


def _give_genes(target: AnnData, genes: list[str]) -> None:
    # The width of an AnnData is fixed when it is made, so that one object can only be refilled by making it anew.
    filled = AnnData(
        obs=target.obs,
        var=pd.DataFrame(index=pd.Index(genes, name=target.var_names.name)),
        obsm=dict(target.obsm),
        obsp=dict(target.obsp),
        uns=target.uns,
    )
    target._init_as_actual(filled)
