"""Regions that somebody drew: of geopandas, shapely, GeoJSON, or the outlines of SpatialData."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from spahgc._reading import reading
from spahgc._validate import quoted
from spahgc.io._files import existing_file
from spahgc.io._geojson import REMEDY, read_geojson

AREAL = ("Polygon", "MultiPolygon")


def read_regions(regions: Any) -> tuple[list[Any], list[str]]:
    """Geometries of shapely and their names, which are made unique.

    Parameters
    ----------
    regions
        A GeoDataFrame (its index names the regions), a mapping of names to geometries, a list of geometries, or the path
        of GeoJSON, whose features are named by ``name``, else by their classification, else by ``id``.

    Raises
    ------
    TypeError
        If it is nothing of that.
    ValueError
        If there is none, one has no area or crosses itself, or lies in 3-D.
    """
    if isinstance(regions, str | os.PathLike):
        geometries, names = _of_geojson(regions)
    elif hasattr(regions, "geometry") and hasattr(regions, "index") and not callable(regions.index):
        geometries, names = list(regions.geometry), [str(name) for name in regions.index]
    elif isinstance(regions, Mapping):
        geometries, names = list(regions.values()), [str(name) for name in regions]
    elif isinstance(regions, Iterable):
        geometries = list(regions)
        names = [f"region_{number}" for number in range(len(geometries))]
    else:
        raise _wrong_kind(regions)
    _check(geometries, names)
    return geometries, _unique(names)


def _wrong_kind(found: object) -> TypeError:
    return TypeError(
        f"regions holds a {type(found).__name__}; pass a GeoDataFrame, polygons of shapely by name or in a list, or the path of GeoJSON."
    )


def _of_geojson(path: str | os.PathLike[str]) -> tuple[list[Any], list[str]]:
    import shapely.geometry

    file = existing_file(path, "regions")
    features = [feature for feature in read_geojson(file) if feature.kind in AREAL]
    with reading(file, "the regions", REMEDY):
        geometries = [
            shapely.geometry.shape({"type": feature.kind, "coordinates": feature.coordinates}) for feature in features
        ]
    return geometries, [feature.label or f"region_{number}" for number, feature in enumerate(features)]


def _check(geometries: list[Any], names: list[str]) -> None:
    if not geometries:
        raise ValueError("regions names no region with an area. Pass at least one polygon.")
    for name, geometry in zip(names, geometries, strict=True):
        kind = getattr(geometry, "geom_type", None)
        if kind is None:
            raise _wrong_kind(geometry)
        if kind not in AREAL or geometry.is_empty or not geometry.area > 0:
            raise ValueError(f'region "{name}" is a {kind} without an area. Pass polygons.')
        if geometry.has_z:
            raise ValueError(
                f'region "{name}" is in 3-D (x, y, z), and a slide has two axes: shapely.force_2d(geometry).'
            )
        if not geometry.is_valid:
            raise ValueError(
                f'region "{name}" crosses itself. Repair it: shapely.make_valid(geometry), or draw it again.'
            )


def _unique(names: list[str]) -> list[str]:
    """Names of regions that share one get a number."""
    seen: Counter[str] = Counter()
    repeated = {name for name, count in Counter(names).items() if count > 1}
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(f"{name}_{seen[name]}" if name in repeated else name)
    if len(set(numbered)) < len(numbered):
        raise ValueError(f"names of regions are not unique: {quoted(sorted(repeated))}. Rename them.")
    return numbered
