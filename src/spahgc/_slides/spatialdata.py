"""Spots of a SpatialData on one of its images: shapes, their transformation, and the pixels below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spahgc._keys import UNS, Uns
from spahgc._logging import warn
from spahgc._slides.polygons import Polygons
from spahgc._slides.resolution import noted_mpp
from spahgc._slides.tables import Annotation, annotation
from spahgc._validate import quoted
from spahgc.image import open_image

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData
    from xarray import DataArray, DataTree

AffineMatrix: TypeAlias = NDArray[np.float64]
"""Affine transformation of (x, y, 1), 3 x 3."""

SAME_PX = 0.01
"""Two transformations that put every spot within this distance, pixels, are the same."""
SAME_EXTENT = 0.01
"""Images whose corners lie this near to each other, as a share of their longer side, show the same piece of tissue."""
ROUNDING_PX = 2.0
"""The same in pixels of the coarser image: its sides are whole numbers."""
MICRON_SYSTEMS = frozenset({"micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres", "um", "µm"})
"""Names of coordinate systems whose unit is the micrometre. SpatialData records no unit but in the name."""
N_COLOURS = 3
"""Channels that an image in colours has at least."""
SET_TRANSFORMATION = "spatialdata.transformations.set_transformation"


class UnusableElementError(ValueError):
    """An image of a SpatialData that is no 8-bit image in grey or RGB(A)."""

    def __init__(self, key: str, reason: ValueError) -> None:
        super().__init__(f'image "{key}" of the SpatialData cannot be read: {reason}')
        self.reason = reason


@dataclass(frozen=True, eq=False)
class SpotsOnImage:
    """The spots of a table, on an image."""

    xy: NDArray[np.float64]
    """Centres ``(x, y)`` in pixels of the image at full resolution (pixel i covers [i, i + 1)), a row a spot."""
    image: DataArray | DataTree
    """The image element: DataArray, or DataTree if it has several scales."""
    image_key: str
    mpp: float | None
    """Microns per pixel, where something says so."""
    diameter_px: float | None
    """Median diameter of a spot, pixels; of polygons that of a circle of their area."""
    geometry: Any = None
    """Geometries of the spots in their own coordinates, as geopandas has them."""
    to_image: AffineMatrix | None = None
    """From these to pixels of the image."""

    @property
    def polygons(self) -> list[Any] | None:
        """Shapes in pixels as shapely has them, where all are polygons: all parts, with their holes."""
        if self.to_image is None or not self._has_polygons:
            return None
        a = self.to_image
        return list(self.geometry.affine_transform([*a[0, :2], *a[1, :2], *a[:2, 2]]))

    @property
    def _has_polygons(self) -> bool:
        return self.geometry is not None and set(self.geometry.geom_type) <= {"Polygon", "MultiPolygon"}

    @property
    def outlines(self) -> Polygons | None:
        """Outlines in pixels, where all shapes are polygons; of several parts the largest."""
        if self.to_image is None or not self._has_polygons:
            return None
        parts = [max(getattr(shape, "geoms", [shape]), key=lambda part: part.area) for shape in self.geometry]
        return Polygons.of_rings([np.asarray(part.exterior.coords)[:, :2] for part in parts]).moved(self.to_image)


@dataclass(frozen=True, eq=False)
class _Shapes:
    """The spots of a table as their element of shapes has them."""

    region: str
    xy: NDArray[np.float64]
    """Centres in the element's own coordinates."""
    diameter: float | None
    transformations: Mapping[str, AffineMatrix]
    """To every coordinate system in which the element stands."""
    geometry: Any
    """Their geometries, a row a spot."""


@dataclass(frozen=True, eq=False)
class _Candidate:
    """An image, and the way from the spots to its pixels."""

    key: str
    matrix: AffineMatrix
    size: tuple[int, int]
    """Width and height, pixels."""
    n_channels: int

    @property
    def scale(self) -> float:
        """Pixels per unit of the spots' own coordinates."""
        return _length_scale(self.matrix)

    @property
    def corners(self) -> NDArray[np.float64]:
        """Corners of the image in the spots' own coordinates, 4 x 2."""
        width, height = self.size
        square = np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=np.float64)
        return _transform_points(_inverse(self.matrix), square)


