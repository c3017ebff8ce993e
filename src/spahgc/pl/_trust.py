"""Whether a prediction keeps what it promised: expected against achieved PCC, stated spread against error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from spahgc._keys import Layers, Uns, Var
from spahgc._slides.tables import table_of
from spahgc._spots.rows import blocks_of
from spahgc.pl._gene_values import check_predicted, dense, units_of
from spahgc.pl._labels import mark_points
from spahgc.pl._measured_part import measured_note
from spahgc.pl._output import finish, given_axes, new_axes, save_path
from spahgc.pl._scores import (
    MAX_VECTOR_POINTS,
    PLOT_RC,
    POINTS,
    QUIET,
    SLIDE,
    count,
    draw_points,
    evaluated,
    extremes,
    measured_spots,
    panel_of,
)
from spahgc.pl._style import check_count, rc_context
from spahgc.tl._prediction import prediction_record, reference_spots
from spahgc.tl._trusted import MIN_PCC, trusted_genes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

CALIBRATIONS = ("error", "share", "coverage")
"""What the second panel may show."""
N_BINS = 12
"""Groups of values of similar spread."""
MAX_SAMPLE = 500_000
"""Values from which the bounds of the groups are taken, evenly spaced over all."""
EXPECTED = np.round(np.arange(0.05, 1.0, 0.05), 2)
"""Shares of values: what normal errors would have within so many spreads."""

N_RESAMPLES = 200
"""Resamples of the spots for the interval of a coverage."""
FDR = 0.1
"""Rate of false discoveries at which genes are trusted in the title."""

WIDTH_IN, HEIGHT_IN = 5.9, 2.9
"""Two square panels with their labels."""
N_TICKS = 5
"""Most intervals of an axis, the same on both of a panel."""
MARGIN = 0.05
"""Room around the points, as a share of their range."""


@dataclass(frozen=True)
class GenePCC:
    """Expected and achieved PCC of the genes that have both, and how many have not.

    Parameters
    ----------
    genes
        Names.
    expected, low, high
        PCC on references held out, and its interval.
    achieved
        PCC with the slide's own measurement.
    n_undefined
        Genes of the panel that lack one of the two.
    """

    genes: list[str]
    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray
    achieved: np.ndarray
    n_undefined: int


@dataclass(frozen=True)
class ValuesWithSpread:
    """Values that were measured and predicted with a spread.

    Parameters
    ----------
    measured
        Spots x genes, CSR.
    predicted, spread
        The same in dense arrays, in the same units.
    spots, genes
        Which of them are compared, by number.
    """

    measured: csr_matrix
    predicted: np.ndarray
    spread: np.ndarray
    spots: np.ndarray
    genes: np.ndarray

    @property
    def n(self) -> int:
        """Number of values."""
        return len(self.spots) * len(self.genes)

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Absolute errors and spreads, flat, of some spots at a time."""
        for block in blocks_of(len(self.spots)):
            rows = self.spots[block]
            measured = self.measured[rows][:, self.genes].toarray()
            corner = np.ix_(rows, self.genes)
            error, spread = np.abs(measured - self.predicted[corner]), self.spread[corner]
            known = np.isfinite(error) & (spread > 0)
            yield error[known], spread[known]


