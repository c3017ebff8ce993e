"""Outlines of spots, and of the regions that the spots of a group make together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spahgc._keys import Obsm
from spahgc._slides.polygons import shapes_of
from spahgc._slides.spatialdata import spots_on_image
from spahgc._slides.tables import is_spatialdata, table_of
from spahgc._spots.pitch import spot_pitch
from spahgc._validate import quoted
from spahgc.io._exports.content import Content

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame, GeoSeries
    from spatialdata import SpatialData

N_CORNERS = 32
"""Of the polygon that stands for a round spot."""
REACH_OF_PITCH = 0.75
"""How far a spot's region reaches from its centre, as a share of the distance of neighbours: beyond the corners of a square
(0.71) and a hexagonal (0.58) array, so that neighbours of one group touch, and not into the glass around the tissue."""


def spot_outlines(
    content: Content, data: AnnData | SpatialData, table_key: str | None, given: GeoDataFrame | GeoSeries | None
) -> list[Any] | None:
    """Polygon of every spot in pixels of the image, where they are no circles of one size: given ones, cells, bins."""
    if given is not None:
        return _of_names(content, given)
    if is_spatialdata(data) and data.images:
        polygons = spots_on_image(data, table_of(data, table_key, "the slide")).polygons
        if polygons is not None:
            return polygons
    if Obsm.polygons in content.table.obsm:
        return list(shapes_of(content.table).geometry)
    if content.square:
        from shapely import box

        half = content.diameter / 2
        return list(box(*(content.xy - half).T, *(content.xy + half).T))
    return None


def _of_names(content: Content, given: GeoDataFrame | GeoSeries) -> list[Any]:
    geometry = getattr(given, "geometry", None)
    if geometry is None:
        raise TypeError(f"shapes= must be a GeoDataFrame or GeoSeries, found {type(given).__name__}.")
    if not geometry.index.is_unique:
        raise ValueError("shapes= names spots more than once. Make its index unique.")
    rows = geometry.index.astype(str).get_indexer(content.spots)
    if (rows < 0).any():
        missing = [spot for spot, row in zip(content.spots, rows, strict=True) if row < 0]
        raise KeyError(
            f"{len(missing)} of {len(content.spots)} spots have no shape: {quoted(missing)}; the index of shapes= is "
            f"{quoted(geometry.index, 3)}. Its index must name the spots."
        )
    polygons = list(geometry.iloc[rows])
    broken = [
        spot
        for spot, polygon in zip(content.spots, polygons, strict=True)
        if polygon is None or polygon.is_empty or polygon.geom_type not in ("Polygon", "MultiPolygon")
    ]
    if broken:
        raise ValueError(
            f"shapes= holds no polygon for {len(broken)} spots: {quoted(broken)}. Remove them, or draw them."
        )
    return polygons


def circle(centre: NDArray[np.float64], diameter: float) -> NDArray[np.float64]:
    """Corners of a round spot, closed, (corners + 1) x 2."""
    angles = np.linspace(0, 2 * np.pi, N_CORNERS, endpoint=False)
    ring = centre + diameter / 2 * np.column_stack([np.cos(angles), np.sin(angles)])
    return np.vstack([ring, ring[:1]])


def group_regions(content: Content, outlines: list[Any] | None) -> list[Any]:
    """One region a group of spots, without overlap: every place belongs to its nearest spot.

    Returns
    -------
    A Polygon or MultiPolygon a group, in the order of their names; an empty one for a group without spots.
    """
    import shapely

    groups = content.groups
    if groups is None:
        return []
    cells = _cells(content.xy, outlines)
    return [shapely.union_all(cells[groups.codes == code]) for code in range(len(groups.names))]


def _cells(xy: NDArray[np.float64], outlines: list[Any] | None) -> NDArray[Any]:
    """The part of the plane that belongs to each spot: that nearer to it than to any other, within its reach."""
    import shapely

    points = shapely.points(xy)
    distinct, pitch = np.unique(xy, axis=0), spot_pitch(xy)
    if pitch is None:
        return np.asarray(outlines if outlines is not None else shapely.buffer(points, 1.0), dtype=object)
    reach = REACH_OF_PITCH * pitch
    around = shapely.box(*(xy.min(axis=0) - 2 * reach), *(xy.max(axis=0) + 2 * reach))
    parts = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(distinct), extend_to=around))
    spot, part = shapely.STRtree(parts).query(points, predicate="intersects")
    _, first = np.unique(spot, return_index=True)
    nearest: NDArray[Any] = shapely.intersection(parts[part[first]], shapely.buffer(points, reach))
    return nearest
