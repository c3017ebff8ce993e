"""How the graph is drawn: edges on the tissue, and a spot above the patches of those to which its edges lead."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from spahgc.pl._footprint import MAX_VECTOR_SPOTS
from spahgc.pl._graph_content import CentreSpot, EgoGraph, ReferenceSlide, SpatialGraph
from spahgc.pl._labels import spread_labels
from spahgc.pl._output import whole_figure
from spahgc.pl._spot_panels import (
    FRAME_PT,
    TARGET_COLOUR,
    draw_empty,
    draw_patch,
    draw_slide,
    mark_spot,
    short_name,
    slide_colours,
)
from spahgc.pl._style import COLUMN_IN, PAGE_IN, TEXT_PT, text_colour
from spahgc.pl._tissue import Tissue

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TISSUE_IN, PATCH_IN, CAPTION_IN = 1.9, 0.95, 0.5
"""Widths of the tissue and of a patch in a figure with patches, and height of the text at a patch."""
FAN_IN = 0.3
"""Height in which the edges spread from a spot to the patches below."""
TITLE_IN, SCALE_BAR_IN = 0.3, 0.25
PATCHES_A_ROW = 7
SLIDES_A_ROW = 3
TALLEST = 1.3
"""Height over width of the tissue above which it gets narrower instead of higher."""
MAX_LETTERS = 13
"""Letters of a name below a patch."""
EDGE_COLOUR, EDGE_PT = "0.1", 0.4
SPOT_EDGE_PT = 1.6
FULL_LENGTH_PT = 3.0
"""Length from which edges have their full width; shorter ones are thinner by as much."""
SPOT_NODE_PT = 14.0
"""Width of the edges of the spot in question, points; area of its node, square points."""
HALO = 1.8
"""Width of the white below these edges over their own: it sets them off from the stain."""
NODE_PT = 2.0
"""Area of a node, square points."""
REFERENCE_PT = 18.0
"""Area of the dot at a reference spot's place, square points."""
SAME_HEIGHT = 0.08
"""Difference in height at which dots hide each other's lines, as a share of the slide's."""
LABEL_IN = 0.14
"""Least distance of the numbers beside a slide."""


def new_axes(parts: list[SpatialGraph | EgoGraph]) -> list[Axes]:
    """A figure with the parts one below the other; their axes in order."""
    from matplotlib import pyplot as plt

    heights = [_height(part) for part in parts]
    width = PAGE_IN if any(isinstance(part, EgoGraph) for part in parts) else COLUMN_IN
    figure = plt.figure(figsize=(width, sum(heights)), layout="constrained")
    subfigures = figure.subfigures(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0]
    axes: list[Axes] = []
    for subfigure, part in zip(subfigures, parts, strict=True):
        axes += [subfigure.subplots()] if isinstance(part, SpatialGraph) else _ego_axes(subfigure, part)
    return axes


def _height(part: SpatialGraph | EgoGraph) -> float:
    if isinstance(part, SpatialGraph):
        return COLUMN_IN * part.tissue.aspect + TITLE_IN + SCALE_BAR_IN
    rows = ceil(len(part.edges) / PATCHES_A_ROW)
    return _top_height(part) + FAN_IN + rows * (PATCH_IN + CAPTION_IN)


def _top_height(graph: EgoGraph) -> float:
    aspect = 1.0 if graph.centre.tissue is None else graph.centre.tissue.aspect
    return TISSUE_IN * min(aspect, TALLEST) + TITLE_IN + SCALE_BAR_IN


