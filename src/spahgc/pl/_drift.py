"""How a target differs from its references, one panel for each thing that was compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spahgc._validate import quoted
from spahgc.pl._output import finish, given_axes, save_path
from spahgc.pl._scores import PLOT_RC
from spahgc.pl._style import PAGE_IN, rc_context, shorten
from spahgc.pp._compare.limits import COLUMNS, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "stain_angle": "stain, degrees",
    "optical_density": "optical density",
    "brightness": "brightness, of 255",
    "sharpness": "sharpness, factor",
    "resolution": "resolution, factor",
    "distance": "distance of means",
    "beyond": "spots beyond",
}
"""Columns that are drawn, and what their axes are called."""
COLOURS = {False: "#4c72b0", True: "#c44e52"}
"""Of a difference within the limit, and of a large one."""
LIMIT_COLOUR = "#888888"
AREA = 28.0
"""Area of a point, square points."""
ACROSS = 4
"""Panels side by side."""
ROW_IN, PANEL_IN = 0.22, 0.9
"""Height of a reference in a panel, and of what else a panel has, inches."""


def drift(
    table: pd.DataFrame,
    *,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw how a target differs from its references in look.

    A panel for each thing that was compared, a point for each reference and one for all of them together. The line is the limit
    above which a difference is large; such points are red. The distance of means has none. What is not known of any reference has no panel.

    Parameters
    ----------
    table
        What :func:`spahgc.pp.compare` returned.
    ax
        Axes to draw on, one a panel. ``None`` makes a figure.
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
    The axes, one a panel; the figure with `return_fig`; ``None`` if the figure was shown.

    Raises
    ------
    TypeError
        If ``table`` is no table.
    KeyError
        If it lacks a column of a comparison.
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.pp.compare : computes the table.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=40, n_genes=20)
    >>> for slide in [target, *refs]:
    ...     slide.obsm["X_domains"] = slide.obsm["truth_domains"]
    >>> axes = sp.pl.drift(sp.pp.compare(target, refs, embedding="X_domains"), show=False)
    >>> axes[-1].get_xlabel()
    'spots beyond'
    """
    columns = _drawn(table)
    path = save_path(save, "drift")
    given = given_axes(ax, 1, len(columns), f"one for each of {quoted(columns, limit=len(columns))}")
    with rc_context(PLOT_RC):
        axes = _new_axes(len(columns), len(table)) if given is None else given
        for place, (panel, column) in enumerate(zip(axes, columns, strict=True)):
            _draw(panel, table, column, named=given is not None or place % ACROSS == 0)
        return finish(axes, path, show=show, return_fig=return_fig, own_figure=given is None)


def _drawn(table: pd.DataFrame) -> list[str]:
    """Columns of which at least one reference knows something."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"drift draws the table that spahgc.pp.compare(target, refs) returns, found {type(table).__name__}. Pass that table."
        )
    missing = [column for column in LABELS if column not in table]
    if missing:
        raise KeyError(
            f"columns {quoted(missing)} not found in the table, columns are: {quoted(table.columns, limit=10)}. Pass what "
            "spahgc.pp.compare(target, refs) returned."
        )
    return [column for column in LABELS if table[column].notna().any()]


def _draw(ax: Axes, table: pd.DataFrame, column: str, *, named: bool) -> None:
    _, limit, factor = COLUMNS.get(column, ("", np.inf, False))
    values = table[column].to_numpy(dtype=np.float64)
    rows = np.arange(len(table))
    colours = [COLOURS[size(value, factor) > limit] for value in values]
    for line in _lines(limit, factor, below=bool((values < 0).any())):
        ax.axvline(line, color=LIMIT_COLOUR, linestyle="--", linewidth=0.8)
    ax.scatter(values, rows, s=AREA, c=colours, zorder=2, clip_on=False)
    if factor:
        ax.set_xscale("log")
        ax.minorticks_off()
        ax.set_xticks([1 / limit, 1, limit], [f"{1 / limit:.2g}", "1", f"{limit:.2g}"])
    elif not (values < 0).any():
        ax.set_xlim(left=0)
    ax.set_xlabel(LABELS[column])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_yticks(rows, [shorten(str(name)) for name in table.index] if named else [""] * len(rows))


def _lines(limit: float, factor: bool, *, below: bool) -> tuple[float, ...]:
    """Where a limit is drawn: on the side of 0 on which values lie, of a factor on both sides of 1."""
    if not np.isfinite(limit):
        return ()
    if factor:
        return limit, 1 / limit
    return (limit, -limit) if below else (limit,)


def _new_axes(n_panels: int, n_rows: int) -> list[Axes]:
    from matplotlib import pyplot as plt

    across = min(n_panels, ACROSS)
    down = -(-n_panels // across)
    figure = plt.figure(figsize=(PAGE_IN, down * (PANEL_IN + ROW_IN * n_rows)), layout="constrained")
    cells = figure.add_gridspec(down, across)
    return [figure.add_subplot(cells[place // across, place % across]) for place in range(n_panels)]
