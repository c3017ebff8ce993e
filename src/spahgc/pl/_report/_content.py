"""What a page shows of a slide: read from where ``pp`` and ``tl`` wrote it, nothing computed anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from spahgc._keys import Layers, Obs, Var
from spahgc._slides.library import find_library
from spahgc.pl._gene_values import dense, drawable_genes, gene_list, measured_expression, units_of
from spahgc.pl._tissue import SpatialKeys, Tissue, slide_tissue
from spahgc.tl._prediction import prediction_and_panel
from spahgc.tl._trust_record import LOW_SUPPORT, TrustRecord, trust_record, unknown_spots

if TYPE_CHECKING:
    from spatialdata import SpatialData

SLIDE = "the slide"
"""How messages call it."""
MAX_GENES = 300
"""Genes that a page shows where none are named: those that can be trusted most."""


@dataclass(frozen=True)
class Content:
    """Everything but pictures, references and the record. What is absent is ``None`` and left out of the page."""

    slide: str
    key: str
    units: str
    spots: list[str]
    genes: list[str]
    """Most trusted first."""
    n_predicted: int
    """Genes of the panel, of which the page may show some."""
    predicted: np.ndarray
    measured: np.ndarray | None
    spread: np.ndarray | None
    """Spots x genes each; NaN where there is no value."""
    trust: pd.DataFrame | None
    """PCC on references held out in turn, a row a gene: ``pcc``, ``low``, ``high``."""
    achieved: np.ndarray | None
    """PCC with the slide's own measurement, where `spahgc.tl.evaluate` has run."""
    support: np.ndarray | None
    domains: pd.Categorical | None
    unknown: np.ndarray
    """Spots that look like nothing on the references and are hatched, boolean."""
    said: TrustRecord
    """What the prediction says of itself."""
    tissue: Tissue


def collect(
    data: AnnData | SpatialData,
    adata: AnnData,
    *,
    key: str,
    genes: Sequence[str] | None,
    layer: str | None,
    first: Sequence[str] = (),
    units: str | None = None,
    fade_below: float | None = LOW_SUPPORT,
    keys: SpatialKeys,
) -> Content:
    """Read what a page shows.

    Parameters
    ----------
    data
        What the caller passed, AnnData or SpatialData.
    adata
        Its table.
    key
        Key of the prediction.
    genes
        Genes to show; ``None`` takes the most trusted ones of the panel, at most :data:`MAX_GENES`.
    layer
        Layer of the counts.
    first
        Genes that are kept before others where none are named: those of the gene sets.
    units
        What its values are; ``None`` finds out.
    fade_below
        Support below which spots are hatched; ``None`` for none.
    keys
        Where its image is.

    Raises
    ------
    KeyError
        If there is no such prediction or gene.
    ValueError
        If a gene was not predicted.
    """
    panel = _panel(adata, key)
    shown = _by_trust(adata, panel if genes is None else drawable_genes(adata, gene_list(genes), key, SLIDE), key)
    shown = _most(shown, set(first)) if genes is None else shown
    positions = adata.var_names.get_indexer(shown)
    spread = Layers.spread(key)
    return Content(
        slide=slide_name(adata),
        key=key,
        units=units_of(adata, key),
        spots=[str(name) for name in adata.obs_names],
        genes=shown,
        n_predicted=len(panel),
        predicted=dense(adata.layers[key])[:, positions],
        measured=measured_expression(adata, shown, layer, SLIDE, units=units, key=key),
        spread=dense(adata.layers[spread])[:, positions] if spread in adata.layers else None,
        trust=_trust(adata, shown, key),
        achieved=_numbers(adata.var.loc[shown], Var.score(key, "pearson")),
        support=_numbers(adata.obs, Obs.support(key)),
        domains=_domains(adata, key),
        unknown=unknown_spots(adata, key, fade_below),
        said=trust_record(adata, key),
        tissue=slide_tissue(data, keys),
    )


def slide_name(adata: AnnData) -> str:
    """Name of a slide: that in ``obs``, else of its library, else what it is."""
    if Obs.slide in adata.obs and adata.obs[Obs.slide].nunique() == 1:
        return str(adata.obs[Obs.slide].dropna().iloc[0])
    named = find_library(adata)
    return "slide" if named is None else named.name


def _panel(adata: AnnData, key: str) -> list[str]:
    values, inside = prediction_and_panel(adata, key)
    filled = inside & np.isfinite(values).any(axis=0)
    if not filled.any():
        raise ValueError(f'layers["{key}"] holds no value of any gene. Run spahgc.tl.predict(adata, refs) again.')
    return [str(gene) for gene in adata.var_names[filled]]


def _by_trust(adata: AnnData, genes: list[str], key: str) -> list[str]:
    """Genes from the most to the least trusted: by held-out PCC, else by the one achieved, else as they were."""
    for column in (Var.cv_pcc(key), Var.score(key, "pearson")):
        scores = _numbers(adata.var.loc[genes], column)
        if scores is not None:
            return [genes[i] for i in np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")]
    return genes


def _most(genes: list[str], first: set[str]) -> list[str]:
    """As many genes as a page shows, in their order; those of `first` before others."""
    kept = set(sorted(genes, key=lambda gene: gene not in first)[:MAX_GENES])
    return [gene for gene in genes if gene in kept]


def _trust(adata: AnnData, genes: list[str], key: str) -> pd.DataFrame | None:
    names = {"pcc": Var.cv_pcc(key), "low": Var.cv_pcc_low(key), "high": Var.cv_pcc_high(key)}
    columns = {name: _numbers(adata.var.loc[genes], column) for name, column in names.items()}
    return None if any(column is None for column in columns.values()) else pd.DataFrame(columns, index=genes)


def _numbers(table: pd.DataFrame, column: str) -> np.ndarray | None:
    """A column of numbers; ``None`` where it is missing or without a single one."""
    if column not in table:
        return None
    values = table[column].to_numpy(dtype=np.float64)
    return values if np.isfinite(values).any() else None


def _domains(adata: AnnData, key: str) -> pd.Categorical | None:
    column = Obs.domain(key)
    return pd.Categorical(adata.obs[column]).remove_unused_categories() if column in adata.obs else None
