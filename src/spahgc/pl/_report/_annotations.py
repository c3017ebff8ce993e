"""Regions that somebody drew on the full-resolution image, as a page lays them over its maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spahgc._slides.categories import category_colours
from spahgc.pl._report._placing import Placing
from spahgc.pl._tissue import Tissue
from spahgc.pp._pool.regions import read_regions

TOLERANCE = 0.02
"""By how much an outline may be simplified, as a share of a spot's diameter: nobody sees it, and files get smaller."""
DECIMALS = 2
"""Of the coordinates of a page."""


@dataclass(frozen=True)
class Annotation:
    """An outline with a name: rings in the coordinates of the tissue, those of holes among them."""

    name: str
    colour: str
    rings: list[list[list[float]]]


def annotations_of(regions: Any, tissue: Tissue, placing: Placing | None) -> list[Annotation]:
    """Annotations on the tissue.

    Parameters
    ----------
    regions
        Path of GeoJSON, a GeoDataFrame, or polygons of shapely by name or in a list, in full-resolution pixels; ``None``
        for none.
    tissue
        Where the spots lie on the page.
    placing
        Where it lies in the full-resolution image.

    Raises
    ------
    TypeError
        If it is nothing of that.
    ValueError
        If there is no polygon, or none of them comes near the spots.
    """
    if regions is None:
        return []
    geometries, names = read_regions(regions)
    if placing is None:
        raise ValueError(
            "annotations cannot be laid over a slide whose spots lie all at one place. Leave annotations= out."
        )
    reach = tissue.diameter
    (left, top), (right, bottom) = tissue.xy.min(axis=0) - reach, tissue.xy.max(axis=0) + reach
    found, is_near = [], False
    for name, geometry, colour in zip(names, geometries, category_colours(len(names)), strict=True):
        parts = list(getattr(geometry, "geoms", [geometry]))
        tolerance = TOLERANCE * tissue.diameter * placing.pixels_per_unit
        rings = [
            placing.to_tissue(np.asarray(ring.simplify(tolerance).coords, dtype=np.float64)[:, :2])[:-1]
            for part in parts
            for ring in (part.exterior, *part.interiors)
        ]
        edges = np.concatenate(rings)
        low, high = edges.min(axis=0), edges.max(axis=0)
        is_near |= bool((low < [right, bottom]).all() and (high > [left, top]).all())
        found.append(Annotation(name, colour, [ring.round(DECIMALS).tolist() for ring in rings]))
    if not is_near:
        (x0, y0), (x1, y1) = (placing.to_pixels(np.array(corner)) for corner in ((left, top), (right, bottom)))
        raise ValueError(
            f"none of the {len(found)} annotations comes near the spots, which lie from x={x0:.0f} to {x1:.0f} and from "
            f"y={y0:.0f} to {y1:.0f}. Pass them in pixels of the full-resolution image of this slide."
        )
    return found