def spots_on_image(
    sdata: SpatialData,
    table: AnnData,
    *,
    image_key: str | None = None,
    coordinate_system: str | None = None,
) -> SpotsOnImage:
    """Find the spots of a table on an image of its SpatialData.

    The centres of circles, or the centroids of polygons, go through the transformation of the shapes to the coordinate
    system, and through the inverse of the image's to its pixels.

    Parameters
    ----------
    sdata
        The object.
    table
        One of its tables, or some rows of it. It must annotate a single element of shapes.
    image_key
        Key of the image; ``None`` takes the only one, or the finest of several that show the same piece of tissue
        (``*_full_image`` before ``*_hires_image`` before ``*_lowres_image``). Of several, those that cannot be H&E are
        left out with a warning: 16 bits, other channels than RGB, or one channel beside images in colours.
    coordinate_system
        Coordinate system in which shapes and image meet; ``None`` takes any that they share, as long as all of them
        put the spots at the same place.

    Raises
    ------
    KeyError
        If an image, a coordinate system or an element is not there, or shapes lack instances of the table.
    ValueError
        If there is no image, if image or coordinate system cannot be told without being named, if the table annotates
        no or several elements, or if the image is no 8-bit one.
    """
    spots = _spots_of(sdata, table)
    if not sdata.images:
        raise ValueError(
            "the SpatialData has no image. Add the H&E image: "
            'sdata.images["he"] = spatialdata.models.Image2DModel.parse(pixels, dims=("y", "x", "c"), transformations=...).'
        )
    if image_key is not None and image_key not in sdata.images:
        raise KeyError(f'image_key="{image_key}" not found in the SpatialData, its images are {quoted(sdata.images)}.')
    _check_system(sdata, spots, coordinate_system)
    chosen, is_finest = _choose(sdata, spots, image_key, coordinate_system)
    element = sdata.images[chosen.key]
    return SpotsOnImage(
        xy=_transform_points(chosen.matrix, spots.xy),
        image=element,
        image_key=chosen.key,
        mpp=_image_mpp(table, chosen.key, _transformations(element), is_finest),
        diameter_px=None if spots.diameter is None else spots.diameter * chosen.scale,
        geometry=spots.geometry,
        to_image=chosen.matrix,
    )


def spots_of_shapes(sdata: SpatialData, table: AnnData) -> NDArray[np.float64]:
    """Centres of the spots of a table in the coordinates of their own shapes, whatever images are there."""
    return _spots_of(sdata, table).xy


def spots_in_plane(sdata: SpatialData, table: AnnData) -> NDArray[np.float64]:
    """Centres of the spots of a table: on the image, or in the coordinates of the shapes if there is no image."""
    return spots_on_image(sdata, table).xy if sdata.images else _spots_of(sdata, table).xy


def element_matrix(shapes: Any, image: Any) -> AffineMatrix | None:
    """The way from a table of shapes to the pixels of an image, where both are elements of a SpatialData.

    Parameters
    ----------
    shapes
        Anything; what is no element of shapes has no way of its own.
    image
        The image; a file or an array has none either, and shapes must then be in its pixels as they are.

    Returns
    -------
    3 x 3, or ``None`` where the coordinates are pixels as they are.

    Raises
    ------
    ValueError
        If they share no coordinate system, or shapes have a transformation and the image is no element that tells where it
        leads.
    """
    if "transform" not in getattr(shapes, "attrs", {}):
        return None
    of_shapes = _transformations(shapes)
    if "transform" not in getattr(image, "attrs", {}) and not hasattr(image, "children"):
        if all(np.allclose(matrix, np.eye(3)) for matrix in of_shapes.values()):
            return None
        raise ValueError(
            f"the shapes have a transformation (to {quoted(of_shapes)}), and nothing tells how the image lies there. Pass the image of the "
            'SpatialData, sdata["image"], or shapes in its pixels: spatialdata.transform(shapes, to_coordinate_system=...).'
        )
    of_image = _transformations(image)
    shared = [system for system in of_shapes if system in of_image]
    if not shared:
        raise ValueError(
            f"shapes and image share no coordinate system: the shapes are in {quoted(of_shapes)}, the image in {quoted(of_image)}. Align "
            f"them with {SET_TRANSFORMATION}."
        )
    return _inverse(of_image[shared[0]]) @ of_shapes[shared[0]]


