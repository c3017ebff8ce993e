"""The area of a spot: the outline that was drawn around it, or the circle of its diameter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from spahgc._slides.library import find_library
from spahgc._slides.polygons import Polygons, polygons_of
from spahgc._spots.pitch import SPOT_OF_PITCH, spot_pitch
from spahgc.pp._embed.inputs import InputSlide
from spahgc.pp._embed.slide_image import SlideImage

DIAMETER = "spot_diameter_fullres"
"""Scale factor: diameter of a spot, pixels of the full-resolution image."""
CIRCLE_PLACES = 32
"""Places at which a circle is looked at."""
OUTLINE_GRID = 8
"""Places at which an outline is looked at, along each side of the box around it."""
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
"""Turn from one place of a sunflower to the next, by which they are spread evenly."""


@dataclass(frozen=True, eq=False)
class SpotAreas:
    """Areas of the spots of a slide, pixels of its image."""

    xy: NDArray[np.float64]
    diameter_px: float
    """Of the circle of a spot without an outline."""
    outlines: Polygons | None

    @property
    def has_outline(self) -> NDArray[np.bool_]:
        """Which spots have an outline."""
        return np.zeros(len(self.xy), dtype=bool) if self.outlines is None else self.outlines.known

    def places(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Places spread evenly over the areas of some spots, spots x places x 2, and which of them lie within.

        A spot in whose outline none lies, since it is thinner than their distance, is looked at in its centre.
        """
        n_places = OUTLINE_GRID**2
        places = np.empty((len(rows), n_places, 2))
        within = np.zeros((len(rows), n_places), dtype=bool)
        drawn = self.has_outline[rows]
        if self.outlines is not None and drawn.any():
            places[drawn], within[drawn] = _over_outlines(self.outlines[rows[drawn]])
        circle = sunflower(CIRCLE_PLACES) * self.diameter_px / 2
        places[~drawn, :CIRCLE_PLACES] = self.xy[rows[~drawn]][:, None] + circle
        within[~drawn, :CIRCLE_PLACES] = True
        missed = ~within.any(axis=1)
        places[missed, 0], within[missed, 0] = self.xy[rows[missed]], True
        return np.where(within[..., None], places, self.xy[rows][:, None]), within

    def to_uns(self) -> dict[str, float | int]:
        """What the slide keeps of it."""
        return {"diameter_px": float(self.diameter_px), "n_outlines": int(self.has_outline.sum())}


def sunflower(n: int) -> NDArray[np.float64]:
    """Places spread evenly over the circle of radius 1, n x 2."""
    steps = np.arange(n) + 0.5
    radius, angle = np.sqrt(steps / n), steps * GOLDEN_ANGLE
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def _over_outlines(outlines: Polygons) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A grid over the box around each outline, and which of it lies within."""
    low = np.minimum.reduceat(outlines.vertices, outlines.starts[:-1])
    high = np.maximum.reduceat(outlines.vertices, outlines.starts[:-1])
    steps = (np.arange(OUTLINE_GRID) + 0.5) / OUTLINE_GRID
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    places = low[:, None] + grid * (high - low)[:, None]
    polygons = shapely.polygons(shapely.linearrings(outlines.vertices, indices=outlines.owner))
    return places, shapely.contains_xy(polygons[:, None], places[..., 0], places[..., 1])


def areas_of_spots(given: InputSlide, slide: SlideImage) -> SpotAreas:
    """The areas of the spots of a slide: outlines where it has some, else circles.

    Raises
    ------
    ValueError
        If neither a scale factor nor a second spot tells how wide they are.
    """
    if given.spots is not None:
        outlines, diameter = given.spots.outlines, given.spots.diameter_px
    else:
        drawn = polygons_of(given.table)
        outlines = None if drawn is None else drawn.moved(np.diag([slide.scale, slide.scale, 1.0]))
        library = find_library(given.table)
        known = None if library is None else library.scale_factors.get(DIAMETER)
        diameter = None if known is None else float(known) * slide.scale
    if diameter is None or not (math.isfinite(diameter) and diameter > 0):
        pitch = spot_pitch(slide.xy)
        if pitch is None:
            raise ValueError(
                f'the size of the spots of slide "{slide.name}" is not known, and a single place does not tell it. Write it '
                f'into uns["spatial"][library]["scalefactors"]["{DIAMETER}"], in pixels of the full-resolution image.'
            )
        diameter = SPOT_OF_PITCH * pitch
    return SpotAreas(slide.xy, diameter, outlines)
