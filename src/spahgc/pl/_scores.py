"""What the figures of numbers share: words for the scores, the look of axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._keys import UNITS, Var
from spahgc._slides.categories import CATEGORY_COLOURS
from spahgc._slides.measured import log_expression, zero_spots
from spahgc._slides.tissue import spots_on_tissue
from spahgc._validate import check_anndata
from spahgc.pl._gene_values import check_predicted
from spahgc.pl._style import RC
from spahgc.tl._prediction import reference_spots

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

LABEL_PT = 6.5
"""Size of gene names beside their points."""

DECADES_IN_FULL, MAX_TICKS = 2.0, 6
"""Decades up to which a logarithmic axis has three numbers each, and the most numbers that one of more has."""
POINTS, MARKS, QUIET = CATEGORY_COLOURS[0], CATEGORY_COLOURS[5], "#707070"
"""Points, what is marked among them, and lines that guide the eye; told apart by colour-blind readers too."""
POINT_AREA, MARK_AREA = 7.0, 12.0
"""Areas of a point and of one that is marked, square points."""
MAX_VECTOR_POINTS = 3000
"""More points than this become pixels in vector files, which no viewer would open otherwise."""

PLOT_RC: Any = RC | {
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}
"""Settings of matplotlib that hold while a figure with axes is drawn and saved."""

SLIDE = "the slide"


class Metric(NamedTuple):
    """A score of a gene.

    Parameters
    ----------
    label
        How an axis calls it.
    higher_is_better
        Whether it is a correlation and no error.
    line
        Where a line guides the eye: at 0 for correlations and differences, at 1 for ratios; none for errors.
    """

    label: str
    higher_is_better: bool
    line: float | None = None


def find_metric(metric: str, units: str = UNITS) -> Metric:
    """The score of this name; refuses what `spahgc.tl.evaluate` does not compute."""
    known = {
        "pearson": Metric("PCC with the measurement", True, 0.0),
        "spearman": Metric("Spearman correlation with the measurement", True, 0.0),
        "rmse": Metric(f"RMSE ({units})", False),
        "mae": Metric(f"mean absolute error ({units})", False),
        "variance_ratio": Metric("variance, predicted / measured", False, 1.0),
        "moran_difference": Metric("Moran's I, predicted less measured", False, 0.0),
        "ssim": Metric("SSIM with the measurement", True, 0.0),
    }
    if metric not in known:
        raise ValueError(f'metric="{metric}" is not known. Choose one of {", ".join(known)}.')
    return known[metric]


def evaluated(adata: AnnData, key: str, metric: str) -> np.ndarray:
    """Scores that `spahgc.tl.evaluate` wrote, one a gene of the object; refuses a slide that it has not seen."""
    check_anndata(adata, SLIDE)
    column = Var.score(key, metric)
    if column not in adata.var:
        check_predicted(adata, key)
        raise KeyError(
            f'var["{column}"] not found: the prediction "{key}" was not compared with a measurement. '
            f'Run spahgc.tl.evaluate(adata, key="{key}") first.'
        )
    return adata.var[column].to_numpy(dtype=np.float64)


def panel_of(adata: AnnData, key: str, scores: np.ndarray) -> np.ndarray:
    """Which genes are in the panel, boolean: those that ``var`` names, or that have a score."""
    column = Var.panel(key)
    return adata.var[column].to_numpy(dtype=bool) if column in adata.var else np.isfinite(scores)


def measured_spots(adata: AnnData, layer: str | None, units: str | None, key: str) -> tuple[csr_matrix, np.ndarray]:
    """Measured expression, spots x genes, and the numbers of the spots with which a prediction is compared.

    These lie on the tissue, have counts and were no reference of it; a slide without any is refused.
    """
    expression = log_expression(adata, layer=layer, units=units, label=SLIDE)
    on_tissue = spots_on_tissue(adata, SLIDE)
    spots = np.flatnonzero(~zero_spots(expression) & (True if on_tissue is None else on_tissue))
    if not len(spots):
        raise ValueError(f"{SLIDE} holds no counts: nothing was measured on it. Pass layer= if they are not in X.")
    spots = spots[~reference_spots(adata, key)[spots]]
    if not len(spots):
        raise ValueError(
            f'no spot of {SLIDE} was both measured and predicted under the key "{key}": all that have counts were a '
            "reference. There is nothing to compare."
        )
    return expression, spots


def extremes(values: np.ndarray, n: int) -> tuple[list[int], list[int]]:
    """Positions of the `n` lowest and of the `n` highest values, ascending each; none twice where there are few."""
    order = np.argsort(values, kind="stable").tolist()
    n = min(n, len(order) // 2)
    return order[:n], order[len(order) - n :]


def count(n: int, thing: str) -> str:
    """A number and what it counts: 1 gene, 2 genes."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def draw_points(ax: Axes, points: np.ndarray, *, alpha: float) -> None:
    """A point a gene; `points` holds data coordinates, genes x 2."""
    x, y = points.T
    as_pixels = len(points) > MAX_VECTOR_POINTS
    ax.scatter(x, y, s=POINT_AREA, color=POINTS, alpha=alpha, linewidths=0, zorder=2, rasterized=as_pixels)


def draw_guide(ax: Axes, metric: Metric, low: float, high: float) -> None:
    """A line where the score has one (0 of a correlation, below which a prediction is worse than none), if it is within."""
    if metric.line is None or not low < metric.line < high:
        return
    ax.axhline(metric.line, color=QUIET, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0.5)


def plain_numbers(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers: at 1, 2, 5, 10 and so on, of more than two decades at each whole one."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    class Decades(LogLocator):
        def tick_values(self, vmin: float, vmax: float) -> Any:
            # More numbers than these would be printed over each other.
            low, high = sorted((vmin, vmax))
            few = low > 0 and high > low * 10.0**DECADES_IN_FULL
            subs, most = ((1,), MAX_TICKS) if few else ((1, 2, 5), None)
            return LogLocator(subs=subs, numticks=most).tick_values(vmin, vmax)

    axis.set_major_locator(Decades())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
