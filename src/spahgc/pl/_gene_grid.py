"""The panels of a figure of genes: where each stands, and what is drawn into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from spahgc.pl._gene_values import GeneValues
from spahgc.pl._measured_part import draw_measured
from spahgc.pl._style import (
    COLOUR_BAR_IN,
    ROW_ROOM_IN,
    SCALE_BAR_IN,
    SIDE_NAME_IN,
    TITLE_LINE_IN,
    draw_colour_bar,
    draw_side_name,
    figure_width,
    panel_height,
    shared_limits,
    text_colour,
    titles,
)
from spahgc.pl._tissue import Tissue, draw_note, draw_scale_bar, draw_tissue
from spahgc.pl._unknown import ROOM_IN as UNKNOWN_ROOM_IN
from spahgc.pl._unknown import draw_unknown, name_unknown, without_unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

MAX_PANELS = 72
"""More panels in one figure than this can neither be printed nor looked at."""
MIN_PANEL_IN = 0.9
"""Least width of a panel."""
GROWN_PANEL_IN = 1.25
"""Width that panels get in a figure that has to be wider than a page anyway, as far as there is room."""
MAX_WIDTH_IN = 10.0
"""Up to which a figure grows where its panels would be too narrow: the width of a page that lies."""
SHARED, OWN = "shared", "own"
"""Colour scales: one for measured and predicted values of a gene on all slides, or one for each map."""
MAX_TIGHT_LINES = 2
"""Lines of a title that need no room of their own beside that between rows."""


@dataclass(frozen=True)
class GeneMaps:
    """What is drawn."""

    genes: Sequence[str]
    names: Sequence[str]
    """Of the slides; empty where there is one."""
    values: Sequence[GeneValues]
    """One for each slide."""
    tissues: Sequence[Tissue]
    units: str


@dataclass(frozen=True)
class Style:
    """How it is drawn."""

    cmap: str | Colormap
    spread_cmap: str | Colormap
    vmin: float | None
    vmax: float | None
    img_alpha: float
    scale: str = SHARED
    """:data:`SHARED` or :data:`OWN`."""


@dataclass(frozen=True)
class Grid:
    """Where the panels stand: genes are blocks of a row a slide; blocks fill the figure row by row."""

    n_genes: int
    n_slides: int
    kinds: tuple[str, ...]
    """What the panels of a gene on a slide show, from left to right."""
    ncols: int
    scale: str = SHARED
    figsize: tuple[float, float] | None = None
    """Of the figure, inches, as the caller wants it."""

    @property
    def n_panels(self) -> int:
        """Number of panels."""
        return self.n_genes * self.n_slides * len(self.kinds)

    @property
    def across(self) -> int:
        """Panels side by side."""
        return min(self.ncols, self.n_genes) * len(self.kinds)

    @property
    def down(self) -> int:
        """Panels one below the other."""
        return ceil(self.n_genes / self.ncols) * self.n_slides

    @property
    def width(self) -> float:
        """Width of the figure, inches: of one, one and a half or two columns of a journal, unless panels need more."""
        if self.figsize is not None:
            return self.figsize[0]
        needed, page = self.across * MIN_PANEL_IN + self._beside, figure_width(self.across)
        if needed <= page or needed > MAX_WIDTH_IN:
            return page
        return min(self.across * GROWN_PANEL_IN + self._beside, MAX_WIDTH_IN)

    @property
    def _beside(self) -> float:
        """Width of the colour bars and the names of the slides, inches."""
        shared = 2 if "spread" in self.kinds else 1
        bars = min(self.ncols, self.n_genes) * (len(self.kinds) if self.scale == OWN else shared)
        return bars * COLOUR_BAR_IN + (SIDE_NAME_IN if self.n_slides > 1 else 0.0)

    @property
    def panel_width(self) -> float:
        """Width of a panel, inches."""
        return (self.width - self._beside) / self.across

    def position(self, gene: int, slide: int) -> tuple[int, int]:
        """Row and column of the first panel of a gene on a slide."""
        return gene // self.ncols * self.n_slides + slide, gene % self.ncols * len(self.kinds)

    def check(self) -> None:
        """Refuse more panels than a figure holds, and panels in which nothing would be seen."""
        if self.n_panels > MAX_PANELS:
            per_gene = self.n_slides * len(self.kinds)
            most = max(1, MAX_PANELS // per_gene)
            raise ValueError(
                f"{self.n_genes} genes on {self.n_slides} slides make {self.n_panels} panels, one figure holds "
                f"{MAX_PANELS}. Draw a page at a time: for i in range(0, len(genes), {most}): "
                f'spahgc.pl.spatial_genes(slides, genes[i : i + {most}], save=f"genes_{{i}}.png"); or fewer slides.'
            )
        if self.panel_width < MIN_PANEL_IN - 1e-9:  # of a width that was made for it
            raise ValueError(
                f"ncols={self.ncols} leaves {self.panel_width:.2f} inches for a panel, the least is {MIN_PANEL_IN:g}. "
                "Pass a smaller ncols, or a wider figsize=."
            )


def new_axes(
    grid: Grid, tissues: Sequence[Tissue], title_lines: int, dpi: float | None = None, room: float = 0.0
) -> list[Axes]:
    """Axes of a new figure: gene by gene, slide by slide, panel by panel; with some inches of room below them."""
    from matplotlib import pyplot as plt

    # The bar of a gene stands beside the rows of all its slides.
    heights = [panel_height(grid.panel_width, tissue.aspect, share=grid.n_slides) for tissue in tissues]
    rows = heights * (grid.down // grid.n_slides)
    height = sum(rows) + grid.down * (title_lines * TITLE_LINE_IN + ROW_ROOM_IN) + grid.n_slides * SCALE_BAR_IN + room
    if title_lines > MAX_TIGHT_LINES:
        height += grid.down * ROW_ROOM_IN
    size = (grid.width, height) if grid.figsize is None else grid.figsize
    figure = plt.figure(figsize=size, dpi=dpi, layout="constrained")
    cells = figure.add_gridspec(grid.down, grid.across, height_ratios=rows)
    axes = []
    for gene in range(grid.n_genes):
        for slide in range(grid.n_slides):
            row, column = grid.position(gene, slide)
            axes += [figure.add_subplot(cells[row, column + panel]) for panel in range(len(grid.kinds))]
    return axes


def draw_genes(
    axes: Sequence[Axes] | None, grid: Grid, maps: GeneMaps, style: Style, dpi: float | None = None
) -> list[Axes]:
    """Draw all panels; returns them gene by gene, slide by slide, panel by panel.

    Parameters
    ----------
    axes
        The caller's axes in this order; ``None`` makes a figure.
    grid
        Where they stand.
    maps
        What is drawn.
    style
        How it is drawn.
    dpi
        Dots per inch of a new figure; ``None`` takes matplotlib's.
    """
    written = _titles(grid, maps)
    title_lines = 1 + max(title.count("\n") for row in written for title in row)
    named = [bool((one.unknown & tissue.in_view).any()) for one, tissue in zip(maps.values, maps.tissues, strict=True)]
    room = UNKNOWN_ROOM_IN * sum(named)
    axes = new_axes(grid, maps.tissues, title_lines, dpi, room) if axes is None else axes
    width = len(grid.kinds)
    rows = [list(axes[start : start + width]) for start in range(0, grid.n_panels, width)]
    for row, names in zip(rows, written, strict=True):
        for ax, name in zip(row, names, strict=True):
            ax.set_title(name, color=text_colour(ax))
    for gene in range(grid.n_genes):
        block = rows[gene * grid.n_slides : (gene + 1) * grid.n_slides]
        shared = (("measured", "predicted"), ("spread",))
        for group in shared if style.scale == SHARED else tuple((kind,) for kind in grid.kinds):
            kinds = [kind for kind in group if kind in grid.kinds]
            panels = [[row[grid.kinds.index(kind)] for kind in kinds] for row in block]
            if kinds and style.scale == SHARED:
                _draw_group(panels, kinds, gene, maps, style, range(grid.n_slides))
            elif kinds:
                for slide, row in enumerate(panels):
                    _draw_group([row], kinds, gene, maps, style, range(slide, slide + 1))
        _draw_edges(block, gene, grid, maps)
    return [ax for row in rows for ax in row]


def _titles(grid: Grid, maps: GeneMaps) -> list[list[str]]:
    """Titles of all panels, a list a row."""
    return titles(
        [gene for gene in maps.genes for _ in maps.values],
        [one.scores[gene] for gene in range(grid.n_genes) for one in maps.values],
        kinds=grid.kinds,
        width=grid.panel_width,
        expected=[one.expected[gene] for gene in range(grid.n_genes) for one in maps.values],
    )


def _draw_group(
    panels: list[list[Axes]], kinds: Sequence[str], gene: int, maps: GeneMaps, style: Style, slides: range
) -> None:
    """Draw the panels of a gene that share a colour scale, on some slides, and their colour bar."""
    from matplotlib.colors import Normalize

    is_spread = kinds == ["spread"]
    chosen, tissues = [maps.values[i] for i in slides], [maps.tissues[i] for i in slides]
    values = [[_column(one, kind, gene) for kind in kinds] for one in chosen]
    present = [column for row in values for column in row if column is not None]
    limits = (None, None) if is_spread else (style.vmin, style.vmax)
    low, high, extend = shared_limits(present or [np.empty(0)], *limits)
    cmap = style.spread_cmap if is_spread else style.cmap
    for row, columns, tissue, one in zip(panels, values, tissues, chosen, strict=True):
        for ax, column, kind in zip(row, columns, kinds, strict=True):
            shown = np.full(len(tissue.xy), np.nan) if column is None else column
            shown = shown if kind == "measured" else without_unknown(shown, one.unknown)
            spots = draw_tissue(ax, tissue, shown, cmap=cmap, norm=Normalize(low, high), img_alpha=style.img_alpha)
            if column is None:
                draw_note(ax, "not measured")
            if kind != "measured":
                draw_measured(ax, tissue, one.was_reference)
                draw_unknown(ax, tissue, one.unknown)
    flat = [ax for row in panels for ax in row]
    draw_colour_bar(flat, spots, label=maps.units, extend=extend, n_rows=len(panels))


def _draw_edges(block: list[list[Axes]], gene: int, grid: Grid, maps: GeneMaps) -> None:
    """Write the names of the slides beside the first panels of a row, scale bars and legends below those of the last genes."""
    if gene % grid.ncols:
        return
    is_last = gene // grid.ncols == (grid.n_genes - 1) // grid.ncols
    predicted = grid.kinds.index("predicted")
    for row, name, tissue, one in zip(block, maps.names, maps.tissues, maps.values, strict=True):
        if name:
            draw_side_name(row[0], name)
        # The panels of a slide have one scale; below the last row of genes there is nothing that a bar could touch.
        if is_last:
            draw_scale_bar(row[0], tissue, spot=True)
            draw_measured(row[predicted], tissue, one.was_reference, legend=True, right=not predicted)
            name_unknown(row[predicted], one.unknown & tissue.in_view)


def _column(values: GeneValues, kind: str, gene: int) -> np.ndarray | None:
    array: np.ndarray | None = getattr(values, kind)
    return None if array is None else array[:, gene]
