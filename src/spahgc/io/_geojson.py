"""GeoJSON of points and outlines, as QuPath and Space Ranger write it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spahgc._reading import reading, unreadable
from spahgc._validate import quoted
from spahgc.io._files import read_bytes

REMEDY = "It must be GeoJSON, a FeatureCollection or a list of features; export it again."
GEOMETRIES = ("Point", "MultiPoint", "Polygon", "MultiPolygon")
"""Kinds of geometry that are read."""
N_AXES = 2


@dataclass(frozen=True, eq=False)
class Feature:
    """One object of a file."""

    name: str
    """Its ``id``, empty where it has none."""
    kind: str
    """One of the kinds that are read."""
    coordinates: Any
    """As GeoJSON has them: nested lists of numbers, x before y."""
    properties: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What a person calls it: its ``name``, else its class, else its ``id``."""
        named = self.properties.get("name")
        return str(named) if named else self.classification or self.name

    @property
    def classification(self) -> str:
        """Its class in QuPath, empty where it has none."""
        found = self.properties.get("classification")
        if isinstance(found, Mapping):
            found = found.get("name") or ": ".join(map(str, found.get("names", [])))
        return str(found) if found else ""

    def outline(self) -> NDArray[np.float64]:
        """The outer ring of a polygon, of several parts the largest; vertices x 2."""
        parts = self.coordinates if self.kind == "MultiPolygon" else [self.coordinates]
        rings = [np.asarray(part[0], dtype=np.float64) for part in parts]
        return rings[0] if len(rings) == 1 else max(rings, key=ring_area)

    def points(self) -> NDArray[np.float64]:
        """The points of a Point or MultiPoint, n x 2."""
        return np.asarray(self.coordinates, dtype=np.float64).reshape(-1, N_AXES)


def ring_area(ring: NDArray[np.float64]) -> float:
    """Area within a ring."""
    x, y = (ring - ring[0]).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def read_geojson(path: Path) -> list[Feature]:
    """Read the features of a file, packed or not.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, a bare geometry, empty, or holds lines, points in 3-D or broken coordinates.
    """
    with reading(path, "the GeoJSON", REMEDY):
        content = json.loads(read_bytes(path))
    entries = _entries(content, path)
    if not entries:
        raise ValueError(f'the GeoJSON "{path}" holds no feature. Export the objects again.')
    with reading(path, "the GeoJSON", REMEDY):
        features = [_feature(entry, index) for index, entry in enumerate(entries)]
    others = sorted({feature.kind for feature in features} - set(GEOMETRIES))
    if others:
        raise ValueError(
            f'the GeoJSON "{path}" holds geometries that are no points and have no area: {quoted(others)}. Remove them, points and '
            "polygons are read."
        )
    for feature in features:
        _check_coordinates(feature, path)
    return features


def _entries(content: object, path: Path) -> list[Any]:
    """The features of a collection, a list, or a single one."""
    if isinstance(content, list):
        return content
    kind = content.get("type") if isinstance(content, dict) else None
    if isinstance(content, dict) and kind == "FeatureCollection" and isinstance(content.get("features"), list):
        return list(content["features"])
    if isinstance(content, dict) and kind == "Feature":
        return [content]
    if isinstance(content, dict) and ("coordinates" in content or kind == "GeometryCollection"):
        raise unreadable(
            path,
            "the GeoJSON",
            f"it is a bare geometry ({kind}) and no feature, so that objects have no names and parts of one cannot be told from "
            "objects of their own",
            'Wrap it as a feature, {"type": "Feature", "geometry": {...}, "properties": {}}, or export the objects as a '
            "FeatureCollection (in QuPath: File, Export objects as GeoJSON).",
        )
    raise unreadable(path, "the GeoJSON", f"it is a {type(content).__name__} of type {kind!r}", REMEDY)


def _feature(entry: Any, index: int) -> Feature:
    if not isinstance(entry, dict) or not isinstance(entry.get("geometry"), dict):
        raise ValueError(f"entry {index} is no feature with a geometry")
    geometry, properties = entry["geometry"], entry.get("properties") or {}
    name = entry.get("id", properties.get("id", ""))
    return Feature(str(name), str(geometry.get("type")), geometry.get("coordinates"), properties)


def _check_coordinates(feature: Feature, path: Path) -> None:
    """Refuse coordinates that are no pairs of finite numbers."""
    groups = {"Point": 0, "MultiPoint": 1, "Polygon": 2, "MultiPolygon": 3}
    flat: Any = feature.coordinates
    problem = None
    try:
        for _ in range(groups[feature.kind] - 1):
            flat = [item for part in flat for item in part]
        flat = [flat] if feature.kind == "Point" else flat
        array = np.asarray(flat, dtype=np.float64)
    except (TypeError, ValueError):
        problem = "its coordinates are not nested as GeoJSON nests them, or no numbers"
    else:
        if array.ndim == 2 and array.shape[1] == 3:
            problem = "its points are in 3-D (x, y, z), and a slide has two axes: export them without z"
        elif array.ndim != 2 or array.shape[1] != N_AXES or not len(array):
            problem = f"its coordinates are of shape {array.shape}"
        elif not np.isfinite(array).all():
            problem = "its coordinates are not finite"
    if problem is not None:
        name = f' "{feature.name}"' if feature.name else ""
        raise unreadable(path, "the GeoJSON", f"a {feature.kind}{name}: {problem}", REMEDY)
