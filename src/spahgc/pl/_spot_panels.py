"""Panels of the figures of one spot: slides with a mark at the spot, and patches in the colour of their slide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from spahgc._slides.categories import CATEGORY_COLOURS
from spahgc._slides.library import find_library
from spahgc._slides.spatialdata import spots_on_image
from spahgc.pl._style import TEXT_PT, shorten
from spahgc.pl._tissue import (
    SpatialKeys,
    Tissue,
    draw_scale_bar,
    draw_tissue,
    has_image,
    slide_tissue,
    tissue_of,
    tissue_on_image,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

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


def short_name(name: str, longest: int = MAX_NAME) -> str:
    """A name that fits at a patch."""
    return shorten(name, longest)


def target_tissue(data: AnnData | SpatialData, adata: AnnData, keys: SpatialKeys) -> Tissue:
    """Tissue of the target: that of the image of a SpatialData, else of the library that the table is about."""
    if not has_image(data):
        keys = replace(keys, library_id=_library_id(adata))
    return slide_tissue(data, keys)


def reference_tissue(data: AnnData | SpatialData, table: AnnData) -> Tissue:
    """Tissue of a reference, which may be a part of the object that was handed over."""
    if has_image(data):
        return tissue_on_image(spots_on_image(data, table), 1.0)
    return tissue_of(table, _library_id(table), 1.0)


def _library_id(adata: AnnData) -> str | None:
    named = find_library(adata)
    return None if named is None else named.name


def draw_slide(ax: Axes, tissue: Tissue) -> None:
    """The tissue with its scale bar; its spots only where there is no picture of it."""
    from matplotlib.colors import Normalize

    plain = np.full(len(tissue.xy), 0.3 if tissue.image is None else np.nan)
    draw_tissue(ax, tissue, plain, cmap="Greys", norm=Normalize(0, 1), img_alpha=IMAGE_ALPHA)
    draw_scale_bar(ax, tissue)


def mark_spot(ax: Axes, tissue: Tissue, position: int) -> None:
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
