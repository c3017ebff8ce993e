"""The slides of a figure: one or several, each with its name and its tissue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from anndata import AnnData

from spahgc._slides.split import located_slides, placed_tables
from spahgc._slides.tables import is_spatialdata, table_of
from spahgc._validate import check_anndata
from spahgc.pl._tissue import Crop, SpatialKeys, Tissue, View, check_crop, slide_tissue

if TYPE_CHECKING:
    from spatialdata import SpatialData

    Slide: TypeAlias = AnnData | SpatialData
    Slides: TypeAlias = Slide | Iterable[Slide]

MANY_PANELS = 8
"""A figure of more panels than this gets pictures of half the pixels, or it would take gigabytes."""


@dataclass(frozen=True)
class FigureSlide:
    """One slide of a figure."""

    name: str
    label: str
    """How messages call it."""
    data: Slide
    """What the caller passed."""
    table: AnnData


def figure_slides(data: Slides, table_key: str | None) -> list[FigureSlide]:
    """The slides in the caller's order; refuses what is none, and two of one name.

    Parameters
    ----------
    data
        An AnnData or SpatialData, or several of them. One that stands alone has no name in the figure.
    table_key
        Key of the table of every SpatialData; ``None`` takes the only one.
    """
    items = as_list(data)
    if not items:
        raise ValueError("no slide was given. Pass an AnnData or a SpatialData with a prediction, or a list of them.")
    if len(items) == 1:
        table = table_of(items[0], table_key, "the slide")
        check_anndata(table, "the slide")
        return [FigureSlide("", "the slide", items[0], table)]
    tables = [table_of(item, table_key, f"slide number {i + 1}") for i, item in enumerate(items)]
    located = located_slides(placed_tables(items, table_key, "slide"), "slide")
    names = {i: name for name, (i, _) in located.items()}
    return [
        FigureSlide(names[i], f'slide "{names[i]}"', item, table)
        for i, (item, table) in enumerate(zip(items, tables, strict=True))
    ]


def as_list(data: Slides) -> list[Slide]:
    """The slides as a list; what is neither a slide nor several of them is left to the checks of a slide."""
    if is_spatialdata(data) or isinstance(data, AnnData | str | bytes | dict) or not isinstance(data, Iterable):
        return [data]
    return list(data)


def figure_tissues(
    slides: Sequence[FigureSlide],
    keys: SpatialKeys,
    *,
    size: float,
    crop_coord: Crop | Sequence[Crop | None] | None,
    n_panels: int,
) -> list[Tissue]:
    """Picture and spots of every slide.

    Parameters
    ----------
    slides
        The slides.
    keys
        Where tables and images are.
    size
        Factor on the spots' diameter.
    crop_coord
        One part for all slides, or one for each.
    n_panels
        Panels of the whole figure.
    """
    if keys.library_id is not None and len(slides) > 1:
        raise ValueError(
            f'library_id="{keys.library_id}" names the picture of one slide, {len(slides)} slides were given. Leave it out: '
            'each slide takes its only library, or the one that its obs["slide"] names.'
        )
    detail = 0.5 if n_panels > MANY_PANELS else 1.0
    return [
        slide_tissue(slide.data, keys, size=size, view=View(crop, detail))
        for slide, crop in zip(slides, _crops(crop_coord, len(slides)), strict=True)
    ]


def _crops(crop_coord: Crop | Sequence[Crop | None] | None, n_slides: int) -> list[Crop | None]:
    """The part of every slide that is shown; ``None`` for the whole."""
    if crop_coord is None:
        return [None] * n_slides
    if isinstance(crop_coord, str | bytes) or not isinstance(crop_coord, Iterable):
        raise TypeError(f"crop_coord must be four numbers (left, right, top, bottom), found {crop_coord!r}.")
    parts: list[Any] = list(crop_coord)
    if all(np.ndim(part) == 0 and part is not None for part in parts):
        return [check_crop(parts)] * n_slides
    if len(parts) != n_slides:
        raise ValueError(
            f"crop_coord holds {len(parts)} parts of {n_slides} slides. Pass (left, right, top, bottom) for all of them, "
            "or one such for each slide and None for a whole one."
        )
    return [None if part is None else check_crop(part) for part in parts]
