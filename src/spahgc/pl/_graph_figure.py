"""How the graph is drawn: edges on the tissue, and a spot above the patches of those to which its edges lead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spahgc._slides.library import find_library
from spahgc._slides.spatialdata import spots_on_image
from spahgc.pl._output import whole_figure
from spahgc.pl._patches import has_image
from spahgc.pl._style import CATEGORY_COLOURS, COLUMN_IN, PAGE_IN, TEXT_PT, ink, shorten
from spahgc.pl._tissue import (
    MAX_VECTOR_SPOTS,
    Tissue,
    draw_scale_bar,
    draw_tissue,
    slide_tissue,
    tissue_of,
    tissue_on_image,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


TARGET_COLOUR = "#D55E00"
"""The spot in question."""


COLOURS = tuple(colour for colour in CATEGORY_COLOURS if colour != TARGET_COLOUR)
"""One a reference slide; slides after the last share it."""


EMPTY_COLOUR = "0.95"


MARK_PT = 60.0
"""Area of the ring around the spot, square points: a spot in its true size is lost on a large slide."""


IMAGE_ALPHA = 0.8


FRAME_PT = 2.0


MAX_NAME = 18
"""Letters of a name above a patch."""


def slide_colours(drawn: Iterable[object], references: Sequence[object]) -> dict[str, str]:
    """One colour a reference slide: the same in all figures of these references, where there are enough colours.

    Parameters
    ----------
    drawn
        Names of the slides in the figure, the most important first.
    references
        Names of all references.
    """
    names = references if len(references) <= len(COLOURS) else drawn
    return {str(name): COLOURS[min(place, len(COLOURS) - 1)] for place, name in enumerate(names)}


def short(name: str, longest: int = MAX_NAME) -> str:
    """A name that fits at a patch."""
    return shorten(name, longest)


def home_tissue(data: Any, adata: AnnData, where: Mapping[str, str | None]) -> Tissue:
    """Tissue of the target: that of the image of a SpatialData, else of the library that the table is about."""
    found = find_library(adata)
    return slide_tissue(
        data,
        table_key=where["table_key"],
        image_key=where["image_key"],
        coordinate_system=where["coordinate_system"],
        library_id=None if found is None or has_image(data) else found.name,
        size=1.0,
    )


def reference_tissue(data: Any, table: AnnData) -> Tissue:
    """Tissue of a reference, which may be a part of the object that was handed over."""
    if has_image(data):
        return tissue_on_image(spots_on_image(data, table), 1.0)
    found = find_library(table)
    return tissue_of(table, None if found is None else found.name, 1.0)


def draw_picture(ax: Axes, tissue: Tissue) -> None:
    """The tissue with its scale bar; its spots only where there is no picture of it."""
    from matplotlib.colors import Normalize

    plain = np.full(len(tissue.xy), 0.3 if tissue.image is None else np.nan)
    draw_tissue(ax, tissue, plain, cmap="Greys", norm=Normalize(0, 1), img_alpha=IMAGE_ALPHA)
    draw_scale_bar(ax, tissue)


def draw_ring(ax: Axes, tissue: Tissue, position: int) -> None:
    """A ring around the spot in question."""
    x, y = tissue.xy[position]
    for colour, width in (("white", 3.0), (TARGET_COLOUR, 1.5)):  # the white one sets it off from the stain
        ax.scatter(x, y, s=MARK_PT, facecolors="none", edgecolors=colour, linewidths=width, clip_on=False, zorder=4)


def draw_patch(ax: Axes, patch: np.ndarray | None, title: str, colour: str) -> None:
    """A patch in a frame, or an empty frame that says so."""
    if patch is None:
        draw_empty(ax)
    else:
        ax.imshow(patch)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=TEXT_PT)
    for spine in ax.spines.values():
        spine.set(visible=True, color=colour, linewidth=FRAME_PT)


def draw_empty(ax: Axes) -> None:
    """An empty square with the words "no image"."""
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", facecolor=EMPTY_COLOUR, xticks=[], yticks=[])
    ax.text(0.5, 0.5, "no image", ha="center", va="center", color="0.4", fontsize=TEXT_PT)


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


OWN_EDGE_PT = 1.6


OWN_NODE_PT = 14.0
"""Width of the edges of the spot in question, points; area of its node, square points."""


HALO = 1.8
"""Width of the white below these edges over their own: it sets them off from the stain."""


NODE_PT = 2.0
"""Area of a node, square points."""


PLACE_PT = 18.0
"""Area of the dot at a reference spot's place, square points."""


SAME_HEIGHT = 0.08
"""Difference in height at which dots hide each other's lines, as a share of the slide's."""


LABEL_IN = 0.14
"""Least distance of the numbers beside a slide."""


@dataclass(frozen=True)
class Plane:
    """TS edges."""

    tissue: Tissue
    pairs: np.ndarray
    """Joined spots, pairs x 2."""
    position: int | None
    """The spot in question, and its neighbours."""
    neighbors: np.ndarray
    title: str

    @property
    def n_axes(self) -> int:
        """How many axes it takes."""
        return 1


