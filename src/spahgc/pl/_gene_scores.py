"""Scores of all genes by method, the best and the worst of them named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spahgc._keys import Uns
from spahgc._slides.tables import is_spatialdata, table_of
from spahgc._validate import quoted
from spahgc.pl._labels import label_column, label_width
from spahgc.pl._measured_part import measured_note
from spahgc.pl._output import finish_single, given_axes, new_axes, save_path, whole_figure
from spahgc.pl._scores import (
    MARKS,
    MAX_VECTOR_POINTS,
    PLOT_RC,
    POINTS,
    SLIDE,
    Metric,
    count,
    draw_guide,
    evaluated,
    extremes,
    find_metric,
    panel_of,
)
from spahgc.pl._style import COLUMN_IN, PAGE_IN, check_count, rc_context, shorten, text_colour
from spahgc.tl._cross_validation.cross_validate import CrossValidation
from spahgc.tl._prediction import reference_spots

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

UNNAMED = "prediction"
"""What a single table is called, which does not know its method."""
AXIS_IN, VIOLIN_IN = 0.65, 0.75
"""Width of the axis with its label, and of a violin with the room around it."""
HEIGHT_IN = 3.0
HALF_WIDTH, MAX_HALF_WIDTH_IN = 0.42, 0.5
"""Half the width of a violin, as a share of its room and in inches."""
GOLDEN = (np.sqrt(5) - 1) / 2
"""Multiples of it, modulo 1, spread evenly however many there are: points of similar scores lie side by side."""
N_OUTLINE = 200
"""Points of a violin's outline."""
AREA, ALPHA = (2.0, 9.0), (0.05, 0.6)
"""Least and greatest area of a point, square points, and its opacity; many points are small and pale."""
NAME_LETTERS = 13
"""Longest line of a method's name below its violin."""
MIN_VALUES = 3
"""Fewer values than this have no violin."""


