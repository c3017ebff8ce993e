"""References on the target over which they were laid."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spahgc._keys import UNS, Uns
from spahgc._slides.split import located_slides, placed_tables
from spahgc._validate import quoted
from spahgc.pl._figure_slides import as_list, figure_slides, figure_tissues
from spahgc.pl._output import finish, given_axes, save_path
from spahgc.pl._style import (
    RC,
    ROW_ROOM_IN,
    SCALE_BAR_IN,
    TITLE_LINE_IN,
    figure_width,
    panel_height,
    rc_context,
    shorten,
    text_colour,
)
from spahgc.pl._tissue import SpatialKeys, Tissue, draw_scale_bar
from spahgc.pp._register.pairs import PairRegistration
from spahgc.pp._register.record import DIFFERENT, pairs_of_record

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

MAX_ACROSS = 3
"""References side by side."""
USED_COLOUR, REFUSED_COLOUR = "#0072B2", "#D55E00"
"""Colours of spots of a reference that is used, and of one that is not."""
SPOT_PT = 0.6
"""Width of the ring of a spot, points."""


def registration(
    target: AnnData | SpatialData,
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData],
    *,
    library_id: str | None = None,
    table_key: str | None = None,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    size: float = 1.0,
    img_alpha: float = 1.0,
    ax: Axes | Any = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw references on the target over which :func:`spahgc.pp.register` laid them.

    Each panel shows the picture of the target and rings where the spots of one reference lie on it: blue for a reference
    that is used, orange for one that is not. Where sections belong together, the rings fill the tissue up to its edge.

    Parameters
    ----------
    target
        A slide with ``uns["spahgc"]["registration"]``: AnnData, or SpatialData with such a table.
    refs
        References that were registered, all or some of them.
    library_id
        Entry of ``uns["spatial"]`` with the target's image; ``None`` takes the only one, or the one that ``obs["slide"]``
        names.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    image_key
        Key of the image of a SpatialData; ``None`` takes the only one, or the finest of several that show the same.
    coordinate_system
        Coordinate system in which shapes and image of a SpatialData meet; ``None`` takes any as long as all agree.
    size
        Factor on the diameter of the spots.
    img_alpha
        Opacity of the picture, 0 to 1.
    ax
        Axes to draw on, one a reference. ``None`` makes a figure.
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
    The axes, one a reference; the figure with `return_fig`; ``None`` if the figure was shown.

    Raises
    ------
    KeyError
        If the target was not registered, or a reference is not among those that were.
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.pp.register : lays them over each other.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, other = sp.datasets.simulated(2, n_patients=1, n_spots=60, n_genes=20)
    >>> sp.pp.register(target, other, transforms={"P1S2": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]})
    >>> (ax,) = sp.pl.registration(target, other, show=False)
    >>> ax.get_title().splitlines()[0]
    'P1S2'
    """
    (slide,) = figure_slides([target], table_key)
    record = slide.table.uns.get(UNS, {}).get(Uns.registration)
    if record is None:
        raise KeyError(
            f'uns["{UNS}"]["{Uns.registration}"] not found in {slide.label}. Run spahgc.pp.register(target, refs) first.'
        )
    pairs = pairs_of_record(record)
    patients = dict(zip(map(str, record["references"]), map(str, record["patient"]), strict=True))
    placed = located_slides(placed_tables(as_list(refs), table_key, "reference"), "reference")
    missing = [name for name in placed if name not in pairs]
    if missing:
        raise KeyError(
            f"{quoted(missing)} not found in the registration of the target, its references are {quoted(pairs)}. Run "
            "spahgc.pp.register with them."
        )
    path = save_path(save, "registration")
    given = given_axes(ax, 1, len(placed), f"one for each of {len(placed)} references")
    keys = SpatialKeys(table_key, image_key, coordinate_system, library_id)
    (tissue,) = figure_tissues([slide], keys, size=size, crop_coord=None, n_panels=len(placed))
    to_panel = _way_to_panel(slide.table.obsm["spatial"], tissue)
    with rc_context(RC):
        axes = _new_axes(tissue, len(placed)) if given is None else given
        for panel, (name, (_, reference)) in zip(axes, placed.items(), strict=True):
            pair = pairs[name]
            xy = pair.to_fixed(np.asarray(reference.obsm["spatial"], dtype=np.float64))
            _draw(panel, tissue, xy * to_panel[0] + to_panel[1], pair, img_alpha)
            panel.set_title(_title(name, pair, patients[name]), color=text_colour(panel))
            draw_scale_bar(panel, tissue)
        return finish(axes, path, show=show, return_fig=return_fig, own_figure=given is None)


def _way_to_panel(xy: Any, tissue: Tissue) -> tuple[float, np.ndarray]:
    """Scale and shift from the target's pixels to those of the drawn picture."""
    start, end = np.asarray(xy, dtype=np.float64), np.asarray(tissue.xy, dtype=np.float64)
    a, b = start - start.mean(0), end - end.mean(0)
    spread = float((a**2).sum())
    scale = float((a * b).sum()) / spread if spread > 0 else 1.0
    return scale, end.mean(0) - scale * start.mean(0)


def _draw(ax: Axes, tissue: Tissue, xy: np.ndarray, pair: PairRegistration, img_alpha: float) -> None:
    from matplotlib.collections import EllipseCollection

    if tissue.image is not None:
        ax.imshow(tissue.image, cmap="gray", alpha=img_alpha, extent=tissue.extent, aspect="equal")
    widths = np.full(len(xy), tissue.diameter)
    rings = EllipseCollection(
        widths,
        widths,
        np.zeros(len(xy)),
        units="xy",
        offsets=xy,
        offset_transform=ax.transData,
        facecolors="none",
        edgecolors=USED_COLOUR if pair.used else REFUSED_COLOUR,
        linewidths=SPOT_PT,
    )
    ax.add_collection(rings, autolim=False)
    ax.set(xlim=tissue.xlim, ylim=tissue.ylim, aspect="equal")
    ax.set_axis_off()


def _title(name: str, pair: PairRegistration, patient: str) -> str:
    quality = "quality unknown" if np.isnan(pair.quality) else f"quality {pair.quality:.2f}"
    lines = [shorten(name), quality if pair.used else f"{quality}, not used"]
    if patient == DIFFERENT:
        lines.append("another patient")
    return "\n".join(lines)


def _new_axes(tissue: Tissue, n_panels: int) -> list[Axes]:
    """Axes of a new figure, one a reference."""
    import matplotlib.pyplot as plt

    n_across = min(n_panels, MAX_ACROSS)
    n_rows = ceil(n_panels / n_across)
    width = figure_width(n_across)
    room = 3 * TITLE_LINE_IN + SCALE_BAR_IN + ROW_ROOM_IN
    height = n_rows * (panel_height(width / n_across, tissue.aspect, n_rows) + room)
    figure, grid = plt.subplots(n_rows, n_across, figsize=(width, height), squeeze=False, layout="constrained")
    axes = list(grid.flat)
    for ax in axes[n_panels:]:
        ax.remove()
    return axes[:n_panels]
