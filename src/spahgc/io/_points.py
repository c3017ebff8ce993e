"""Points that somebody set or segmented, from a table, GeoJSON or a table of shapes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spahgc._reading import reading
from spahgc._slides.polygons import Polygons
from spahgc._validate import quoted, user_path
from spahgc.io._alignment import Matrix
from spahgc.io._files import existing_file
from spahgc.io._geojson import Feature, read_geojson
from spahgc.io._slide import COORDINATES, spot_table

GEOJSON_ENDINGS = (".geojson", ".json", ".geojson.gz", ".json.gz")
CLASS, KIND, NAME = "class", "object_type", "name"
"""Columns in which QuPath's classification, kind and name of an object go."""
RADIUS = "radius"
"""Column of circles in SpatialData."""


@dataclass(frozen=True, eq=False)
class PointTable:
    """Points with their names, and their outlines where they have some."""

    table: pd.DataFrame
    """Columns ``x`` and ``y``, pixels, and others."""
    polygons: Polygons | None = None


def read_points(points: Any, to_pixels: Matrix | None = None) -> PointTable:
    """Bring points of any kind into a table.

    Parameters
    ----------
    points
        A table with the columns x and y, an array of points x 2, the path of a CSV table or of GeoJSON, or a GeoDataFrame
        of points, circles or polygons.
    to_pixels
        Affine matrix from the coordinates of a GeoDataFrame to pixels of the image; ``None`` where they are the same.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no points, points in 3-D, or GeoJSON that is a bare geometry.
    """
    if isinstance(points, str | os.PathLike):
        path = existing_file(user_path(points, "points"), "points")
        if path.name.lower().endswith(GEOJSON_ENDINGS):
            return _of_features(read_geojson(path), path)
        with reading(path, "the points", "They must be a table with the columns x and y, or GeoJSON (.geojson)."):
            table = pd.read_csv(path, sep=None, engine="python")
        return PointTable(spot_table(table.rename(columns=str.strip), "points"))
    if hasattr(points, "geometry") and hasattr(points, "geom_type"):
        return _of_shapes(points, to_pixels)
    return PointTable(spot_table(points, "points"))


def _of_features(features: list[Feature], path: Path) -> PointTable:
    """Points and centroids of the objects of a file, in their order."""
    xy: list[NDArray[np.float64]] = []
    rings: list[NDArray[np.float64]] = []
    rows: list[tuple[str, str, str, str]] = []
    for number, feature in enumerate(features):
        is_area = "Polygon" in feature.kind
        outline = feature.outline() if is_area else np.empty((0, 2))
        places = Polygons.of_rings([outline]).centres if is_area else feature.points()
        name = feature.name or f"point_{number}"
        for place, point in enumerate(places):
            xy.append(point)
            rings.append(outline)
            own = name if len(places) == 1 else f"{name}_{place}"
            kind = feature.properties.get("objectType", "")
            rows.append((own, feature.classification, str(kind), str(feature.properties.get("name") or "")))
    names, *columns = zip(*rows, strict=True)
    if len(set(names)) < len(names):
        names = tuple(f"point_{number}" for number in range(len(names)))
    table = pd.DataFrame(np.array(xy), columns=list(COORDINATES), index=pd.Index(names, dtype=object))
    for column, values in zip((CLASS, KIND, NAME), columns, strict=True):
        if any(values):
            table[column] = pd.Categorical(values) if column != NAME else list(values)
    flat = [name for name, point in zip(names, xy, strict=True) if not np.isfinite(point).all()]
    if flat:
        raise ValueError(f'{len(flat)} outlines in "{path}" have no area ({quoted(flat, 3)}). Remove them.')
    polygons = Polygons.of_rings(rings)
    return PointTable(spot_table(table, "points"), polygons if polygons.known.any() else None)


def _of_shapes(shapes: Any, to_pixels: Matrix | None) -> PointTable:
    """Points, circles or polygons of a GeoDataFrame; other columns come along."""
    geometry = shapes.geometry
    if not len(geometry):
        raise ValueError("points has no rows. Pass at least one shape.")
    if bool(geometry.has_z.any()):
        raise ValueError("points are in 3-D (x, y, z), and a slide has two axes: shapely.force_2d(points.geometry).")
    kinds = sorted(set(geometry.geom_type))
    if not set(kinds) <= {"Point", "Polygon", "MultiPolygon"}:
        raise ValueError(
            f"points holds shapes that are no points and have no area: {quoted(kinds)}. Keep points and polygons."
        )
    matrix = np.eye(3) if to_pixels is None else to_pixels
    parts = [max(getattr(shape, "geoms", [shape]), key=lambda part: part.area) for shape in geometry]
    rings = [np.asarray(part.exterior.coords) if part.geom_type == "Polygon" else np.empty((0, 2)) for part in parts]
    centres = geometry.centroid
    xy = np.column_stack([centres.x, centres.y]) @ matrix[:2, :2].T + matrix[:2, 2]
    others = pd.DataFrame(shapes.drop(columns=[geometry.name, *[c for c in COORDINATES if c in shapes]]))
    if RADIUS in others and to_pixels is not None:
        others[RADIUS] = others[RADIUS] * np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    table = others.assign(**dict(zip(COORDINATES, xy.T, strict=True)))
    polygons = Polygons.of_rings(rings).moved(matrix)
    return PointTable(spot_table(table, "points"), polygons if polygons.known.any() else None)
