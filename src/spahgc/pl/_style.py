"""How figures look: sizes of text and panels, the shared colour scale, the wording of titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.cm import ScalarMappable
    from matplotlib.transforms import Bbox

TITLE_PT = 8.5
TEXT_PT = 7.5
"""Text sizes in points at the figure's own width; at 89 mm, one column of a journal, 5 pt and more remain."""

WIDTH_PAIR_IN = 5.0
WIDTH_SINGLE_IN = 3.5
"""Width of a figure with two panels a row, and with one."""
COLOUR_BAR_IN = 0.75
"""Width that the colour bar takes with its numbers and its label."""
TITLE_LINE_IN = 0.14
ROW_ROOM_IN = 0.1
SCALE_BAR_IN = 0.25
"""Heights of a title's line, of the room between rows, and of the scale bar below the last row."""
PANEL_HEIGHT_IN = (1.6, 3.2)
"""Least and greatest height of a panel; the least holds the label of the colour bar."""

TITLE_CHARS = 32
"""Longest title that fits above a panel in one line."""
ROBUST_PERCENTILES = (1.0, 99.0)
"""Range of the values that the colours span where the caller names no limits."""

COLOUR_BAR_ASPECT = 22.0
COLOUR_BAR_PAD = 0.02
COLOUR_BAR_HEIGHT_IN = 1.3
COLOUR_BAR_TICKS = 6
"""Colour bar: height over width, distance as a share of the row's width, least height, most intervals of its axis."""

RC: Any = {
    "font.size": TEXT_PT,
    "axes.titlesize": TITLE_PT,
    "axes.labelsize": TEXT_PT,
    "ytick.labelsize": TEXT_PT,
    # Styles that draw a grid would draw it over the tissue and the colour bar.
    "axes.grid": False,
    # Text stays text in vector files, so that a journal can edit it.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
}
"""Settings of matplotlib that hold while a figure is drawn and saved."""


def figure_size(n_rows: int, n_columns: int, aspect: float, title_lines: int) -> tuple[float, float]:
    """Width and height of the figure in inches, for panels of that height over width."""
    width = WIDTH_PAIR_IN if n_columns > 1 else WIDTH_SINGLE_IN
    panel_width = (width - COLOUR_BAR_IN) / n_columns
    panel_height = float(np.clip(panel_width * aspect, *PANEL_HEIGHT_IN))
    return width, n_rows * (panel_height + title_lines * TITLE_LINE_IN + ROW_ROOM_IN) + SCALE_BAR_IN


def titles(genes: Sequence[str], scores: Sequence[float | None], measured: bool) -> list[list[str]]:
    """Titles of all panels, a list a gene; they have one line, or all of the predictions' have two.

    Parameters
    ----------
    genes
        Names of the genes.
    scores
        PCC of each; NaN where a constant gene has none, ``None`` where nothing is known.
    measured
        Whether the measurement has a panel.
    """
    notes = [_note(score) for score in scores]
    predicted = [f"{gene}, predicted" for gene in genes]
    longest = max(len(f"{name} {note}") for name, note in zip(predicted, notes, strict=True))
    gap = "\n" if longest > TITLE_CHARS else " "
    full = [f"{name}{gap}{note}" if note else name for name, note in zip(predicted, notes, strict=True)]
    return [[f"{gene}, measured", title] if measured else [title] for gene, title in zip(genes, full, strict=True)]


def _note(score: float | None) -> str:
    if score is None:
        return ""
    # Adding zero takes the sign off a rounded -0.00.
    return "(PCC not defined: constant)" if np.isnan(score) else f"(PCC {round(score, 2) + 0.0:.2f})"


def shared_limits(panels: Sequence[np.ndarray], vmin: float | None, vmax: float | None) -> tuple[float, float, str]:
    """Limits of the colours over all panels of a gene, and on which side values lie beyond them.

    Parameters
    ----------
    panels
        Values of each panel; NaN are left out.
    vmin, vmax
        The caller's limits, which win.

    Returns
    -------
    Lower limit, upper limit, and ``"neither"``, ``"min"``, ``"max"`` or ``"both"``, as matplotlib's ``extend``.
    """
    values = np.concatenate([panel[np.isfinite(panel)] for panel in panels]).astype(np.float64)
    low, high = (float(limit) for limit in np.percentile(values, ROBUST_PERCENTILES))
    if low == high:
        # A gene seen in fewer than one spot of a hundred has both percentiles at zero.
        low, high = float(values.min()), float(values.max())
    low, high = low if vmin is None else float(vmin), high if vmax is None else float(vmax)
    if low >= high:
        low, high = (high - 1.0, high) if vmin is None and vmax is not None else (low, low + 1.0)
    below, above = bool(values.min() < low), bool(values.max() > high)
    return (
        low,
        high,
        {(False, False): "neither", (True, False): "min", (False, True): "max"}.get((below, above), "both"),
    )


def draw_colour_bar(row: Sequence[Axes], mappable: ScalarMappable, *, label: str, extend: str) -> None:
    """Draw one colour bar right of a row of panels, as high as the panels are, or as its numbers need."""
    from matplotlib.colorbar import make_axes
    from matplotlib.ticker import MaxNLocator
    from matplotlib.transforms import Bbox

    last = row[-1]
    bar_ax, _ = make_axes(list(row), location="right", aspect=COLOUR_BAR_ASPECT, pad=COLOUR_BAR_PAD)

    def beside_panel(ax: Any, renderer: RendererBase) -> Bbox:
        # A panel of equal aspect is lower than its cell, and only the drawing tells by how much.
        cell, panel = ax.get_position(original=True), last.get_position()
        least = COLOUR_BAR_HEIGHT_IN * last.figure.dpi / last.figure.bbox.height
        height = min(max(panel.height, least), cell.height)
        bottom = min(max((panel.y0 + panel.y1 - height) / 2, cell.y0), cell.y1 - height)
        return Bbox.from_extents(cell.x0, bottom, cell.x1, bottom + height)

    bar_ax.set_axes_locator(beside_panel)
    bar = last.figure.colorbar(
        mappable,
        cax=bar_ax,
        label=label,
        extend=extend,
        ticks=MaxNLocator(COLOUR_BAR_TICKS, steps=[1, 2, 5, 10]),
        extendfrac=0.03,
    )
    bar.outline.set_visible(False)