def gene_scores(
    scores: CrossValidation | pd.DataFrame | Mapping[str, pd.DataFrame] | AnnData | SpatialData,
    *,
    key: str | Sequence[str] = "spahgc",
    metric: str = "pearson",
    methods: Sequence[str] | None = None,
    n_label: int = 3,
    table_key: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the scores of all genes, one violin a method.

    Every gene is a point, the bar is the median, and the best and worst genes carry their names. Below a violin stand
    the median, the number of genes and how many genes have no score: a correlation is not defined where a gene is
    constant, as measured or as predicted, and no number takes its place.

    Parameters
    ----------
    scores
        What `spahgc.tl.cross_validate` found, or its table of scores: a gene's score is then the mean over the slides on
        which it has one. Or a table of `spahgc.tl.evaluate`, or several of them by name. Or a slide, AnnData or
        SpatialData, on which `spahgc.tl.evaluate` has run.
    key
        Of a slide: key of the prediction, or several.
    metric
        ``"pearson"``, ``"spearman"``, ``"rmse"``, ``"mae"`` (not of a cross-validation), ``"variance_ratio"``,
        ``"moran_difference"`` or ``"ssim"``; :func:`spahgc.tl.evaluate` says what they are.
    methods
        Which methods to draw, in this order; ``None`` takes all.
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
        If a slide has no prediction or no evaluation under a key, or a table lacks the score.
    ValueError
        If a metric or method is not known, or there is no gene.
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.tl.evaluate, spahgc.tl.cross_validate : compute the scores.
    spahgc.pl.score_vs_abundance : the same scores by how abundant a gene is.

    Examples
    --------
    >>> import spahgc as sp
    >>> slides = sp.datasets.simulated(n_slides=3, n_patients=1, n_spots=40, n_genes=20)
    >>> for slide in slides:
    ...     slide.obsm["X_domains"] = slide.obsm["truth_domains"]
    >>> result = sp.tl.cross_validate(slides, methods=["ridge", "nearest"], embedding="X_domains")
    >>> ax = sp.pl.gene_scores(result, show=False)
    >>> [label.get_text().split()[0] for label in ax.get_xticklabels()]
    ['ridge', 'nearest']
    """
    shown = find_metric(metric)
    check_count("n_label", n_label, "genes to name, 0 for none", least=0)
    by_method = _chosen(_by_method(scores, key, metric, table_key), methods)
    path = save_path(save, "gene_scores")
    given = given_axes(ax, 1, 1, "scores of genes")
    with rc_context(PLOT_RC):
        letters = max((len(name) for values in by_method.values() for name in _extremes(values, n_label)), default=0)
        width = AXIS_IN + len(by_method) * (VIOLIN_IN + label_width(letters))
        axes = new_axes(float(np.clip(width, COLUMN_IN, PAGE_IN)), height=HEIGHT_IN) if given is None else given
        _draw(axes[0], by_method, shown, n_label, letters)
        axes[0].set_ylabel(shown.label + _over_slides(scores) + _beside_references(scores, key, table_key))
        return finish_single(axes[0], path, show=show, return_fig=return_fig, own_figure=given is None)


def _by_method(
    scores: CrossValidation | pd.DataFrame | Mapping[str, pd.DataFrame] | AnnData | SpatialData,
    key: str | Sequence[str],
    metric: str,
    table_key: str | None,
) -> dict[str, pd.Series]:
    """Score of every gene by method; NaN where it has none."""
    if isinstance(scores, CrossValidation):
        scores = scores.scores
    if isinstance(scores, pd.DataFrame):
        return _of_table(scores, metric)
    if isinstance(scores, Mapping) and not is_spatialdata(scores):
        wrong = [str(name) for name, table in scores.items() if not isinstance(table, pd.DataFrame)]
        if wrong:
            raise TypeError(f"scores holds {quoted(wrong)}, which are no tables. Pass those of spahgc.tl.evaluate.")
        return {str(name): _of_genes(table, metric, str(name)) for name, table in scores.items()}
    adata = table_of(scores, table_key, SLIDE)
    by_key = {}
    for one in [key] if isinstance(key, str) else list(key):
        values = evaluated(adata, one, metric)
        inside = panel_of(adata, one, values)
        by_key[one] = pd.Series(values[inside], index=adata.var_names[inside].astype(str))
    return by_key


def _of_table(table: pd.DataFrame, metric: str) -> dict[str, pd.Series]:
    if "method" not in table:
        return {UNNAMED: _of_genes(table, metric, UNNAMED)}
    return {
        str(name): _of_genes(part, metric, str(name))
        for name, part in table.groupby("method", sort=False, observed=True)
    }


def _of_genes(table: pd.DataFrame, metric: str, name: str) -> pd.Series:
    """Score of every gene, its mean over slides where there are several."""
    if metric not in table:
        raise KeyError(
            f'column "{metric}" not found in the scores of "{name}", columns are: {quoted(table.columns, limit=10)}. '
            "Pass a metric= that is there."
        )
    genes = table["gene"] if "gene" in table else table.index
    values = pd.Series(table[metric].to_numpy(dtype=np.float64), index=pd.Index(np.asarray(genes, dtype=str)))
    return values.groupby(level=0, sort=False).mean()


def _chosen(by_method: dict[str, pd.Series], methods: Sequence[str] | None) -> dict[str, pd.Series]:
    if isinstance(methods, str):
        raise TypeError(f'methods= must be a sequence of names, found the string "{methods}". Pass ["{methods}"].')
    wanted = list(by_method) if methods is None else [str(name) for name in methods]
    missing = [name for name in wanted if name not in by_method]
    if missing:
        raise ValueError(f"methods {quoted(missing)} not found, there are: {quoted(by_method, limit=20)}.")
    chosen = {name: by_method[name] for name in wanted}
    if not any(len(values) for values in chosen.values()):
        raise ValueError("there is no gene to draw: no method, or tables without a row. Pass scores of genes.")
    return chosen


def _over_slides(scores: object) -> str:
    """What the label adds where a score is a mean over slides."""
    table = scores.scores if isinstance(scores, CrossValidation) else scores
    n_slides = table["slide"].nunique() if isinstance(table, pd.DataFrame) and "slide" in table else 1
    return f"\nmean over {n_slides} slides" if n_slides > 1 else ""


def _beside_references(scores: object, key: str | Sequence[str], table_key: str | None) -> str:
    """What the label adds where measured spots were a reference of a prediction, and so are not scored."""
    if isinstance(scores, CrossValidation):
        return ""
    if isinstance(scores, pd.DataFrame):
        found = [scores.attrs.get(Uns.n_spots_reference, 0)]
    elif isinstance(scores, Mapping) and not is_spatialdata(scores):
        found = [table.attrs.get(Uns.n_spots_reference, 0) for table in scores.values()]
    else:
        adata = table_of(scores, table_key, SLIDE)
        found = [reference_spots(adata, one).sum() for one in ([key] if isinstance(key, str) else key)]
    # Of several predictions each may have had its own part.
    notes = dict.fromkeys(measured_note(int(n)) for n in found if n)
    return "".join(f"\n{note}" for note in notes)


def _extremes(values: pd.Series, n: int) -> list[str]:
    """Genes of the highest and lowest scores, no gene twice."""
    values = values.dropna()
    lowest, highest = extremes(values.to_numpy(), n)
    return [str(values.index[i]) for i in (*lowest, *highest)]


def _draw(ax: Axes, by_method: dict[str, pd.Series], metric: Metric, n_label: int, letters: int) -> None:
    """Violins first, so that the layout is known when the names are placed."""
    room = VIOLIN_IN / (VIOLIN_IN + label_width(letters))
    cell_in = ax.get_window_extent().width / whole_figure(ax).dpi / len(by_method)
    half_width = min(HALF_WIDTH * room, MAX_HALF_WIDTH_IN / cell_in)
    centres = [place + room / 2 for place in range(len(by_method))]
    points = {
        name: _draw_violin(ax, centre, half_width, by_method[name])
        for name, centre in zip(by_method, centres, strict=True)
    }
    ax.set_xticks(centres, [_description(name, values) for name, values in by_method.items()])
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(0, len(by_method))
    ax.margins(y=0.06)
    draw_guide(ax, metric, *ax.get_ylim())
    ax.set_ylim(ax.get_ylim())
    whole_figure(ax).draw_without_rendering()
    cell_in = ax.get_window_extent().width / whole_figure(ax).dpi / len(by_method)
    fitting = max(int((1 - room) * cell_in / label_width(1)), 4)
    for place, (name, values) in enumerate(by_method.items()):
        genes = _extremes(values, n_label)
        where = points[name].loc[genes].to_numpy()
        ax.scatter(where[:, 0], where[:, 1], s=AREA[1], color=MARKS, linewidths=0, zorder=3)
        label_column(ax, where, [shorten(gene, fitting) for gene in genes], place + room)


def _draw_violin(ax: Axes, centre: float, half_width: float, values: pd.Series) -> pd.DataFrame:
    """Outline, points and median of one method; returns where the points lie, a row a gene."""
    values = values.dropna().sort_values(kind="stable")
    y = values.to_numpy()
    width = np.zeros(len(y))
    if len(y) >= MIN_VALUES and np.ptp(y) > 0:
        grid, outline, width = _density(y)
        ax.fill_betweenx(
            grid, centre - half_width * outline, centre + half_width * outline, color=POINTS, alpha=0.18, linewidth=0
        )
    side = 2 * ((np.arange(len(y)) * GOLDEN) % 1) - 1
    x = centre + 0.92 * half_width * width * side
    area, alpha = np.clip(1500 / max(len(y), 1), *AREA), np.clip(600 / max(len(y), 1), *ALPHA)
    ax.scatter(x, y, s=area, color=POINTS, alpha=alpha, linewidths=0, zorder=2, rasterized=len(y) > MAX_VECTOR_POINTS)
    if len(y):
        ax.hlines(
            np.median(y), centre - half_width, centre + half_width, color=text_colour(ax), linewidth=1.4, zorder=4
        )
    return pd.DataFrame({"x": x, "y": y}, index=values.index)


def _density(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grid of scores, density there, and density at every score; the greatest is 1."""
    from scipy.stats import gaussian_kde

    grid = np.linspace(y[0], y[-1], N_OUTLINE)
    density = gaussian_kde(y)(grid)
    density = density / density.max()
    return grid, density, np.interp(y, grid, density)


def _description(name: str, values: pd.Series) -> str:
    """What stands below a violin."""
    from textwrap import wrap

    defined = values.dropna()
    # wrap breaks at hyphens and spaces; names of methods are joined by underscores, at which a break reads as well.
    lines = [line.replace("_ ", "_") for line in wrap(name.replace("_", "_ "), NAME_LETTERS)] or [name]
    if len(defined):
        # Adding zero takes the sign off a rounded -0.00.
        lines.append(f"median {round(float(np.median(defined)), 2) + 0.0:.2f}")
    lines.append(count(len(defined), "gene"))
    if len(defined) < len(values):
        lines.append(f"{len(values) - len(defined):,} undefined")
    return "\n".join(lines)
