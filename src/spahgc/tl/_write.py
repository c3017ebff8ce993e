"""The one place through which predictions enter an AnnData."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._features import blocks_of
from spahgc._keys import SCORES, UNS, Layers, Obs, Obsm, Uns, Var
from spahgc._validate import listing
from spahgc.model import SpaHGC


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
    target.layers[key] = _in_place(predicted, columns, target.shape)
    target.var[Var.panel(key)] = np.isin(np.arange(target.n_vars), columns)
    _forget(target, key)
    uns = target.uns.setdefault(UNS, {})
    uns[Uns.predictions] = {**uns.get(Uns.predictions, {}), key: record}


def write_trust(target: AnnData, model: SpaHGC, key: str, support: np.ndarray | None) -> None:
    """Write what a model says of the trust that its prediction under this key deserves, if it says anything."""
    if model.trust is None:
        return
    columns = target.var_names.get_indexer(model.genes)
    inside = columns >= 0
    correlation = model.trust.correlation
    for name, values in (
        (Var.cv_pcc(key), correlation.pcc),
        (Var.cv_pcc_low(key), correlation.low),
        (Var.cv_pcc_high(key), correlation.high),
    ):
        column = np.full(target.n_vars, np.nan)
        column[columns[inside]] = values[inside]
        target.var[name] = column
    target.layers[Layers.spread(key)] = _spread(target.layers[key], columns, model)
    target.obs[Obs.support(key)] = support


def _spread(predicted: np.ndarray, columns: np.ndarray, model: SpaHGC) -> np.ndarray:
    """Spread of a layer, in blocks of spots."""
    assert model.trust is not None
    inside, layer = columns >= 0, np.full(predicted.shape, np.nan, dtype=np.float32)
    for rows in blocks_of(len(predicted)):
        # The spread of a gene needs its own prediction alone; those that have no place in the target are left out.
        panel = np.zeros((len(predicted[rows]), len(columns)), dtype=np.float32)
        panel[:, inside] = predicted[rows][:, columns[inside]]
        layer[rows, columns[inside]] = model.trust.spread(panel)[:, inside]
    return layer


def _in_place(predicted: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A prediction of the panel among the genes of the target; itself where these are the panel."""
    if np.array_equal(columns, np.arange(shape[1])) and predicted.dtype == np.float32:
        return predicted
    inside, layer = columns >= 0, np.full(shape, np.nan, dtype=np.float32)
    layer[:, columns[inside]] = predicted[:, inside]
    return layer


def _forget(target: AnnData, key: str) -> None:
    """Drop what was said of an earlier prediction under this key: its evaluation, trust, domains and pathways."""
    columns = [Var.score(key, name) for name in SCORES]
    columns += [Var.cv_pcc(key), Var.cv_pcc_low(key), Var.cv_pcc_high(key)]
    target.var = target.var.drop(columns=[column for column in columns if column in target.var])
    target.obs = target.obs.drop(columns=[c for c in (Obs.support(key), Obs.domain(key)) if c in target.obs])
    target.layers.pop(Layers.spread(key), None)
    for graph in (Obsm.cross(key), Obsm.attention(key), Obsm.enrichment(key)):
        target.obsm.pop(graph, None)
    for entry in (Uns.evaluations, Uns.domains, Uns.enrichment):
        target.uns.get(UNS, {}).get(entry, {}).pop(key, None)


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
