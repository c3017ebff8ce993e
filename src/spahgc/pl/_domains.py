"""Tissue domains on the tissue, beside an annotation where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from spahgc._keys import UNS, Obs, Uns
from spahgc._slides.categories import categories_of, category_colours, stored_colours
from spahgc._validate import quoted
from spahgc.pl._figure_slides import figure_slides, figure_tissues
from spahgc.pl._measured_part import draw_measured
from spahgc.pl._output import finish, given_axes, new_axes, save_path, whole_figure
from spahgc.pl._style import (
    COLUMN_IN,
    LEGEND_CHAR_IN,
    LEGEND_IN,
    PAGE_IN,
    RC,
    ROW_ROOM_IN,
    SCALE_BAR_IN,
    TITLE_LINE_IN,
    check_style,
    panel_height,
    rc_context,
    shorten,
    text_colour,
)
from spahgc.pl._tissue import SpatialKeys, Tissue, draw_scale_bar, draw_tissue
from spahgc.pl._unknown import ROOM_IN as UNKNOWN_ROOM_IN
from spahgc.pl._unknown import check_fade, draw_unknown, name_unknown
from spahgc.tl._prediction import reference_spots
from spahgc.tl._trust_record import LOW_SUPPORT, unknown_spots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

SLIDE = "the slide"
LEGEND_ROWS = 14
"""Names in a column of a legend."""
MAX_TITLE = 40
"""Letters of a title that stay in one line."""
MIN_PANEL_IN = 1.4
"""Least width of a panel."""
MARKER_PT = 5.0
"""Diameter of the dots in a legend, points."""


@dataclass(frozen=True)
class Categories:
    """One panel: the category of every spot."""

    title: str
    names: list[str]
    codes: np.ndarray
    """Number of the category of each spot, -1 for none."""
    colours: list[str]
    """One for each name."""


def domains(
    adata: AnnData | SpatialData,
    *,
    key: str = "spahgc",
    label: str | None = None,
    column: str | None = None,
    fade_below: float | None = LOW_SUPPORT,
    crop_coord: tuple[float, float, float, float] | None = None,
    library_id: str | None = None,
    table_key: str | None = None,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    palette: Sequence[str] | None = None,
    size: float = 1.0,
    img_alpha: float = 0.6,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
    save: str | Path | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw the tissue domains of a slide, and an annotation such as a pathologist's beside them.

    A category of the annotation has the colour of the domain that shares most of its spots, one category a domain, so
    that what agrees looks alike; what is left over has further colours. The pairs serve the eye, they say nothing of
    what a domain is. Up to eight colours are told apart by colour-blind readers. Of a slide that was measured in part the
    measured spots, which were a reference and have no domain, are grey. Spots that look like nothing on the references are
    hatched: they were given to a domain by values of which nobody knows what they are worth.

    Parameters
    ----------
    adata
        A slide with domains: an AnnData, or a SpatialData with such a table.
    key
        Key of the prediction; ``obs[f"{key}_domain"]`` is drawn.
    label
        Column of ``obs`` with an annotation to draw beside them. If it is the one that `spahgc.tl.domains` was given, the
        title says the adjusted Rand index. Spots without one (NaN or empty) are left out.
    column
        Column of ``obs`` with the domains, if `spahgc.tl.domains` was given one in ``key_added``.
    fade_below
        Support (``obs[f"{key}_support"]``) below which the domain of a spot is hatched; ``None`` colours all.
    crop_coord
        ``(left, right, top, bottom)`` of the part to show, in pixels of the full-resolution image.
    library_id
        Entry of ``uns["spatial"]`` with the image and its scale factors; ``None`` takes the only one, or the one that
        ``obs["slide"]`` names.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.
    image_key
        Key of the image of a SpatialData; ``None`` takes the only one, or the finest of several that show the same.
    coordinate_system
        Coordinate system in which shapes and image of a SpatialData meet; ``None`` takes any as long as all agree.
    palette
        Colours, at least one for each category; ``None`` takes those that scanpy keeps for a column in
        ``uns[f"{column}_colors"]``, else colours of the package.
    size
        Factor on the diameter of the spots.
    img_alpha
        Opacity of the tissue image, 0 to 1.
    ax
        Axes to draw on: one, or two with `label`. ``None`` makes a figure.
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
    The axes: domains, annotation; the figure with `return_fig`; ``None`` if the figure was shown.

    Raises
    ------
    KeyError
        If there are no domains, no such label, no spot coordinates, or no such library.
    ValueError
        If no spot has a label, `fade_below` is not between 0 and 1, there are more than 102 categories or too few colours, the number of axes is wrong, or
        `crop_coord` holds no spot.
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.tl.domains : finds them.

    Examples
    --------
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide.layers["spahgc"] = slide.layers["truth"]
    >>> sp.tl.domains(slide, n_domains=3, label="domain")
    >>> axes = sp.pl.domains(slide, label="domain", show=False)
    >>> axes[0].get_title()
    'predicted domains'
    """
    check_style(None, None, size, img_alpha)
    check_fade(fade_below)
    slides = figure_slides(adata, table_key)
    if len(slides) > 1:
        raise ValueError(
            f"domains of {len(slides)} slides have nothing in common but their numbers. Draw one slide at a time, on axes "
            "of one figure with ax= if you like."
        )
    first, *others = _panels(slides[0].table, key, column, label, palette)
    unknown = unknown_spots(slides[0].table, key, fade_below)
    panels = [replace(first, codes=np.where(unknown, -1, first.codes)), *others]
    path = save_path(save, "domains")
    given = given_axes(ax, 1, len(panels), "domains and annotation" if label else "domains")
    keys = SpatialKeys(table_key, image_key, coordinate_system, library_id)
    (tissue,) = figure_tissues(slides, keys, size=size, crop_coord=crop_coord, n_panels=len(panels))
    with rc_context(RC):
        room = UNKNOWN_ROOM_IN if (unknown & tissue.in_view).any() else 0.0
        axes = _new_axes(panels, tissue, room) if given is None else given
        for panel_ax, panel in zip(axes, panels, strict=True):
            _draw(panel_ax, panel, tissue, img_alpha)
        draw_measured(axes[0], tissue, reference_spots(slides[0].table, key), legend=True, right=True)
        draw_unknown(axes[0], tissue, unknown)
        name_unknown(axes[0], unknown & tissue.in_view)
        draw_scale_bar(axes[0], tissue, spot=True)
        if unknown.any() and given is None:
            # Legends beside and below a panel of fixed aspect: the layout finds its place in two steps.
            whole_figure(axes[0]).draw_without_rendering()
        return finish(axes, path, show=show, return_fig=return_fig, own_figure=given is None)