@dataclass(frozen=True)
class Place:
    """A reference slide and where on it the edges end."""

    slide: str
    tissue: Tissue | None
    """``None`` where the slide was not handed over."""
    positions: np.ndarray
    ranks: list[int]


@dataclass(frozen=True)
class Home:
    """The spot in question, on its own slide."""

    titles: tuple[str, str]
    """Above the tissue and above the patch."""
    tissue: Tissue | None
    """``None`` where its slide was not handed over."""
    position: int
    patch: np.ndarray | None


@dataclass(frozen=True)
class Star:
    """A spot and those to which its edges lead."""

    home: Home
    edges: pd.DataFrame
    """Columns ``rank``, ``slide``, ``spot``, ``similarity``."""
    patches: list[np.ndarray | None]
    notes: list[str]
    """What is to be said of the stain of each patch; mostly empty."""
    places: list[Place]
    references: list[str]
    """Names of all references, also of those to which no edge leads."""
    plane: Plane | None = None
    """TS edges on the same tissue."""

    @property
    def n_axes(self) -> int:
        """How many axes it takes."""
        return 2 + len(self.edges) + len(self.places)


def new_axes(parts: list[Plane | Star]) -> list[Axes]:
    """A figure with the parts one below the other; their axes in order."""
    from matplotlib import pyplot as plt

    heights = [_height(part) for part in parts]
    width = PAGE_IN if any(isinstance(part, Star) for part in parts) else COLUMN_IN
    figure = plt.figure(figsize=(width, sum(heights)), layout="constrained")
    subfigures = figure.subfigures(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0]
    axes: list[Axes] = []
    for subfigure, part in zip(subfigures, parts, strict=True):
        axes += [subfigure.subplots()] if isinstance(part, Plane) else _star_axes(subfigure, part)
    return axes


def _height(part: Plane | Star) -> float:
    if isinstance(part, Plane):
        return COLUMN_IN * part.tissue.aspect + TITLE_IN + SCALE_BAR_IN
    rows = ceil(len(part.edges) / PATCHES_A_ROW)
    return _top_height(part) + FAN_IN + rows * (PATCH_IN + CAPTION_IN)


def _top_height(star: Star) -> float:
    aspect = 1.0 if star.home.tissue is None else star.home.tissue.aspect
    return TISSUE_IN * min(aspect, TALLEST) + TITLE_IN + SCALE_BAR_IN


