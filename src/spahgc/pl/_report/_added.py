"""What reference spots add to the prediction of the first genes of a page, at every spot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc.pl._report._retrieved import Retrieved
from spahgc.tl._attribution import contributions_of, reference_names

if TYPE_CHECKING:
    from spahgc.model import SpaHGC

N_GENES = 10
"""Genes for which a page says what reference spots add: the first that it shows."""
N_SPOTS = 6
"""Reference spots that are kept for each spot and gene: those that add most, of either sign."""
BLOCK_NUMBERS = 2**26
"""Spots times reference spots times genes that are held at a time, 270 MB an expert."""


@dataclass(frozen=True)
class Added:
    """The strongest contributions, and sums of all of them.

    Parameters
    ----------
    genes
        Positions among the genes of the page.
    references
        Genes x spots x k, int32: rows of the page's table of reference spots; -1 at spots without a prediction.
    values
        What each adds, in the units of the prediction, genes x spots x k, float32.
    slides
        Names of the reference slides.
    sums
        Over all spots of each slide, genes x spots x slides, float32.
    rest
        From what cannot be told by reference spots, genes x spots, float32.
    mean
        Of each gene.
    """

    genes: list[int]
    references: np.ndarray
    values: np.ndarray
    slides: list[str]
    sums: np.ndarray
    rest: np.ndarray
    mean: list[float]


def added(
    adata: AnnData, genes: list[str], model: SpaHGC, key: str, found: Retrieved | None
) -> tuple[Retrieved, Added]:
    """What reference spots add, and the page's table of reference spots with those among them.

    Parameters
    ----------
    adata, key
        The slide and its prediction.
    genes
        All genes of the page.
    model
        The model that predicted.
    found
        The spots to which the graph attended, if there is a graph.
    """
    names = genes[:N_GENES]
    layer = adata.layers[key][:, adata.var_names.get_indexer(names)]
    rows = np.flatnonzero(np.isfinite(np.asarray(layer)).all(axis=1))
    step = max(1, BLOCK_NUMBERS // (model.bank.n_obs * len(names)))
    n_kept, slides = min(N_SPOTS, model.bank.n_obs), model.references
    shape = len(names), adata.n_obs
    edges = np.full((*shape, n_kept), -1, dtype=np.int32)
    values, rest = np.zeros((*shape, n_kept), np.float32), np.zeros(shape, np.float32)
    sums = np.zeros((*shape, len(slides)), np.float32)
    for some in (rows[start : start + step] for start in range(0, len(rows), step)):
        parts = contributions_of(adata, some, names, model, key)
        total = parts.total.transpose(2, 0, 1)
        most = np.argsort(-np.abs(total), axis=2, kind="stable")[:, :, :n_kept]
        edges[:, some], values[:, some] = most, np.take_along_axis(total, most, axis=2)
        rest[:, some] = parts.remainder.T
        by_slide = parts.by_slide
        sums[:, some] = np.stack([by_slide[name].T for name in slides], axis=2)
    table, edges = _with_these(found, edges, list(model.bank.obs_names), slides)
    return table, Added(list(range(len(names))), edges, values, slides, sums, rest, parts.mean.tolist())


def _with_these(
    found: Retrieved | None, edges: np.ndarray, names: list[str], slides: list[str]
) -> tuple[Retrieved, np.ndarray]:
    """The table with the spots of a bank that are not in it yet, most often kept first, and the edges by its rows."""
    kept, counts = np.unique(edges[edges >= 0], return_counts=True)
    kept = kept[np.argsort(-counts, kind="stable")]
    own = pd.DataFrame(dict(zip(("slide", "spot"), reference_names([names[i] for i in kept], slides), strict=True)))
    if found is None:
        nothing = np.zeros((edges.shape[1], 0), np.float32)
        found = Retrieved(own.iloc[:0], nothing.astype(np.int32), nothing, nothing)
    # Patches are cut for the first of the table, so those that add come before those that the graph looked at alone.
    table = pd.concat([own, found.references], ignore_index=True).drop_duplicates(ignore_index=True)
    place = pd.Series(np.arange(len(table)), index=pd.MultiIndex.from_frame(table))
    moved = place.loc[pd.MultiIndex.from_frame(found.references)].to_numpy() if len(found.references) else np.zeros(0)
    attended = np.where(found.edges >= 0, np.append(moved, -1)[found.edges], -1).astype(np.int32)
    numbers = np.full(len(names) + 1, -1, dtype=np.int32)
    numbers[kept] = np.arange(len(kept))
    return replace(found, references=table, edges=attended), numbers[edges]