def _panels(
    adata: AnnData, key: str, column: str | None, label: str | None, palette: Sequence[str] | None
) -> list[Categories]:
    """The domains, and the annotation in matching colours."""
    name = Obs.domain(key) if column is None else column
    if name not in adata.obs:
        raise KeyError(
            f'obs["{name}"] not found in {SLIDE}, obs has {quoted(adata.obs)}. Run spahgc.tl.domains(adata, key="{key}") '
            "first, or pass column= with the name that it was given."
        )
    names, codes = categories_of(adata, name)
    if label is None:
        return [Categories("predicted domains", names, codes, _colours(adata, name, palette, len(names), len(names)))]
    if label not in adata.obs:
        raise KeyError(f'obs["{label}"] not found in {SLIDE}, obs has {quoted(adata.obs)}. Pass one of its columns.')
    label_names, label_codes = categories_of(adata, label)
    colours = _colours(adata, name, palette, len(names), max(len(names), len(label_names)))
    stored = stored_colours(adata, label, len(label_names)) if palette is None else []
    matched = [colours[i] for i in _matched(label_codes, len(label_names), codes, len(names))]
    title = _label_title(adata, key if column is None else column, label)
    return [
        Categories("predicted domains", names, codes, colours),
        Categories(title, label_names, label_codes, stored or matched),
    ]