def _star_axes(figure: Figure, star: Star) -> list[Axes]:
    """Above tissue, spot and slides, below the patches."""
    n_rows = ceil(len(star.edges) / PATCHES_A_ROW)
    low = n_rows * (PATCH_IN + CAPTION_IN)
    outer = figure.add_gridspec(3, 1, height_ratios=[_top_height(star), FAN_IN, low])
    n_slides = len(star.places)
    slide_rows = 1 if n_slides <= SLIDES_A_ROW else 2
    slide_columns = ceil(n_slides / slide_rows)
    right = PAGE_IN - TISSUE_IN - PATCH_IN
    top = outer[0].subgridspec(1, 3, width_ratios=[TISSUE_IN, PATCH_IN, right])
    slides = top[2].subgridspec(slide_rows, max(slide_columns, 1))
    patches = outer[2].subgridspec(n_rows, PATCHES_A_ROW)
    places = [
        top[0],
        top[1],
        *(patches[i // PATCHES_A_ROW, i % PATCHES_A_ROW] for i in range(len(star.edges))),
        *(slides[i // slide_columns, i % slide_columns] for i in range(n_slides)),
    ]
    axes = [figure.add_subplot(place) for place in places]
    for ax in axes:
        ax.set_anchor("N")
    axes[1].set_anchor("S")  # the edges start at its lower side
    return axes


def draw_plane(ax: Axes, plane: Plane) -> None:
    """TS edges on the tissue; those of the spot in question stand out."""
    from matplotlib.collections import LineCollection

    xy = plane.tissue.xy
    draw_picture(ax, plane.tissue)
    colour = EDGE_COLOUR if plane.tissue.image is not None else ink(ax)
    as_pixels = len(plane.pairs) > MAX_VECTOR_SPOTS
    thin = LineCollection(list(xy[plane.pairs]), linewidths=EDGE_PT, colors=colour, rasterized=as_pixels, zorder=2)
    ax.add_collection(thin, autolim=False)
    ax.scatter(xy[:, 0], xy[:, 1], s=NODE_PT, c=colour, linewidths=0, rasterized=as_pixels, zorder=2)
    if plane.position is not None:
        ends = np.stack([np.broadcast_to(xy[plane.position], (len(plane.neighbors), 2)), xy[plane.neighbors]], axis=1)
        for colour, width in (("white", HALO * OWN_EDGE_PT), (TARGET_COLOUR, OWN_EDGE_PT)):
            own = LineCollection(list(ends), linewidths=width, colors=colour, capstyle="round", zorder=3)
            ax.add_collection(own, autolim=False)
        x, y = xy[plane.position]
        ax.scatter(x, y, s=OWN_NODE_PT, c=TARGET_COLOUR, edgecolors="white", linewidths=0.6, zorder=3)
    ax.set_title(plane.title, fontsize=TEXT_PT)


def draw_star(axes: list[Axes], star: Star) -> None:
    """The spot, the patches of those to which its edges lead, and their places on their slides."""
    tissue, own, *rest = axes
    frames, slides = rest[: len(star.edges)], rest[len(star.edges) :]
    colours = slide_colours([place.slide for place in star.places], star.references)
    _draw_home(tissue, star.home, star.plane)
    draw_patch(own, star.home.patch, star.home.titles[1], TARGET_COLOUR)
    for ax, row, patch, note in zip(frames, star.edges.itertuples(), star.patches, star.notes, strict=True):
        colour = colours[str(row.slide)]
        draw_patch(ax, patch, "", colour)
        names = f"{row.rank}. {short(str(row.slide), MAX_LETTERS - 3)}\n{short(str(row.spot), MAX_LETTERS)}"
        ax.set_xlabel("\n".join([names, f"cosine {row.similarity:.3f}", *([note] if note else [])]), fontsize=TEXT_PT)
    for ax, slide in zip(frames[:PATCHES_A_ROW], star.edges["slide"], strict=False):
        _draw_edge(own, ax, colours[str(slide)])  # one to a lower row would cross the patches above it
    for ax, place in zip(slides, star.places, strict=True):
        _draw_slide(ax, place, colours[place.slide])


def _draw_home(ax: Axes, home: Home, plane: Plane | None) -> None:
    """The tissue of the spot in question, with its TS edges where they were asked for."""
    if plane is not None:
        draw_plane(ax, plane)
    elif home.tissue is not None:
        draw_picture(ax, home.tissue)
        draw_ring(ax, home.tissue, home.position)
    else:
        draw_empty(ax)
    ax.set_title("\n".join([home.titles[0], *([] if plane is None else [plane.title])]), fontsize=TEXT_PT)


def _draw_edge(own: Axes, other: Axes, colour: str) -> None:
    """A line from the lower side of the spot's patch to the upper side of another."""
    from matplotlib.patches import ConnectionPatch

    line = ConnectionPatch(
        xyA=(0.5, 0.0),
        coordsA=own.transAxes,
        xyB=(0.5, 1.0),
        coordsB=other.transAxes,
        color=colour,
        linewidth=OWN_EDGE_PT,
        shrinkA=0,
        shrinkB=0,
    )
    line.set_in_layout(False)
    own.figure.add_artist(line)


def _draw_slide(ax: Axes, place: Place, colour: str) -> None:
    """A reference slide with dots where edges end, their numbers beside it so that none covers another."""
    if place.tissue is None:
        draw_empty(ax)
        for spine in ax.spines.values():
            spine.set(color=colour, linewidth=FRAME_PT)
    else:
        draw_picture(ax, place.tissue)
        xy = place.tissue.xy[place.positions]
        ax.scatter(xy[:, 0], xy[:, 1], s=PLACE_PT, c=colour, edgecolors="white", linewidths=0.8, zorder=4)
        bottom, top = place.tissue.ylim
        # Of dots at one height the left one gets the upper number, so that its line passes above the others.
        order = np.lexsort((xy[:, 0], np.round((xy[:, 1] - top) / (SAME_HEIGHT * (bottom - top)))))
        heights = spread_out((xy[order, 1] - bottom) / (top - bottom), LABEL_IN / _height_in(ax, place.tissue))
        for which, height in zip(order, heights, strict=True):
            ax.annotate(
                str(place.ranks[which]),
                xy=tuple(xy[which]),
                xytext=(1.06, height),
                textcoords="axes fraction",
                ha="left",
                va="center",
                fontsize=TEXT_PT,
                arrowprops={"arrowstyle": "-", "color": ink(ax), "linewidth": 0.5, "shrinkA": 1, "shrinkB": 1.5},
            )
    ax.set_title(short(place.slide), fontsize=TEXT_PT)


def _height_in(ax: Axes, tissue: Tissue) -> float:
    """Height of the tissue in its cell, inches, before titles have taken their room."""
    width, height = whole_figure(ax).dpi_scale_trans.inverted().transform(ax.bbox.size)
    return float(min(height, width * tissue.aspect))


def spread_out(heights: np.ndarray, step: float) -> np.ndarray:
    """Heights from the top down, moved apart to at least `step` as little as their order allows, within 0 to 1."""
    from scipy.optimize import isotonic_regression

    n = len(heights)
    step = min(step, 1.0 / max(n - 1, 1))
    # With the steps taken off, what is left must only fall.
    level = isotonic_regression(np.asarray(heights) + step * np.arange(n), increasing=False).x
    # Levels between step * (n - 1) and 1 leave room for all below and above.
    return np.asarray(np.clip(level, step * (n - 1), 1.0) - step * np.arange(n))
