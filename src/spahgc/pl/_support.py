"""How well the references cover each spot, on the tissue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spahgc._keys import Obs
from spahgc._validate import quoted
from spahgc.pl._figure_slides import FigureSlide, figure_slides, figure_tissues
from spahgc.pl._measured_part import draw_measured
from spahgc.pl._output import finish, given_axes, save_path
from spahgc.pl._style import (
    COLOUR_BAR_IN,
    RC,
    ROW_ROOM_IN,
    SCALE_BAR_IN,
    SUPPORT_CMAP,
    TITLE_LINE_IN,
    check_style,
    draw_colour_bar,
    figure_width,
    panel_height,
    rc_context,
    shared_limits,
    shorten,
    text_colour,
)
from spahgc.pl._tissue import SpatialKeys, Tissue, draw_rings, draw_scale_bar, draw_tissue
from spahgc.tl._prediction import reference_spots

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

MAX_ACROSS = 3
"""Slides side by side."""
LABEL = "support by the references"


def support(
    adata: AnnData | SpatialData | Iterable[AnnData | SpatialData],
    *,
    key: str = "spahgc",
    threshold: float | None = None,
    crop_coord: tuple[float, float, float, float] | Sequence[tuple[float, float, float, float] | None] | None = None,
    library_id: str | None = None,
    table_key: str | None = None,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    cmap: str | Colormap = SUPPORT_CMAP,
    vmin: float | None = 0.0,
    vmax: float | None = 1.0,
    size: float = 1.0,
    img_alpha: float = 0.6,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw how well the references cover what each spot looks like: where a prediction stands on known ground.

    The support of a spot is the share of reference spots that are at least as far from the other reference slides, in
    the space of the image embedding, as this spot is from the references. Below 0.05 it looks stranger than all but a
    twentieth of the reference spots; folds, ink and tissues that no reference has are found there. It speaks of the
    image alone, not of a gene. Of a slide that was measured in part the measured spots, which were a reference, are grey.

    Parameters
    ----------
    adata
        A slide with a prediction by ``preset="default"``, or a list of them: AnnData, or SpatialData with such a table.
        Several slides have one colour scale, and each its name as title.
    key
        Key of the prediction; ``obs[f"{key}_support"]`` is drawn, 0 to 1.
    threshold
        Ring the spots whose support is below this, and say in the title how many they are.
    crop_coord
        ``(left, right, top, bottom)`` of the part to show, in pixels of the full-resolution image; for several slides
        also a list, one such or ``None`` for each.
    library_id
        Entry of ``uns["spatial"]`` with the image and its scale factors; ``None`` takes the only one, or the one that
        ``obs["slide"]`` names. For one slide only.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    image_key
        Key of the image of a SpatialData; ``None`` takes the only one, or the finest of several that show the same.
    coordinate_system
        Coordinate system in which shapes and image of a SpatialData meet; ``None`` takes any as long as all agree.
    cmap
        Colour map.
    vmin, vmax
        Limits of the colours; ``None`` takes the 1st or 99th percentile of all slides.
    size
        Factor on the diameter of the spots.
    img_alpha
        Opacity of the tissue image, 0 to 1.
    ax
        Axes to draw on, one a slide. ``None`` makes a figure.
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
    The axes, one a slide; the figure with `return_fig`; ``None`` if the figure was shown.

    Raises
    ------
    KeyError
        If a slide has no support, no spot coordinates, or no such library.
    ValueError
        If `threshold` is not between 0 and 1, the number of axes is wrong, or `crop_coord` holds no spot.
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.tl.predict : computes the support.
    spahgc.pl.spatial_genes : with ``spread=True`` by how much the values of a gene may be off.

    Examples
    --------
    >>> import spahgc as sp
    >>> slide = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)[0]
    >>> slide.obs["spahgc_support"] = [0.02, *[0.5] * 39]  # as sp.tl.predict(slide, refs) writes it
    >>> (ax,) = sp.pl.support(slide, threshold=0.05, show=False)
    >>> ax.get_title()
    '1 of 40 spots below 0.05'
    """
    from matplotlib.colors import Normalize

    check_style(vmin, vmax, size, img_alpha)
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold!r}; support lies between 0 and 1, so pass a number between them.")
    slides = figure_slides(adata, table_key)
    values = [_support(slide, key) for slide in slides]
    path = save_path(save, "support")
    given = given_axes(ax, 1, len(slides), f"one for each of {len(slides)} slides")
    keys = SpatialKeys(table_key, image_key, coordinate_system, library_id)
    tissues = figure_tissues(slides, keys, size=size, crop_coord=crop_coord, n_panels=len(slides))
    titles = [_title(slide, value, threshold) for slide, value in zip(slides, values, strict=True)]
    with rc_context(RC):
        axes = _new_axes(tissues, titles) if given is None else given
        low, high, extend = shared_limits(values, vmin, vmax)
        for ax, title, value, tissue, slide in zip(axes, titles, values, tissues, slides, strict=True):
            spots = draw_tissue(ax, tissue, value, cmap=cmap, norm=Normalize(low, high), img_alpha=img_alpha)
            draw_measured(ax, tissue, reference_spots(slide.table, key), legend=True, right=True)
            if threshold is not None:
                draw_rings(ax, tissue, value < threshold)
            ax.set_title(title, color=text_colour(ax))
            draw_scale_bar(ax, tissue, spot=True)
        draw_colour_bar(axes, spots, label=LABEL, extend=extend, n_rows=ceil(len(axes) / MAX_ACROSS))
        return finish(axes, path, show=show, return_fig=return_fig, own_figure=given is None)


def _support(slide: FigureSlide, key: str) -> np.ndarray:
    """Support of the spots; refuses a slide that has none."""
    column = Obs.support(key)
    if column not in slide.table.obs:
        raise KeyError(
            f'obs["{column}"] not found in {slide.label}, obs has {quoted(slide.table.obs)}. It comes with '
            'spahgc.tl.predict(adata, refs, preset="default"); other methods do not compute it.'
        )
    return slide.table.obs[column].to_numpy(dtype=np.float64)


def _title(slide: FigureSlide, values: np.ndarray, threshold: float | None) -> str:
    """Name of the slide where there are several, and how many spots are below the threshold."""
    lines = [shorten(slide.name)] if slide.name else []
    if threshold is not None:
        lines.append(f"{int((values < threshold).sum())} of {int(np.isfinite(values).sum())} spots below {threshold:g}")
    return "\n".join(lines)


def _new_axes(tissues: Sequence[Tissue], titles: Sequence[str]) -> list[Axes]:
    """Axes of a new figure, one a slide."""
    from matplotlib import pyplot as plt

    across = min(len(tissues), MAX_ACROSS)
    down = ceil(len(tissues) / across)
    width = figure_width(across)
    height = max(panel_height((width - COLOUR_BAR_IN) / across, tissue.aspect) for tissue in tissues)
    lines = max(1 + title.count("\n") if title else 0 for title in titles)
    row = height + lines * TITLE_LINE_IN + ROW_ROOM_IN + SCALE_BAR_IN
    figure = plt.figure(figsize=(width, down * row), layout="constrained")
    cells = figure.add_gridspec(down, across)
    return [figure.add_subplot(cells[place // across, place % across]) for place in range(len(tissues))]
