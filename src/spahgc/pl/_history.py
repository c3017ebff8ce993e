"""Losses of a training, epoch by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spahgc._keys import Uns
from spahgc._slides.categories import CATEGORY_COLOURS
from spahgc._slides.tables import table_of
from spahgc._validate import check_anndata
from spahgc.model import SpaHGC
from spahgc.pl._gene_values import check_predicted
from spahgc.pl._output import finish_single, given_axes, new_axes, save_path
from spahgc.pl._scores import (
    PLOT_RC,
    SLIDE,
    count,
    plain_numbers,
)
from spahgc.pl._style import COLUMN_IN, TEXT_PT, rc_context, text_colour
from spahgc.tl._prediction import prediction_record

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

TERMS = {
    "total": "total",
    "expression": "expression",
    "align_target": "alignment, target",
    "align_reference": "alignment, references",
}
"""How the terms of the loss are called."""
LINE_PT = (1.2, 0.8)
"""Width of a line where there is one network, and where there are several."""
MAX_MARKED = 12
"""So few epochs are marked by points, since a line of one or two would not be seen."""


def history(
    model: SpaHGC | AnnData | SpatialData,
    *,
    key: str = "spahgc",
    log: bool = False,
    table_key: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the losses of the training, epoch by epoch.

    A line is one term of the loss of one network, the mean over the reference slides in the role of the target, from
    masked features: the expression loss (mean square error plus one minus the mean PCC of the genes), and the two
    alignment losses where they have a weight. All of them are losses of the training; no slide is held out, so they do not tell how good a
    prediction of a new slide is (`spahgc.tl.cross_validate` does). They tell whether the training has come to rest.
    Several networks have a line each; one that ran for fewer epochs than were asked for ends with a cross.

    Parameters
    ----------
    model
        A trained model, or a slide, AnnData or SpatialData, with a prediction of one.
    key
        Of a slide: key of the prediction.
    log
        Logarithmic axis of losses.
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
        If there is no prediction under this key, or if its record holds no losses: a baseline or an earlier version made
        it.
    ValueError
        If no network was trained (``epochs=0``).
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.tl.fit : trains a model; its attribute ``history`` holds the same numbers.

    Examples
    --------
    >>> import spahgc as sp
    >>> refs = sp.datasets.simulated(n_slides=2, n_spots=40, n_genes=30)
    >>> for slide in refs:
    ...     slide.obsm["X_domains"] = slide.obsm["truth_domains"]
    >>> small = sp.Parameters(width=16, layers=1, heads=2, epochs=3)
    >>> model = sp.tl.fit(refs, embedding="X_domains", preset=small)
    >>> ax = sp.pl.history(model, show=False)
    >>> ax.get_xlabel()
    'epoch'
    """
    record = model.record() if isinstance(model, SpaHGC) else _record_of(table_of(model, table_key, SLIDE), key)
    losses = _losses(record, "the model" if isinstance(model, SpaHGC) else f'the prediction "{key}"')
    path = save_path(save, "history")
    given = given_axes(ax, 1, 1, "losses")
    with rc_context(PLOT_RC):
        axes = new_axes(COLUMN_IN) if given is None else given
        _draw(axes[0], losses, int(record.get("parameters", {}).get("epochs", 0)), log)
        return finish_single(axes[0], path, show=show, return_fig=return_fig, own_figure=given is None)


def _record_of(adata: AnnData, key: str) -> dict[str, Any]:
    check_anndata(adata, SLIDE)
    record = prediction_record(adata, key)
    if not record:
        check_predicted(adata, key)
    return record


def _losses(record: dict[str, Any], label: str) -> pd.DataFrame:
    """A row an epoch of each network; refuses a record without any."""
    if record.get("epochs_trained", 1) == 0:
        raise ValueError(
            f"{label} has no network (epochs=0), so there was no training. Fit with epochs above 0 to see one."
        )
    if Uns.losses not in record:
        raise KeyError(
            f"losses not found in the record of {label}: a baseline, an earlier version of spahgc or another tool made "
            'it. Run spahgc.tl.predict(adata, refs) with method="spahgc" again.'
        )
    losses = pd.DataFrame({name: np.asarray(values) for name, values in record[Uns.losses].items()})
    losses["total"] = losses[_terms(losses)].sum(axis=1)
    # Epochs count from 1 in each network, one network after another.
    losses["network"] = (losses["epoch"] == 1).cumsum()
    return losses


def _terms(losses: pd.DataFrame) -> list[str]:
    """The terms of the loss, those that have a name here first."""
    known = [name for name in TERMS if name != "total" and name in losses]
    return known + [str(name) for name in losses if name not in {*TERMS, "epoch", "network"}]


def _draw(ax: Axes, losses: pd.DataFrame, planned: int, log: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    # A term whose weight is zero was not computed; the total is of interest where it has several parts.
    parts = [name for name in _terms(losses) if (losses[name] != 0).any()]
    shown = parts if len(parts) == 1 else ["total", *parts]
    networks = [network for _, network in losses.groupby("network")]
    ended = [network.iloc[-1] for network in networks if network["epoch"].iloc[-1] < planned]
    marker = "o" if losses["epoch"].max() <= MAX_MARKED else None
    for name in shown:
        colour = text_colour(ax) if name == "total" else CATEGORY_COLOURS[parts.index(name)]
        for i, network in enumerate(networks):
            ax.plot(
                network["epoch"], network[name], color=colour, linewidth=LINE_PT[len(networks) > 1], marker=marker, markersize=2.5,
                label=None if i else TERMS.get(name, name),
            )  # fmt: skip
        ax.scatter([end["epoch"] for end in ended], [end[name] for end in ended], s=18, color=colour, marker="x")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if log:
        ax.set_yscale("log")
        plain_numbers(ax.yaxis)
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss" if len(shown) > 1 else f"{TERMS.get(shown[0], shown[0])} loss")
    notes = _notes(len(networks), len(ended), planned)
    if len(shown) > 1:
        # Lines may lie anywhere in the axes.
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, handlelength=1.4, title=notes)
    elif notes:
        ax.set_title(notes, fontsize=TEXT_PT)


def _notes(n_networks: int, n_stopped: int, planned: int) -> str | None:
    """What a reader has to know of the lines, if they are several."""
    stopped = f"{n_stopped} stopped before epoch {planned} (×)" if n_stopped else ""
    networks = count(n_networks, "network") if n_networks > 1 else ""
    return ", ".join(note for note in (networks, stopped) if note) or None