def _colours(adata: AnnData, column: str, palette: Sequence[str] | None, n_own: int, n: int) -> list[str]:
    """So many colours, of which the first are those of the column: the caller's, scanpy's, or ours."""
    if palette is not None:
        if isinstance(palette, str) or len(palette) < n:
            raise ValueError(f"palette must hold at least {n} colours, one for each category, found {palette!r}.")
        return list(palette[:n])
    stored = stored_colours(adata, column, n_own)
    return (stored + [colour for colour in category_colours(len(stored) + n) if colour not in stored])[:n]


def _matched(codes: np.ndarray, n: int, other: np.ndarray, n_other: int) -> list[int]:
    """For each category the other one with which it shares most spots, each taken once; the rest get numbers left over."""
    from scipy.optimize import linear_sum_assignment

    shared = np.zeros((n, n_other), dtype=np.int64)
    both = (codes >= 0) & (other >= 0)
    np.add.at(shared, (codes[both], other[both]), 1)
    pairs = {int(a): int(b) for a, b in zip(*linear_sum_assignment(-shared), strict=True) if shared[a, b]}
    left_over = iter([i for i in range(max(n, n_other)) if i not in pairs.values()])
    return [pairs[i] if i in pairs else next(left_over) for i in range(n)]


def _label_title(adata: AnnData, name: str, label: str) -> str:
    """Name of the annotation, and how well the domains agree with it if that is known."""
    record = adata.uns.get(UNS, {}).get(Uns.domains, {}).get(name, {})
    if record.get("label") != label:
        return shorten(label)
    title, note = shorten(label), f"(adjusted Rand index {float(record['adjusted_rand_index']):.2f})"
    return f"{title}\n{note}" if len(f"{title} {note}") > MAX_TITLE else f"{title} {note}"


def _new_axes(panels: Sequence[Categories], tissue: Tissue, room: float) -> list[Axes]:
    """Axes of a new figure, side by side, with room for their legends, and some inches below."""
    legends = sum(_legend_width(panel) for panel in panels)
    width = max(COLUMN_IN if len(panels) == 1 else PAGE_IN, legends + len(panels) * MIN_PANEL_IN)
    lines = max(1 + panel.title.count("\n") for panel in panels)
    height = panel_height((width - legends) / len(panels), tissue.aspect)
    height += lines * TITLE_LINE_IN + ROW_ROOM_IN + SCALE_BAR_IN + room
    return new_axes(width, len(panels), height)


def _legend_width(panel: Categories) -> float:
    columns = ceil(len(panel.names) / LEGEND_ROWS)
    return columns * (LEGEND_IN + LEGEND_CHAR_IN * max(len(shorten(name)) for name in panel.names))


def _draw(ax: Axes, panel: Categories, tissue: Tissue, img_alpha: float) -> None:
    """Draw one panel with its legend."""
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.lines import Line2D

    colours = panel.colours[: len(panel.names)]
    values = np.where(panel.codes < 0, np.nan, panel.codes)
    norm = Normalize(-0.5, len(colours) - 0.5)
    draw_tissue(ax, tissue, values, cmap=ListedColormap(colours), norm=norm, img_alpha=img_alpha)
    ax.set_title(panel.title, color=text_colour(ax))
    present = [i for i in range(len(colours)) if (panel.codes == i).any()]
    dots = [Line2D([], [], marker="o", linestyle="", ms=MARKER_PT, mfc=colours[i], mec="none") for i in present]
    ax.legend(
        dots,
        [shorten(panel.names[i]) for i in present],
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        ncols=ceil(len(present) / LEGEND_ROWS),
        frameon=False,
        handletextpad=0.2,
        borderaxespad=0.3,
        columnspacing=0.8,
        labelcolor=text_colour(ax),
    )