def trust(
    adata: AnnData | SpatialData,
    *,
    key: str = "spahgc",
    calibration: str | None = None,
    layer: str | None = None,
    units: str | None = None,
    n_label: int = 3,
    table_key: str | None = None,
    ax: Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw whether a prediction is as good as was promised without looking at the slide.

    Left, a point a gene: the PCC that the references led to expect, with the 95 % interval of that mean, against the PCC
    that was achieved. Genes below the diagonal were promised too much. The interval is that of a mean over references; a
    single slide may well fall outside it. The genes furthest from the diagonal carry their names.

    The title says for whom this was promised, and how many of the genes that :func:`spahgc.tl.trusted_genes` returns at a rate
    of false discoveries of 10 % have a PCC of at least 0.2.

    Right, the values: the share of measured values inside their intervals, by the level of these, with its 95 % interval.
    On the diagonal intervals say the truth, below it they are too narrow.

    Parameters
    ----------
    adata
        A slide, AnnData or SpatialData, with a prediction of ``preset="default"``, on which `spahgc.tl.evaluate` has run.
    key
        Key of the prediction.
    calibration
        What the right panel shows: ``"coverage"``, the share of measured values inside their intervals by level, with a
        bootstrap over spots; ``"error"``, root mean square of the errors in groups of similar stated spread, above the diagonal
        where the prediction is worse than it claims; or ``"share"``, the share of measured values within so many spreads against
        that of normal errors. Counts have no normal errors, so the last is off the diagonal for rare genes even where the spread
        is right. ``None``: ``"coverage"``, and ``"error"`` for the prediction of an earlier version, which tells no
        intervals.
    layer
        Layer with the measured counts, as `spahgc.tl.evaluate` was given it; ``None`` takes ``X``. Spots without a
        single count are left out.
    units
        What its values are, as in `spahgc.tl.evaluate`; ``None`` finds out.
    n_label
        Genes to name on either side of the diagonal, 0 for none.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    ax
        Two axes to draw on. ``None`` makes a figure.
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
    The two axes; the figure with `return_fig`; ``None`` if the figure was shown.

    Raises
    ------
    KeyError
        If there is no prediction or no evaluation under this key, or if the prediction says nothing of trust: a baseline
        or ``preset="paper"`` made it.
    ValueError
        If no gene has both scores, the slide holds no measurement, or `calibration` is not known.
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.tl.trusted_genes : the genes that are expected to be predicted well.
    spahgc.tl.evaluate : computes what was achieved.

    Examples
    --------
    >>> import spahgc as sp
    >>> slide, *refs = sp.datasets.simulated(n_slides=3, n_spots=60, n_genes=30, n_domains=3)
    >>> for one in [slide, *refs]:
    ...     one.obsm["X_domains"] = one.obsm["truth_domains"]
    >>> linear = sp.Parameters(n_axes=3, line=True, epochs=0)
    >>> sp.tl.predict(slide, refs, genes="all", embedding="X_domains", preset=linear)
    >>> scores = sp.tl.evaluate(slide)
    >>> genes, spread = sp.pl.trust(slide, show=False)
    >>> genes.get_ylabel()
    'achieved PCC'
    """
    if calibration is not None and calibration not in CALIBRATIONS:
        raise ValueError(f'calibration="{calibration}" is not known. Choose one of {", ".join(CALIBRATIONS)}.')
    check_count("n_label", n_label, "genes to name, 0 for none", least=0)
    adata = table_of(adata, table_key, SLIDE)
    pcc = _gene_pcc(adata, key)
    calibration = calibration or ("coverage" if tells_intervals(adata, key) else "error")
    hits = _hits(adata, key)
    path = save_path(save, "trust")
    given = given_axes(ax, 1, 2, "PCC of genes, spread")
    values = _values(adata, key, layer, units)
    units = units_of(adata, key)
    with rc_context(PLOT_RC):
        axes = new_axes(WIDTH_IN, 2, HEIGHT_IN) if given is None else given
        if calibration == "error":
            _draw_errors(axes[1], error_by_spread(values), values.n, units)
        elif calibration == "coverage":
            _draw_coverage(axes[1], coverage_by_level(values, *interval_widths(adata, key, values.genes)), values.n)
        else:
            _draw_shares(axes[1], share_by_expected(values), values.n)
        _draw_pcc(axes[0], pcc, n_label, hits)
        note = measured_note(int(reference_spots(adata, key).sum()))
        if note:
            axes[1].set_title(f"{axes[1].get_title()}\n{note}")
        return finish(axes, path, show=show, return_fig=return_fig, own_figure=given is None)


def _gene_pcc(adata: AnnData, key: str) -> GenePCC:
    """What was expected and what was achieved; refuses a prediction without either."""
    check_predicted(adata, key)
    columns = Var.cv_pcc(key), Var.cv_pcc_low(key), Var.cv_pcc_high(key)
    missing = [f'var["{column}"]' for column in columns if column not in adata.var]
    missing += [] if Layers.spread(key) in adata.layers else [f'layers["{Layers.spread(key)}"]']
    if missing:
        raise KeyError(
            f'{", ".join(missing)} not found: the prediction "{key}" says nothing of trust. A baseline, '
            'preset="paper" or another tool made it. Run spahgc.tl.predict(adata, refs) with method="spahgc" and '
            'preset="default".'
        )
    achieved = evaluated(adata, key, "pearson")
    expected, low, high = (adata.var[column].to_numpy(dtype=np.float64) for column in columns)
    both = np.isfinite(expected) & np.isfinite(achieved)
    if not both.any():
        raise ValueError(
            f'no gene of the prediction "{key}" has both an expected and an achieved PCC: each is constant on the '
            "references, on this slide or as predicted. There is nothing to compare."
        )
    inside = panel_of(adata, key, achieved)
    genes = adata.var_names[both].astype(str).tolist()
    return GenePCC(genes, expected[both], low[both], high[both], achieved[both], int((inside & ~both).sum()))


def _values(adata: AnnData, key: str, layer: str | None, units: str | None) -> ValuesWithSpread:
    """Measured and predicted values of the panel, over the spots that have counts."""
    measured, spots = measured_spots(adata, layer, units, key)
    spread = dense(adata.layers[Layers.spread(key)])
    return ValuesWithSpread(
        measured=measured,
        predicted=dense(adata.layers[key]),
        spread=spread,
        spots=spots,
        genes=np.flatnonzero(np.isfinite(spread).any(axis=0)),
    )


def tells_intervals(adata: AnnData, key: str) -> bool:
    """Whether a prediction says how wide its intervals are."""
    told = prediction_record(adata, key).get(Uns.trust, {})
    return "interval_widths" in told and Var.kind(key) in adata.var


def interval_widths(adata: AnnData, key: str, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels, and half widths of the intervals of some genes in spreads, levels x genes."""
    if not tells_intervals(adata, key):
        raise KeyError(
            f'calibration="coverage" needs intervals, and the prediction "{key}" tells none: it comes from an earlier version. '
            'Predict again, or pass calibration="error".'
        )
    told = prediction_record(adata, key)[Uns.trust]
    kinds = adata.var[Var.kind(key)].to_numpy(dtype=np.float64)[genes].astype(np.int64)
    return np.asarray(told["interval_levels"]), np.asarray(told["interval_widths"])[:, kinds]


def coverage_by_level(values: ValuesWithSpread, levels: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Level, share of values inside, and its 95 % interval by a bootstrap over spots, levels x 4."""
    inside = np.zeros((len(levels), len(values.spots)))
    for block in blocks_of(len(values.spots)):
        rows = values.spots[block]
        corner = np.ix_(rows, values.genes)
        error = np.abs(values.measured[rows][:, values.genes].toarray() - values.predicted[corner])
        apart = error / values.spread[corner]
        inside[:, block] = [(apart <= width).mean(axis=1) for width in widths]
    rng, n = np.random.default_rng(0), len(values.spots)
    drawn = np.array([inside[:, rng.integers(n, size=n)].mean(axis=1) for _ in range(N_RESAMPLES)])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return np.column_stack([levels, inside.mean(axis=1), low, high])


def _hits(adata: AnnData, key: str) -> str:
    """For whom was promised, and how many trusted genes kept it, for the title; empty where nothing says so."""
    told = prediction_record(adata, key).get(Uns.trust, {})
    if "z_residuals" not in told:
        return ""
    trusted = trusted_genes(adata, key=key, fdr=FDR, min_pcc=MIN_PCC)
    achieved = adata.var[Var.score(key, "pearson")].loc[trusted].to_numpy(dtype=np.float64)
    kept = f"{int((achieved >= MIN_PCC).sum())} of {count(len(trusted), 'trusted gene')} reach {MIN_PCC}"
    return f"\n{told['for']}\n{kept if trusted else 'no gene is trusted'}"


def error_by_spread(values: ValuesWithSpread) -> np.ndarray:
    """Root mean square of spread and of error in groups of similar spread, groups x 2; those without a value left out.

    A calibrated spread gives two equal columns, whatever the shape of the errors.
    """
    step = ceil(values.n / MAX_SAMPLE)
    sample = np.concatenate([spread[::step] for _, spread in values.parts()])
    bounds = np.unique(np.quantile(sample, np.linspace(0, 1, N_BINS + 1)[1:-1])) if len(sample) else np.zeros(0)
    sums = np.zeros((3, len(bounds) + 1))
    for error, spread in values.parts():
        group = np.searchsorted(bounds, spread, side="right")
        for row, numbers in enumerate((np.ones(len(spread)), np.square(spread), np.square(error))):
            sums[row] += np.bincount(group, weights=numbers, minlength=len(bounds) + 1)
    n, squared_spread, squared_error = sums[:, sums[0] > 0]
    return np.sqrt(np.column_stack([squared_spread / n, squared_error / n]))


def share_by_expected(values: ValuesWithSpread) -> np.ndarray:
    """Expected and found share of values within so many spreads, shares x 2.

    Expected is what normal errors would have. Counts are not normal: most of a rare gene's are zero, and then more values
    than expected are close to the prediction although the spread is right.
    """
    from scipy.stats import norm

    limits = norm.ppf((1 + EXPECTED) / 2)
    inside, total = np.zeros(len(limits)), 0
    for error, spread in values.parts():
        inside += np.searchsorted(np.sort(error / spread), limits, side="right")
        total += len(error)
    return np.column_stack([EXPECTED, inside / max(total, 1)])


def _draw_pcc(ax: Axes, pcc: GenePCC, n_label: int, hits: str) -> None:
    """Expected against achieved PCC, the names of the genes that are furthest from the diagonal."""
    points = np.column_stack([pcc.expected, pcc.achieved])
    as_pixels = len(points) > MAX_VECTOR_POINTS
    bars = ax.hlines(pcc.achieved, pcc.low, pcc.high, color=QUIET, alpha=0.25, linewidth=0.5, zorder=1)
    bars.set_rasterized(as_pixels)
    draw_points(ax, points, alpha=0.6)
    # The intervals of a few rare genes are wide; points decide what is shown.
    _diagonal(ax, points)
    rest = f", {pcc.n_undefined:,} undefined" if pcc.n_undefined else ""
    ax.set_title(f"{count(len(points), 'gene')}{rest}{hits}")
    ax.set_xlabel("PCC expected from references held out\n(bars: 95 % interval)")
    ax.set_ylabel("achieved PCC")
    lowest, highest = extremes(points[:, 1] - points[:, 0], n_label)
    mark_points(ax, points, [*lowest, *highest], pcc.genes)


def _draw_errors(ax: Axes, groups: np.ndarray, n_values: int, units: str) -> None:
    """Root mean square error of groups of values against their stated spread."""
    ax.plot(*groups.T, color=POINTS, marker="o", markersize=3.5, linewidth=1, zorder=2)
    _diagonal(ax, groups)
    ax.set_title(f"{n_values:,} values in {count(len(groups), 'group')}")
    ax.set_xlabel(f"stated spread\n({units})")
    ax.set_ylabel("root mean square error")


def _draw_coverage(ax: Axes, coverage: np.ndarray, n_values: int) -> None:
    """Share of values inside their intervals by the level of these."""
    level, share, low, high = coverage.T
    ax.fill_between(level, low, high, color=POINTS, alpha=0.25, linewidth=0, zorder=1)
    ax.plot(level, share, color=POINTS, marker="o", markersize=2.5, linewidth=1, zorder=2)
    _diagonal(ax, np.array([[0.0, 0.0], [1.0, 1.0]]))
    ax.set_title(f"{n_values:,} values")
    ax.set_xlabel("level of the interval\n(band: 95 % interval over spots)")
    ax.set_ylabel("share of measured values inside")


def _draw_shares(ax: Axes, shares: np.ndarray, n_values: int) -> None:
    """Share of values within so many spreads against that of normal errors."""
    ax.plot(*shares.T, color=POINTS, marker="o", markersize=2.5, linewidth=1, zorder=2)
    _diagonal(ax, np.array([[0.0, 0.0], [1.0, 1.0]]))
    ax.set_title(f"{n_values:,} values")
    ax.set_xlabel("share of normal errors\nwithin so many spreads")
    ax.set_ylabel("share of measured values")


def _diagonal(ax: Axes, points: np.ndarray) -> None:
    """One range for both axes, and the line on which both are equal."""
    from matplotlib.ticker import MaxNLocator

    low, high = float(points.min()), float(points.max())
    room = MARGIN * (high - low) or MARGIN
    limits = low - room, high + room
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(N_TICKS, steps=[1, 2, 2.5, 5, 10]))
    ax.plot(limits, limits, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.5)
