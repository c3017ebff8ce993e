"""How well a prediction agrees with what was measured, gene by gene."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import rankdata

from spahgc._keys import SCORES, UNS, Uns, Var
from spahgc._slides.measured import log_expression_and_totals, zero_spots
from spahgc._slides.tables import table_of
from spahgc._slides.tissue import spots_on_tissue, warn_of_glass
from spahgc._slides.totals import warn_of_few_genes
from spahgc._validate import check_anndata, quoted
from spahgc.tl._prediction import prediction_and_panel

if TYPE_CHECKING:
    from spatialdata import SpatialData

SLIDE = "the slide"
"""How messages call it."""

MIN_SPOTS = 3
"""Fewer spots define no correlation worth the name."""


def evaluate(
    adata: AnnData | SpatialData,
    *,
    key: str = "spahgc",
    layer: str | None = None,
    units: str | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Compare a prediction with the slide's own measurement.

    Parameters
    ----------
    adata
        A slide that was measured, with a prediction in ``layers[key]``; or a SpatialData with such a table.
    key
        Key of the prediction.
    layer
        Layer with the measured counts; ``None`` takes ``X``. They are compared as ``log1p`` counts per 10,000.
        Where genes were taken away, a spot is scaled by its total over all genes, which
        ``obs["spahgc_total_counts"]`` remembers.
    units
        What the values are: ``"counts"``, whole or corrected; ``"log1p"`` of counts that were scaled to a total;
        ``"normalized"``, scaled counts without the logarithm. ``None`` finds out and warns of what it assumes, or refuses
        where nothing tells.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    One row a gene of the panel: ``pearson``, ``spearman`` (over spots), ``rmse``, ``mae`` (in units of the
    prediction), ``n_spots``. A gene that is constant over the spots, as measured or as predicted, has no correlation:
    its ``pearson`` and ``spearman`` are NaN, never zero. Also written are

    - ``var["spahgc_pearson"]``, ``var["spahgc_spearman"]``, ``var["spahgc_rmse"]``, ``var["spahgc_mae"]``; NaN for
      genes outside the panel;
    - ``uns["spahgc"]["evaluations"][key]``: means over genes, and how many genes were constant.

    Spots off the tissue (``obs["in_tissue"]``) and spots without a single count are left out, with a warning.

    Raises
    ------
    KeyError
        If there is no prediction under this key.
    ValueError
        If nothing was measured, or if the measurement holds NaN.

    Examples
    --------
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide.layers["oracle"] = slide.layers["truth"]
    >>> slide.var["oracle_panel"] = True
    >>> sp.tl.evaluate(slide, key="oracle")["pearson"].notna().any()
    True
    """
    adata = table_of(adata, table_key, "the slide")
    check_anndata(adata, "the slide")
    values, panel = prediction_and_panel(adata, key)
    expression, totals = log_expression_and_totals(adata, layer=layer, units=units, label=SLIDE)
    warn_of_few_genes(adata, key, SLIDE, totals)
    on_tissue = spots_on_tissue(adata, SLIDE)
    if on_tissue is not None:
        warn_of_glass(on_tissue, SLIDE, "are left out of the evaluation")
        expression, values = expression[on_tissue], values[on_tissue]
    names = adata.obs_names if on_tissue is None else adata.obs_names[on_tissue]
    empty = zero_spots(expression)
    if (~empty).sum() < MIN_SPOTS:
        raise ValueError(
            f"only {int((~empty).sum())} of {len(empty)} spots have counts: there is nothing to compare with. "
            "Pass layer= if the counts are not in X."
        )
    if empty.any():
        warnings.warn(
            f"{int(empty.sum())} spots without a single count ({quoted(names[empty])}) are left out of the evaluation.",
            stacklevel=2,
        )
    predicted = values[~empty][:, panel]
    scores = gene_scores(predicted, expression[~empty][:, panel].toarray(), list(adata.var_names[panel]))
    for name in SCORES:
        column = np.full(adata.n_vars, np.nan)
        column[panel] = scores[name]
        adata.var[Var.score(key, name)] = column
    record = adata.uns.setdefault(UNS, {})
    record[Uns.evaluations] = record.get(Uns.evaluations, {}) | {key: _summary(scores, int(empty.sum()))}
    return scores


def gene_scores(predicted: np.ndarray, measured: np.ndarray, genes: Sequence[str]) -> pd.DataFrame:
    """Scores of every gene over the spots.

    Parameters
    ----------
    predicted, measured
        Spots x genes, in the same units.
    genes
        Names of the columns.
    """
    p, m = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    error = p - m
    return pd.DataFrame(
        {
            "pearson": correlation(p, m),
            "spearman": correlation(rankdata(p, axis=0), rankdata(m, axis=0)),
            "rmse": np.sqrt(np.square(error).mean(axis=0)),
            "mae": np.abs(error).mean(axis=0),
            "n_spots": np.full(len(genes), len(p)),
        },
        index=pd.Index(genes, name="gene"),
    )


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of the columns; NaN where a column is constant."""
    constant = (np.ptp(a, axis=0) == 0) | (np.ptp(b, axis=0) == 0)
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.where(constant, np.nan, (a * b).sum(axis=0) / np.where(constant, 1.0, scale))


def _summary(scores: pd.DataFrame, n_empty: int) -> dict[str, float | int]:
    return {
        "n_genes": len(scores),
        "n_genes_constant": int(scores["pearson"].isna().sum()),
        "n_spots": int(scores["n_spots"].iloc[0]) if len(scores) else 0,
        "n_spots_empty": n_empty,
        "mean_pearson": float(scores["pearson"].mean()),
        "median_pearson": float(scores["pearson"].dropna().median()),
        "mean_spearman": float(scores["spearman"].mean()),
        "mean_rmse": float(scores["rmse"].mean()),
        "mean_mae": float(scores["mae"].mean()),
    }