def _ego_axes(figure: Figure, graph: EgoGraph) -> list[Axes]:
    """Above tissue, spot and slides, below the patches."""
    n_rows = ceil(len(graph.edges) / PATCHES_A_ROW)
    low = n_rows * (PATCH_IN + CAPTION_IN)
    outer = figure.add_gridspec(3, 1, height_ratios=[_top_height(graph), FAN_IN, low])
    n_slides = len(graph.slides)
    slide_rows = 1 if n_slides <= SLIDES_A_ROW else 2
    slide_columns = ceil(n_slides / slide_rows)
    right = PAGE_IN - TISSUE_IN - PATCH_IN
    top = outer[0].subgridspec(1, 3, width_ratios=[TISSUE_IN, PATCH_IN, right])
    slides = top[2].subgridspec(slide_rows, max(slide_columns, 1))
    patches = outer[2].subgridspec(n_rows, PATCHES_A_ROW)
    cells = [
        top[0],
        top[1],
        *(patches[i // PATCHES_A_ROW, i % PATCHES_A_ROW] for i in range(len(graph.edges))),
        *(slides[i // slide_columns, i % slide_columns] for i in range(n_slides)),
    ]
    axes = [figure.add_subplot(cell) for cell in cells]
    for ax in axes:
        ax.set_anchor("N")
    axes[1].set_anchor("S")  # the edges start at its lower side
    return axes


def draw_spatial_graph(ax: Axes, spatial: SpatialGraph) -> None:
    """TS edges on the tissue; those of the spot in question stand out."""
    from matplotlib.collections import LineCollection

    xy = spatial.tissue.xy
    draw_slide(ax, spatial.tissue)
    colour = EDGE_COLOUR if spatial.tissue.image is not None else text_colour(ax)
    as_pixels = len(spatial.pairs) > MAX_VECTOR_SPOTS
    share = _share_of_width(ax, xy[spatial.pairs])
    thin = LineCollection(
        list(xy[spatial.pairs]), linewidths=share * EDGE_PT, colors=colour, rasterized=as_pixels, zorder=2
    )
    ax.add_collection(thin, autolim=False)
    ax.scatter(xy[:, 0], xy[:, 1], s=share**2 * NODE_PT, c=colour, linewidths=0, rasterized=as_pixels, zorder=2)
    if spatial.position is not None:
        ends = np.stack(
            [np.broadcast_to(xy[spatial.position], (len(spatial.neighbors), 2)), xy[spatial.neighbors]], axis=1
        )
        for colour, width in (("white", HALO * SPOT_EDGE_PT), (TARGET_COLOUR, SPOT_EDGE_PT)):
            thick = LineCollection(list(ends), linewidths=width, colors=colour, capstyle="round", zorder=3)
            ax.add_collection(thick, autolim=False)
        x, y = xy[spatial.position]
        ax.scatter(x, y, s=SPOT_NODE_PT, c=TARGET_COLOUR, edgecolors="white", linewidths=0.6, zorder=3)
    ax.set_title(spatial.title, fontsize=TEXT_PT)


def _share_of_width(ax: Axes, ends: np.ndarray) -> float:
    """Share of their width with which edges are drawn: less than 1 where they are so short that they would cover the slide."""
    if not len(ends):
        return 1.0
    length = float(np.median(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)))
    across_pt = ax.get_window_extent().width / ax.figure.dpi * 72.0
    return min(1.0, length * across_pt / abs(float(np.diff(ax.get_xlim())[0])) / FULL_LENGTH_PT)


def draw_ego_graph(axes: list[Axes], graph: EgoGraph) -> None:
    """The spot, the patches of those to which its edges lead, and where these are on their slides."""
    tissue, centre, *rest = axes
    patches, slides = rest[: len(graph.edges)], rest[len(graph.edges) :]
    colours = slide_colours([slide.name for slide in graph.slides], graph.references)
    _draw_centre(tissue, graph.centre, graph.spatial)
    draw_patch(centre, graph.centre.patch, graph.centre.titles[1], TARGET_COLOUR)
    for ax, row, patch, note in zip(patches, graph.edges.itertuples(), graph.patches, graph.notes, strict=True):
        colour = colours[str(row.slide)]
        draw_patch(ax, patch, "", colour)
        names = f"{row.rank}. {short_name(str(row.slide), MAX_LETTERS - 3)}\n{short_name(str(row.spot), MAX_LETTERS)}"
        ax.set_xlabel("\n".join([names, f"cosine {row.similarity:.3f}", *([note] if note else [])]), fontsize=TEXT_PT)
    for ax, slide in zip(patches[:PATCHES_A_ROW], graph.edges["slide"], strict=False):
        _draw_edge(centre, ax, colours[str(slide)])  # one to a lower row would cross the patches above it
    for ax, reference in zip(slides, graph.slides, strict=True):
        _draw_reference(ax, reference, colours[reference.name])


def _draw_centre(ax: Axes, centre: CentreSpot, spatial: SpatialGraph | None) -> None:
    """The tissue of the spot in question, with its TS edges where they were asked for."""
    if spatial is not None:
        draw_spatial_graph(ax, spatial)
    elif centre.tissue is not None:
        draw_slide(ax, centre.tissue)
        mark_spot(ax, centre.tissue, centre.position)
    else:
        draw_empty(ax)
    ax.set_title("\n".join([centre.titles[0], *([] if spatial is None else [spatial.title])]), fontsize=TEXT_PT)


def _draw_edge(centre: Axes, other: Axes, colour: str) -> None:
    """A line from the lower side of the spot's patch to the upper side of another."""
    from matplotlib.patches import ConnectionPatch

    line = ConnectionPatch(
        xyA=(0.5, 0.0),
        coordsA=centre.transAxes,
        xyB=(0.5, 1.0),
        coordsB=other.transAxes,
        color=colour,
        linewidth=SPOT_EDGE_PT,
        shrinkA=0,
        shrinkB=0,
    )
    line.set_in_layout(False)
    centre.figure.add_artist(line)


def _draw_reference(ax: Axes, slide: ReferenceSlide, colour: str) -> None:
    """A reference slide with dots where edges end, their numbers beside it so that none covers another."""
    if slide.tissue is None:
        draw_empty(ax)
        for spine in ax.spines.values():
            spine.set(color=colour, linewidth=FRAME_PT)
    else:
        draw_slide(ax, slide.tissue)
        xy = slide.tissue.xy[slide.positions]
        ax.scatter(xy[:, 0], xy[:, 1], s=REFERENCE_PT, c=colour, edgecolors="white", linewidths=0.8, zorder=4)
        bottom, top = slide.tissue.ylim
        # Of dots at one height the left one gets the upper number, so that its line passes above the others.
        order = np.lexsort((xy[:, 0], np.round((xy[:, 1] - top) / (SAME_HEIGHT * (bottom - top)))))
        upwards = (xy[order[::-1], 1] - bottom) / (top - bottom)
        heights = spread_labels(upwards, LABEL_IN / _height_in(ax, slide.tissue), 0.0, 1.0)[::-1]
        line = {"arrowstyle": "-", "color": text_colour(ax), "linewidth": 0.5, "shrinkA": 1, "shrinkB": 1.5}
        for which, height in zip(order, heights, strict=True):
            ax.annotate(
                str(slide.ranks[which]),
                xy=tuple(xy[which]),
                xytext=(1.06, height),
                textcoords="axes fraction",
                ha="left",
                va="center",
                fontsize=TEXT_PT,
                arrowprops=line,
            )
    ax.set_title(short_name(slide.name), fontsize=TEXT_PT)


def _height_in(ax: Axes, tissue: Tissue) -> float:
    """Height of the tissue in its cell, inches, before titles have taken their room."""
    width, height = whole_figure(ax).dpi_scale_trans.inverted().transform(ax.bbox.size)
    return float(min(height, width * tissue.aspect))
