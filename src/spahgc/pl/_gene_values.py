"""What a figure of genes shows of a slide: their prediction, measurement, spread and PCC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from scipy.sparse import issparse

from spahgc._keys import UNITS, Layers, Var
from spahgc._logging import warn
from spahgc._slides.matrix import in_memory
from spahgc._slides.measured import log_expression_and_totals, zero_spots
from spahgc._slides.tissue import spots_on_tissue
from spahgc._slides.totals import warn_of_few_genes
from spahgc._validate import check_anndata, check_genes, quoted
from spahgc.pl._figure_slides import FigureSlide
from spahgc.tl._prediction import prediction_record, reference_spots
from spahgc.tl._trust_record import unknown_spots


@dataclass(frozen=True)
class GeneValues:
    """Values of the genes on one slide, spots x genes each, and a PCC a gene."""

    predicted: np.ndarray
    measured: np.ndarray | None
    """``None`` where nothing was measured; NaN in spots off the tissue or without a single count."""
    spread: np.ndarray | None
    """``None`` where it was not asked for."""
    scores: list[float | None]
    """NaN where a constant gene has none, ``None`` where nothing is known."""
    units: str
    was_reference: np.ndarray
    """Spots that were measured and served as a reference of the prediction, boolean."""
    unknown: np.ndarray
    """Spots that look like nothing on the references and are to be hatched, boolean."""
    expected: list[tuple[float, float, float] | None]
    """PCC of each gene on references held out, and its interval; ``None`` where nothing is known."""


def gene_list(genes: str | Sequence[str]) -> list[str]:
    """The genes as a list; refuses an empty one."""
    wanted = [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
    if not wanted:
        raise ValueError("genes is empty. Pass the names of the genes to draw.")
    return wanted


def gene_values(
    slide: FigureSlide,
    genes: list[str],
    *,
    key: str,
    layer: str | None,
    units: str | None = None,
    spread: bool,
    fade_below: float | None = None,
) -> GeneValues:
    """Read what is drawn of some genes.

    Parameters
    ----------
    slide
        A slide with a prediction.
    genes
        Names of genes; checked here.
    key
        Layer of the prediction.
    layer
        Layer with the counts; ``None`` takes ``X``.
    units
        What its values are; ``None`` finds out.
    spread
        Whether to read the spread of the prediction.
    fade_below
        Support below which spots are to be hatched; ``None`` for none.
    """
    adata, label = slide.table, slide.label
    names = drawable_genes(adata, genes, key, label)
    predicted = dense(adata[:, names].layers[key])
    spreads = _spread(adata, names, key, label) if spread else None
    measured = measured_expression(adata, names, layer, label, units=units, key=key)
    return GeneValues(
        predicted=predicted,
        measured=measured,
        spread=spreads,
        scores=_scores(adata, names, key, predicted, measured),
        units=units_of(adata, key),
        was_reference=reference_spots(adata, key),
        unknown=unknown_spots(adata, key, fade_below),
        expected=_expected(adata, names, key),
    )


def shared_units(values: Sequence[GeneValues], slides: Sequence[FigureSlide]) -> str:
    """The units of all slides; refuses different ones, which no common scale could show."""
    units = {one.units: slide.label for one, slide in zip(values, slides, strict=True)}
    if len(units) > 1:
        found = "; ".join(f"{label}: {name}" for name, label in units.items())
        raise ValueError(f"the predictions have different units ({found}). Draw these slides in figures of their own.")
    return next(iter(units))


def drawable_genes(adata: AnnData, genes: Sequence[str], key: str, label: str = "the slide") -> list[str]:
    """The genes; refuses a missing prediction and genes that it does not hold."""
    check_predicted(adata, key, label)
    names = check_genes(genes, adata.var_names, label)
    panel = Var.panel(key)
    if panel in adata.var:
        inside = adata.var[panel].to_numpy(dtype=bool)
    else:
        inside = np.isfinite(dense(adata.layers[key])).any(axis=0)
    # A gene of the panel may still be NaN, in a layer that was changed since.
    filled = np.isfinite(dense(adata[:, names].layers[key])).any(axis=0)
    drawable = inside[adata.var_names.get_indexer(names)] & filled
    outside = [name for name, is_drawable in zip(names, drawable, strict=True) if not is_drawable]
    if outside:
        raise ValueError(
            f'{quoted(outside)}: not in the panel of the prediction "{key}" of {label}, which holds '
            f"{int(inside.sum())} genes: {quoted(adata.var_names[inside])}. Draw one of these, or predict with "
            "genes=[...] that names it."
        )
    return names


def check_predicted(adata: AnnData, key: str, label: str = "the slide") -> None:
    """Refuse a slide without a prediction under this key."""
    check_anndata(adata, label)
    if key not in adata.layers:
        raise KeyError(
            f'layer "{key}" not found in {label}, layers are: {quoted(adata.layers)}. '
            "Run spahgc.tl.predict(adata, refs) first."
        )


def dense(values: object) -> np.ndarray:
    """Dense values, float32."""
    matrix = in_memory(values)
    return np.asarray(matrix.toarray() if issparse(matrix) else matrix, dtype=np.float32)


def _spread(adata: AnnData, genes: list[str], key: str, label: str) -> np.ndarray:
    """Spread of the prediction; refuses one that is not there."""
    layer = Layers.spread(key)
    if layer not in adata.layers:
        raise KeyError(
            f'layer "{layer}" not found in {label}, layers are: {quoted(adata.layers)}. The spread comes with '
            'spahgc.tl.predict(adata, refs, preset="default"); other methods have none. Leave out spread=True to draw '
            "the rest."
        )
    return dense(adata[:, genes].layers[layer])


def measured_expression(
    adata: AnnData,
    genes: list[str],
    layer: str | None,
    label: str = "the slide",
    *,
    units: str | None = None,
    key: str,
) -> np.ndarray | None:
    """Measured expression, spots x genes, NaN in empty spots and off the tissue; ``None`` where nothing was measured."""
    part = reference_spots(adata, key)
    if part.any() and _has_gaps(adata, ~part, layer):
        # Nothing was measured but the part that served as a reference.
        of_part = measured_expression(adata[part], genes, layer, label, units=units, key=key)
        values = np.full((adata.n_obs, len(genes)), np.nan, dtype=np.float32)
        values[part] = np.nan if of_part is None else of_part
        return values
    if layer is None and not _has_measurement(adata.X, label):
        return None
    # Every spot's total is over all genes, so the columns are taken afterwards.
    expression, totals = log_expression_and_totals(adata, layer=layer, units=units, label=label)
    warn_of_few_genes(adata, key, label, totals)
    on_tissue = spots_on_tissue(adata, label)
    empty = zero_spots(expression) | (False if on_tissue is None else ~on_tissue)
    if empty.all():
        return None
    values = dense(expression[:, adata.var_names.get_indexer(genes)])
    # Where no gene was seen, a zero is no measurement of this one.
    values[empty] = np.nan
    return values


def _has_gaps(adata: AnnData, spots: np.ndarray, layer: str | None) -> bool:
    """Whether any value of some spots is NaN."""
    values = adata.X if layer is None else adata.layers.get(layer)
    if values is None or not spots.any():
        return False
    some = in_memory(values)[spots]
    return bool(np.isnan(some.data if issparse(some) else np.asarray(some)).any())


def _has_measurement(x: object, label: str) -> bool:
    """Whether ``X`` has values, none of them NaN: a slide that was never measured is often filled with NaN."""
    if x is None:
        return False
    matrix = in_memory(x)
    values = matrix.data if issparse(matrix) else np.asarray(matrix)
    missing = int(np.count_nonzero(np.isnan(values)))
    if 0 < missing < values.size:
        warn(
            f"X has {missing} NaN among {values.size} values, so {label} counts as not measured and only the "
            "prediction is drawn. Pass layer= with the counts if it was measured.",
            stacklevel=6,
        )
    return values.size > 0 and missing == 0


def _scores(
    adata: AnnData, genes: list[str], key: str, predicted: np.ndarray, measured: np.ndarray | None
) -> list[float | None]:
    """PCC of every gene: that of `spahgc.tl.evaluate` where it has run, else of what is drawn."""
    column = Var.score(key, "pearson")
    known = np.full(len(genes), np.nan)
    if column in adata.var:
        known = adata.var[column].reindex(genes).to_numpy(dtype=np.float64)
    if measured is None:
        return [float(score) if np.isfinite(score) else None for score in known]
    complete = np.isfinite(measured).all(axis=1) & np.isfinite(predicted).all(axis=1)
    if not complete.any():
        return [float(score) if np.isfinite(score) else None for score in known]
    if np.isnan(known).any():
        from spahgc.tl._evaluate import gene_scores

        drawn = gene_scores(predicted[complete], measured[complete], genes)["pearson"].to_numpy(dtype=np.float64)
        known = np.where(np.isnan(known), drawn, known)
    return [float(score) for score in known]


def _expected(adata: AnnData, genes: list[str], key: str) -> list[tuple[float, float, float] | None]:
    """PCC of every gene on references held out, with its interval, as the prediction says it."""
    columns = [Var.cv_pcc(key), Var.cv_pcc_low(key), Var.cv_pcc_high(key)]
    if not set(columns) <= set(adata.var):
        return [None] * len(genes)
    rows = adata.var[columns].loc[genes].to_numpy(dtype=np.float64)
    return [
        (float(pcc), float(low), float(high)) if np.isfinite([pcc, low, high]).all() else None
        for pcc, low, high in rows
    ]


def units_of(adata: AnnData, key: str) -> str:
    """Units that the prediction's record names, else those of the package."""
    return str(prediction_record(adata, key).get("units", UNITS))