def _transform_points(matrix: AffineMatrix, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Transform points, n x 2."""
    return np.asarray(xy @ matrix[:2, :2].T + matrix[:2, 2])


def _inverse(matrix: AffineMatrix) -> AffineMatrix:
    """The way back."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _length_scale(matrix: AffineMatrix) -> float:
    """Mean factor on lengths."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def _spots_of(sdata: SpatialData, table: AnnData) -> _Shapes:
    """The geometries of a table's rows, in their order."""
    annotated = annotation(table)
    if annotated is None:
        raise ValueError(
            f"the table annotates nothing, so that its spots have no place in the SpatialData (shapes: "
            f"{quoted(sdata.shapes)}). Name them: spatialdata.models.TableModel.parse(adata, region=..., "
            "region_key=..., instance_key=...)."
        )
    if len(annotated.regions) != 1:
        raise ValueError(
            f"the table annotates several elements ({quoted(annotated.regions)}), each of which is a slide of its own. "
            f'Take one at a time: sdata.subset(["{annotated.regions[0]}", *sdata.images]).'
        )
    region = annotated.regions[0]
    shapes = _shapes_of(sdata, region, annotated)
    rows = _rows_of(shapes, region, table.obs[annotated.instance_key])
    geometry = shapes.geometry.iloc[rows]
    centres = geometry.centroid
    return _Shapes(
        region,
        np.column_stack([centres.x, centres.y]).astype(np.float64),
        _diameter(shapes, rows),
        _transformations(shapes),
        geometry,
    )


def _shapes_of(sdata: SpatialData, region: str, annotated: Annotation) -> GeoDataFrame:
    if region in sdata.shapes:
        return sdata.shapes[region]
    if region in sdata.labels or region in sdata.points:
        # Points have no size of their own.
        kind, radius = ("labels", "") if region in sdata.labels else ("points", ", radius=...")
        raise ValueError(
            f'the table annotates "{region}", which are {kind}, and spots must be shapes. Make circles of them, '
            f'sdata.shapes["{region}_circles"] = spatialdata.to_circles(sdata["{region}"]{radius}), and let the table '
            f'annotate these: table.obs["{annotated.region_key}"] = "{region}_circles"; '
            f'spatialdata.models.TableModel.parse(table, region="{region}_circles", '
            f'region_key="{annotated.region_key}", instance_key="{annotated.instance_key}", overwrite_metadata=True).'
        )
    raise KeyError(
        f'the table annotates "{region}", which is not in the SpatialData: its shapes are {quoted(sdata.shapes)}. '
        "Add the element, or correct the column of obs that names it."
    )


def _rows_of(shapes: GeoDataFrame, region: str, instances: pd.Series) -> NDArray[np.int64]:
    """Row of the shapes for every row of the table: joined by their names, never by their order."""
    if not shapes.index.is_unique:
        repeated = shapes.index[shapes.index.duplicated()].unique()
        raise ValueError(
            f'shapes "{region}" name {quoted(repeated)} more than once, so that no spot of the table can be told by '
            "its name. Make their index unique."
        )
    rows = shapes.index.get_indexer(pd.Index(instances))
    missing = instances[rows < 0]
    if len(missing):
        raise KeyError(
            f'{len(missing)} of {len(instances)} spots of the table are not in shapes "{region}": obs["'
            f'{instances.name}"] has {quoted(missing)} ({instances.dtype}), the index of the shapes '
            f"{quoted(shapes.index, 3)} ({shapes.index.dtype}). Correct one of the two, or keep the spots that have a "
            f'shape: sdata[table_name] = spatialdata.match_table_to_element(sdata, "{region}", table_name=table_name).'
        )
    return np.asarray(rows, dtype=np.int64)


def _diameter(shapes: GeoDataFrame, rows: NDArray[np.int64]) -> float | None:
    """Median diameter of the spots in their own coordinates."""
    if not len(rows):
        return None
    if "radius" in shapes:
        return float(2 * np.median(shapes["radius"].to_numpy()[rows]))
    area = float(np.median(shapes.geometry.iloc[rows].area))
    return float(2 * np.sqrt(area / np.pi)) if area > 0 else None


def _transformations(element: DataArray | DataTree | GeoDataFrame) -> dict[str, AffineMatrix]:
    """Affine matrices of an element to its coordinate systems, in (x, y)."""
    from spatialdata.transformations import get_transformation

    return {
        str(system): np.asarray(transformation.to_affine_matrix(("x", "y"), ("x", "y")), dtype=np.float64)
        for system, transformation in dict(get_transformation(element, get_all=True)).items()
    }


def _check_system(sdata: SpatialData, spots: _Shapes, coordinate_system: str | None) -> None:
    if coordinate_system is None or coordinate_system in spots.transformations:
        return
    if coordinate_system not in sdata.coordinate_systems:
        raise KeyError(
            f'coordinate_system="{coordinate_system}" not found in the SpatialData, its coordinate systems are '
            f"{quoted(sdata.coordinate_systems)}."
        )
    raise KeyError(
        f'shapes "{spots.region}" have no transformation to coordinate_system="{coordinate_system}", but to '
        f"{quoted(spots.transformations)}. Pass one of these, or set it with {SET_TRANSFORMATION}."
    )


def _choose(
    sdata: SpatialData, spots: _Shapes, image_key: str | None, coordinate_system: str | None
) -> tuple[_Candidate, bool]:
    """The image, and whether none of those that show the same tissue is finer."""
    systems = {key: list(_transformations(sdata.images[key])) for key in sdata.images}
    systems_of_shapes = set(spots.transformations) if coordinate_system is None else {coordinate_system}
    reachable = [key for key in systems if systems_of_shapes & set(systems[key])]
    if not reachable or (image_key is not None and image_key not in reachable):
        images = "; ".join(f'"{key}" in {quoted(systems[key])}' for key in systems if image_key in (None, key))
        shown = f'"{coordinate_system}"' if coordinate_system is not None else quoted(spots.transformations)
        raise ValueError(
            f'shapes "{spots.region}" and the image share no coordinate system: the shapes are looked at in {shown}, '
            f"images are {images}. Align them with {SET_TRANSFORMATION}, or pass another image_key= or "
            "coordinate_system=."
        )
    if image_key is not None:
        chosen = _candidate(sdata, spots, image_key, coordinate_system)
        return chosen, not any(_is_finer(sdata, spots, key, coordinate_system, chosen) for key in reachable)
    candidates = _readable_candidates(sdata, spots, reachable, coordinate_system)
    finest = max(candidates, key=lambda candidate: candidate.scale)
    for other in candidates:
        if other is not finest and (finest.scale <= other.scale * (1 + SAME_EXTENT) or not _same_extent(finest, other)):
            raise ValueError(
                f'the SpatialData has several images that shapes "{spots.region}" may lie on: {quoted(_keys(candidates))}. '
                "They differ in more than their resolution, or not even in that. Say which one with image_key=."
            )
    return finest, True


def _keys(candidates: Sequence[_Candidate]) -> list[str]:
    return [candidate.key for candidate in candidates]


def _readable_candidates(
    sdata: SpatialData, spots: _Shapes, keys: Sequence[str], coordinate_system: str | None
) -> list[_Candidate]:
    """The images that can be H&E; what is left out of several is named with the reason.

    Beside the H&E image there is often one of fluorescence, with 16 bits or other channels than RGB. An image of one
    channel counts where no other has three.
    """
    candidates, reasons = [], {}
    for key in keys:
        try:
            candidates.append(_candidate(sdata, spots, key, coordinate_system))
        except UnusableElementError as error:
            if len(keys) == 1:
                raise
            reasons[key] = str(error.reason)
    coloured = [candidate for candidate in candidates if candidate.n_channels >= N_COLOURS]
    if coloured and len(coloured) < len(candidates):
        reasons |= dict.fromkeys(set(_keys(candidates)) - set(_keys(coloured)), "it has one channel, and H&E has three")
        candidates = coloured
    described = "; ".join(f'"{key}": {reasons[key]}' for key in keys if key in reasons)
    if not candidates:
        raise ValueError(f"no image of the SpatialData can be H&E. {described}")
    if reasons:
        warn(
            f"images of the SpatialData were left out when one was chosen, image_key= names one: {described}",
            stacklevel=2,
        )
    return candidates


def _is_finer(sdata: SpatialData, spots: _Shapes, key: str, coordinate_system: str | None, than: _Candidate) -> bool:
    """Whether an image shows the same tissue as another in more pixels."""
    try:
        other = _candidate(sdata, spots, key, coordinate_system)
    except ValueError:
        return False  # it cannot be read or placed, and was not asked for
    return other.scale > than.scale * (1 + SAME_EXTENT) and _same_extent(than, other)


def _candidate(sdata: SpatialData, spots: _Shapes, key: str, coordinate_system: str | None) -> _Candidate:
    """An image with the way to its pixels; refuses one that has several ways, or none."""
    element = sdata.images[key]
    to_image: dict[str, AffineMatrix] = {}
    for system, matrix in _transformations(element).items():
        if system not in spots.transformations or coordinate_system not in (None, system):
            continue
        for label, way in ((f'image "{key}"', matrix), (f'shapes "{spots.region}"', spots.transformations[system])):
            if np.linalg.det(way) == 0:
                raise ValueError(
                    f'the transformation of {label} to "{system}" has no inverse. Set another with {SET_TRANSFORMATION}.'
                )
        to_image[system] = _inverse(matrix) @ spots.transformations[system]
    for (one, first), (other, second) in combinations(to_image.items(), 2):
        apart = np.abs(_transform_points(first, spots.xy) - _transform_points(second, spots.xy)).max(initial=0.0)
        if apart > SAME_PX:
            raise ValueError(
                f'coordinate systems "{one}" and "{other}" put the spots of shapes "{spots.region}" at different '
                f'places of image "{key}" (up to {apart:.4g} px apart). Say which one counts with coordinate_system=: '
                f"{quoted(to_image, limit=len(to_image))}."
            )
    try:
        with open_image(element) as image:
            size = image.width, image.height
    except ValueError as error:
        raise UnusableElementError(key, error) from error
    return _Candidate(key, next(iter(to_image.values())), size, _n_channels(element))


def _n_channels(element: DataArray | DataTree) -> int:
    from spatialdata.models import get_channel_names

    return len(get_channel_names(element))


def _same_extent(one: _Candidate, other: _Candidate) -> bool:
    """Whether two images show the same piece of tissue, whatever their resolution."""
    longest = max(one.size) / one.scale
    allowed = max(SAME_EXTENT * longest, ROUNDING_PX / min(one.scale, other.scale))
    # A turned or mirrored image has the same corners in another order.
    apart = np.linalg.norm(one.corners[:, None] - other.corners[None], axis=2)
    return bool((apart.min(axis=1) <= allowed).all() and (apart.min(axis=0) <= allowed).all())


def _image_mpp(table: AnnData, key: str, transformations: Mapping[str, AffineMatrix], is_finest: bool) -> float | None:
    """Microns per pixel of an image: by a coordinate system in microns, or as they were recorded for this image."""
    for system, matrix in transformations.items():
        if system.lower() in MICRON_SYSTEMS:
            return _length_scale(matrix)
    noted_key = table.uns.get(UNS, {}).get(Uns.slide_image)
    return noted_mpp(table) if (is_finest if noted_key is None else str(noted_key) == key) else None
