"""How well a prediction agrees with what was measured, gene by gene."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

from spahgc._keys import SCORES, SPATIAL, STRUCTURE_SCORES, UNS, Uns, Var
from spahgc._logging import warn
from spahgc._slides.measured import log_expression_and_totals, zero_spots
from spahgc._slides.split import slide_labels
from spahgc._slides.tables import table_of
from spahgc._slides.tissue import spots_on_tissue, warn_of_glass
from spahgc._slides.totals import warn_of_few_genes
from spahgc._validate import check_anndata, check_coordinates, quoted
from spahgc.tl._gene_sets import gene_sets as read_gene_sets
from spahgc.tl._prediction import prediction_and_panel, reference_spots
from spahgc.tl._structure.neighbours import neighbour_graph
from spahgc.tl._structure.pathways import check_pathways
from spahgc.tl._structure.scores import pathway_structure, slide_structure, structure_scores

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
    gene_sets: str | PathLike[str] | pd.DataFrame | None = None,
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
    gene_sets
        Pathways whose scores are compared as well: path of a GMT file, or a table with the columns ``source`` and
        ``target``, as :func:`spahgc.tl.enrich` takes them.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    One row a gene of the panel: ``pearson``, ``spearman`` (over spots), ``rmse``, ``mae`` (in units of the
    prediction), ``n_spots``, and three scores of the map that a correlation does not see (see the notes):
    ``variance_ratio``, ``moran_difference``, ``ssim``. A gene that is constant over the spots, as measured or as
    predicted, has no correlation: its ``pearson`` and ``spearman`` are NaN, never zero. Also written are

    - ``var["spahgc_pearson"]``, ``var["spahgc_spearman"]``, ``var["spahgc_rmse"]``, ``var["spahgc_mae"]``,
      ``var["spahgc_variance_ratio"]``, ``var["spahgc_moran_difference"]``, ``var["spahgc_ssim"]``; NaN for genes outside
      the panel;
    - ``uns["spahgc"]["evaluations"][key]``: means over genes (of ``variance_ratio`` the median), how many genes were
      constant, and ``gene_correlation`` of the slide with the number of genes behind it; with ``gene_sets``
      ``pathway_correlation``, the mean over pathways, and ``pathways``, a table with a row a pathway: ``pearson``,
      ``n_genes`` (that counted), ``n_genes_in_set``.

    Spots off the tissue (``obs["in_tissue"]``) and spots without a single count are left out, with a warning. So are the
    measured spots of a target that was measured in part, which were a reference of its prediction
    (``obs["spahgc_measured"]``): ``n_spots_reference``, in the summary and in ``attrs`` of the table, says how many.

    Raises
    ------
    FileNotFoundError
        If there is no such gene-set file.
    KeyError
        If there is no prediction under this key.
    ValueError
        If nothing was measured, if the measurement holds NaN, if the gene sets are malformed, or if none of them has five
        genes in the panel.

    Notes
    -----
    With ``p`` predicted and ``m`` measured, over the spots of the slide:

    - ``variance_ratio``: ``var(p) / var(m)``. A map that is right in its pattern and nearly flat has a PCC of 1 and a
      ratio of almost 0. NaN where ``m`` is constant.
    - ``moran_difference``: Moran's I of ``p`` less that of ``m``, ``I = n / W * sum_ij w_ij z_i z_j / sum_i z_i^2`` with
      ``z`` the value less its mean. 0: equally smooth; positive: smoother than the measurement. NaN where ``p`` or ``m``
      is constant.
    - ``ssim``: structural similarity of Wang et al. 2004, mean over spots, a spot and its neighbours being the window:
      ``(2 mu_p mu_m + C1) (2 s_pm + C2) / ((mu_p^2 + mu_m^2 + C1) (s_pp + s_mm + C2))`` with ``C1 = (0.01 L)^2``,
      ``C2 = (0.03 L)^2`` and ``L`` the measured range of the gene. NaN where ``m`` is constant.
    - ``gene_correlation``: Pearson correlation of the upper triangles of the two gene-gene correlation matrices, over at
      most 2,000 genes that vary on both sides, those of highest measured variance.
    - ``pathway_correlation``: Pearson correlation over spots of a pathway's score, which is the mean z-score of its genes
      (weighted, where the gene sets have weights), on either side.

    Neighbours are the spots one pitch away on a hexagonal or square array, which is recognised by the positions, and the
    six nearest spots where there is no array. Without ``obsm["spatial"]``, ``moran_difference`` and ``ssim`` are NaN, with
    a warning.

    Examples
    --------
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide.layers["oracle"] = slide.layers["truth"]
    >>> slide.var["oracle_panel"] = True
    >>> sp.tl.evaluate(slide, key="oracle")["pearson"].notna().any()
    True
    """
    net = None if gene_sets is None else read_gene_sets(gene_sets)
    adata = table_of(adata, table_key, "the slide")
    check_anndata(adata, "the slide")
    values, panel = prediction_and_panel(adata, key)
    genes = [str(gene) for gene in adata.var_names[panel]]
    if net is not None:
        check_pathways(net, genes, f'the panel of "{key}"')
    expression, totals = log_expression_and_totals(adata, layer=layer, units=units, label=SLIDE)
    warn_of_few_genes(adata, key, SLIDE, totals)
    on_tissue = spots_on_tissue(adata, SLIDE)
    if on_tissue is not None:
        warn_of_glass(on_tissue, SLIDE, "are left out of the evaluation")
        expression, values = expression[on_tissue], values[on_tissue]
    rows = np.arange(adata.n_obs) if on_tissue is None else np.flatnonzero(on_tissue)
    # A spot that was a reference has no prediction of which anything could be said.
    was_reference = reference_spots(adata, key)[rows]
    expression, values, rows = expression[~was_reference], values[~was_reference], rows[~was_reference]
    empty = zero_spots(expression)
    if (~empty).sum() < MIN_SPOTS:
        beside = (
            f" that were predicted, beside {int(was_reference.sum())} measured ones," if was_reference.any() else ""
        )
        raise ValueError(
            f"only {int((~empty).sum())} of {len(empty)} spots{beside} have counts: there is nothing to compare with. "
            "Pass layer= if the counts are not in X."
        )
    near = _neighbours(adata, rows[~empty])
    if empty.any():
        warn(
            f"{int(empty.sum())} spots without a single count ({quoted(adata.obs_names[rows[empty]])}) are left out of the evaluation.",
            stacklevel=2,
        )
    predicted, measured = values[~empty][:, panel], expression[~empty][:, panel].toarray()
    scores = gene_scores(predicted, measured, list(adata.var_names[panel]))
    scores = scores.join(structure_scores(predicted, measured, list(scores.index), near))
    for name in (*SCORES, *STRUCTURE_SCORES):
        column = np.full(adata.n_vars, np.nan)
        column[panel] = scores[name]
        adata.var[Var.score(key, name)] = column
    summary = _summary(scores, int(empty.sum())) | slide_structure(predicted, measured)
    summary |= pathway_structure(predicted, measured, genes, net)
    if was_reference.any():
        summary[Uns.n_spots_reference] = int(was_reference.sum())
        scores.attrs[Uns.n_spots_reference] = int(was_reference.sum())
    record = adata.uns.setdefault(UNS, {})
    record[Uns.evaluations] = record.get(Uns.evaluations, {}) | {key: summary}
    return scores


def _neighbours(adata: AnnData, compared: np.ndarray) -> csr_matrix | None:
    """Neighbours among the rows that are compared; ``None`` where no positions are known, with a warning."""
    if SPATIAL not in adata.obsm:
        warn(
            f'obsm["{SPATIAL}"] not found in the slide: moran_difference and ssim need positions and are NaN. Write the '
            "spot centres (x, y) there.",
            stacklevel=3,
        )
        return None
    slides = slide_labels(adata, "the slide")
    return neighbour_graph(
        check_coordinates(adata, "the slide")[compared], None if slides is None else slides[compared]
    )


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


def _summary(scores: pd.DataFrame, n_empty: int) -> dict[str, Any]:
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
        "median_variance_ratio": float(scores["variance_ratio"].dropna().median()),
        "mean_moran_difference": float(scores["moran_difference"].mean()),
        "mean_ssim": float(scores["ssim"].mean()),
    }
