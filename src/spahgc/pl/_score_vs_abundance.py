"""Scores of genes against how abundant they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spahgc._slides.tables import table_of
from spahgc.pl._gene_values import units_of
from spahgc.pl._labels import mark_points
from spahgc.pl._measured_part import measured_note
from spahgc.pl._output import finish_single, given_axes, new_axes, save_path
from spahgc.pl._scores import (
    PLOT_RC,
    SLIDE,
    count,
    draw_guide,
    draw_points,
    evaluated,
    extremes,
    find_metric,
    measured_spots,
    panel_of,
    plain_numbers,
)
from spahgc.pl._style import COLUMN_IN, TEXT_PT, check_count, rc_context, text_colour
from spahgc.tl._prediction import reference_spots

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

    from spahgc.pl._scores import Metric

GENES_PER_GROUP, MAX_GROUPS = 15, 12
"""Genes of similar abundance whose median is a step of the line: at least so many, in at most so many groups."""


def score_vs_abundance(
    adata: AnnData | SpatialData,
    *,
    key: str = "spahgc",
    metric: str = "pearson",
    layer: str | None = None,
    units: str | None = None,
    n_label: int = 3,
    table_key: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the score of every gene against its mean measured expression.

    A gene of few counts is measured with much noise, and no prediction agrees with noise. This figure tells a gene that
    is predicted badly from one that is hardly measured: genes of similar abundance can be compared, for which the line
    gives the median. The best and the worst genes carry their names.

    Parameters
    ----------
    adata
        A slide, AnnData or SpatialData, on which `spahgc.tl.evaluate` has run.
    key
        Key of the prediction.
    metric
        ``"pearson"``, ``"spearman"``, ``"rmse"``, ``"mae"``, ``"variance_ratio"``, ``"moran_difference"`` or ``"ssim"``;
        :func:`spahgc.tl.evaluate` says what they are.
    layer
        Layer with the measured counts, as `spahgc.tl.evaluate` was given it; ``None`` takes ``X``. The mean is that of
        log1p counts per 10,000 over the spots that have counts, on a logarithmic axis; a gene that is seen nowhere has no
        place on it and is counted in the title.
    units
        What its values are, as in `spahgc.tl.evaluate`; ``None`` finds out.
    n_label
        Genes to name at either end, 0 for none.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    ax
        Axes to draw on. ``None`` makes a figure.
    show
        Show the figure; ``None`` follows ``scanpy.settings.autoshow`` where matplotlib has a screen. A figure on given
        axes is not shown.
    save
        Path of a file to write, whose folder must exist; ``True`` writes into ``scanpy.settings.figdir``; ``None``
        follows ``scanpy.settings.autosave``. A figure made here is closed once it is saved, as in scanpy.
    return_fig
        Return the figure, and do not show it.

    Returns
    -------
    The axes; the figure with `return_fig`; ``None`` if the figure was shown.

    Raises
    ------
    KeyError
        If there is no prediction or no evaluation under this key.
    ValueError
        If the metric is not known, no gene has a score, or the slide holds no measurement.
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.tl.evaluate : computes the scores.
    spahgc.pl.gene_scores : the scores of several methods.

    Examples
    --------
    >>> import spahgc as sp
    >>> slide = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)[0]
    >>> slide.layers["spahgc"] = slide.layers["truth"]
    >>> scores = sp.tl.evaluate(slide)
    >>> ax = sp.pl.score_vs_abundance(slide, show=False)
    >>> ax.get_ylabel()
    'PCC with the measurement'
    """
    adata = table_of(adata, table_key, SLIDE)
    check_count("n_label", n_label, "genes to name, 0 for none", least=0)
    find_metric(metric)
    scores = evaluated(adata, key, metric)
    label = find_metric(metric, units_of(adata, key))
    inside = panel_of(adata, key, scores)
    defined = inside & np.isfinite(scores)
    if not defined.any():
        raise ValueError(
            f'none of the {int(inside.sum())} genes of the prediction "{key}" has a score "{metric}": each is constant, '
            'as measured or as predicted. Pass metric="rmse", which is always defined.'
        )
    path = save_path(save, "score_vs_abundance")
    given = given_axes(ax, 1, 1, "scores against abundance")
    expression, spots = measured_spots(adata, layer, units, key)
    note = measured_note(int(reference_spots(adata, key).sum()))
    abundance = np.asarray(expression[spots].mean(axis=0)).ravel()
    drawn = defined & (abundance > 0)
    points = np.column_stack([abundance, scores])[drawn]
    with rc_context(PLOT_RC):
        axes = new_axes(COLUMN_IN) if given is None else given
        axes[0].set_xlabel(f"mean measured expression ({units_of(adata, key)})")
        title = _description(inside, defined, drawn) + (f"\n{note}" if note else "")
        axes[0].set_title(title, fontsize=TEXT_PT)
        _draw(axes[0], points, adata.var_names[drawn].astype(str).tolist(), label, n_label)
        return finish_single(axes[0], path, show=show, return_fig=return_fig, own_figure=given is None)


def _description(inside: np.ndarray, defined: np.ndarray, drawn: np.ndarray) -> str:
    """How many genes are drawn, and how many are not for what reason."""
    parts = [count(int(drawn.sum()), "gene")]
    for n, why in ((int((inside & ~defined).sum()), "undefined"), (int((defined & ~drawn).sum()), "never seen")):
        parts += [f"{n:,} {why}"] if n else []
    line = "\nline: median at similar abundance" if drawn.sum() >= 2 * GENES_PER_GROUP else ""
    return ", ".join(parts) + line


def _draw(ax: Axes, points: np.ndarray, genes: list[str], metric: Metric, n_label: int) -> None:
    """Points, the line through them, and the names of the best and worst genes."""
    draw_points(ax, points, alpha=0.5)
    line = _medians(points)
    if len(line) > 1:
        ax.plot(*line.T, color=text_colour(ax), linewidth=1.4, zorder=3)
    draw_guide(ax, metric, float(points[:, 1].min()), np.inf if metric.higher_is_better else float(points[:, 1].max()))
    # Most genes are rare: on a linear axis they would be one upright stripe.
    ax.set_xscale("log")
    plain_numbers(ax.xaxis)
    ax.margins(0.08)
    ax.set_ylabel(metric.label)
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
    lowest, highest = extremes(points[:, 1], n_label)
    mark_points(ax, points, [*lowest, *highest[::-1]], genes)


def _medians(points: np.ndarray) -> np.ndarray:
    """Median abundance and median score of groups of genes, from the rarest to the most abundant."""
    n_groups = min(len(points) // GENES_PER_GROUP, MAX_GROUPS)
    ordered = points[np.argsort(points[:, 0], kind="stable")]
    return np.array([np.median(group, axis=0) for group in np.array_split(ordered, max(n_groups, 1))])
