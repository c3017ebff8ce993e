"""QuPath: spots or cells as detections with measurements, groups of spots as annotations."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spahgc._files import written_whole
from spahgc.io._exports.content import Content, distinct, output_file, printable, read_content
from spahgc.io._exports.shapes import circle, group_regions, spot_outlines

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame, GeoSeries
    from spatialdata import SpatialData

ENDINGS = (".geojson", ".json")
MOST_GENES = 200
"""Genes that are written where none are named: QuPath keeps every measurement of every object in memory."""
DECIMALS = 2
"""Of a coordinate, pixels: QuPath's own number."""
DIGITS = 5
"""Significant digits of a measurement."""
CLASS_SEPARATORS = {":": "\u2236"}
"""A colon divides a class of QuPath into a class and its parts; the sign of a ratio looks the same and does not."""
SUPPORT = "support"
"""Name of the measurement that says how well the references cover a spot."""
IDENTITY = uuid.UUID("6f1f0d5e-8d0b-4b55-9f39-2d6f2a3a7a0c")
"""Names the objects of this package among all: written again, an object has the same id."""


def write_geojson(
    data: AnnData | SpatialData,
    path: str | os.PathLike[str],
    *,
    key: str = "spahgc",
    genes: str | Sequence[str] | None = None,
    groups: str | None = None,
    shapes: GeoDataFrame | GeoSeries | None = None,
    table_key: str | None = None,
) -> Path:
    """Write a prediction for QuPath: spots or cells as detections with measurements, domains as annotations.

    In QuPath open the slide's full-resolution image, then *File > Import objects from file*. A measurement is called as its
    gene, and *Measure > Show measurement maps* colours the spots by it.

    Parameters
    ----------
    data
        A slide with a prediction, or a SpatialData with such a table.
    path
        The file, ``.geojson``; one that is there is replaced.
    key
        Key of the prediction.
    genes
        Genes of its panel to write; ``None`` takes all, at most 200: those of the highest ``var[f"{key}_cv_pcc"]``.
    groups
        Column of ``obs`` whose categories become classes and annotations; ``None`` takes ``obs[f"{key}_domain"]``, where
        it is there.
    shapes
        Polygons of the spots or cells, pixels of the full-resolution image; the index names the spots. ``None`` takes those
        that the table of a SpatialData annotates, squares for bins of Visium HD, and circles for all others.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    The path. Written is a FeatureCollection in pixels of the full-resolution image (pixel i covers [i, i + 1), as in
    QuPath), coordinates to 0.01 pixel:

    - a detection a spot: `name`, `classification` (its group, with the group's colour) and `measurements`, the predicted
      genes in ``log1p counts per 10,000`` and ``support``, how well the references cover it, 0 to 1. What is not known of a
      spot (NaN) is left out;
    - an annotation a group: the places nearer to its spots than to any other spot, within three quarters of the distance of
      neighbours; locked against accidental edits.

    A colon in the name of a group becomes the sign of a ratio, since QuPath would divide the class there.

    Raises
    ------
    KeyError
        If prediction, column, coordinates or the shape of a spot is not there, or a gene is outside the panel.
    TypeError
        If `shapes` are none.
    ValueError
        If the path ends otherwise, the panel is empty, the object holds several slides, or shapes are no polygons.
    OSError
        If the file cannot be written.

    Warns
    -----
    UserWarning
        If genes are left out.

    See Also
    --------
    spahgc.pl.report : a page to look at without QuPath.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide.layers["spahgc"] = slide.layers["truth"]
    >>> path = sp.io.write_geojson(slide, pathlib.Path(tempfile.mkdtemp()) / "slide.geojson", genes=["MORPH001"])
    >>> feature = json.loads(path.read_text())["features"][0]
    >>> feature["properties"]["objectType"], list(feature["properties"]["measurements"])
    ('detection', ['MORPH001'])
    """
    file = output_file(path, ENDINGS)
    content = read_content(data, key=key, genes=genes, groups=groups, table_key=table_key, most_genes=MOST_GENES)
    outlines = spot_outlines(content, data, table_key, shapes)
    features = _features(content, outlines)
    with written_whole(file) as part, part.open("w", encoding="utf-8", newline="") as out:
        out.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(features):
            out.write(("" if number == 0 else ",") + "\n" + json.dumps(feature, ensure_ascii=False, allow_nan=False))
        out.write("\n]}\n")
    return file


def _features(content: Content, outlines: list[Any] | None) -> Iterator[dict[str, Any]]:
    """Detections in the order of the spots, then annotations in the order of the groups."""
    groups = content.groups
    classes = [] if groups is None else _classes(groups.names, groups.colours)
    measured = distinct(content.genes)
    for i, spot in enumerate(content.spots):
        outline = _ring(circle(content.xy[i], content.diameter)) if outlines is None else _polygon(outlines[i])
        properties: dict[str, Any] = {"objectType": "detection", "name": printable(spot)}
        if groups is not None and groups.codes[i] >= 0:
            properties["classification"] = classes[groups.codes[i]]
        properties["measurements"] = _measurements(content, measured, i)
        yield _feature(f"{content.name}/spot/{spot}", outline, properties)
    for code, region in enumerate(group_regions(content, outlines)):
        if groups is not None and not region.is_empty:
            properties = {
                "objectType": "annotation",
                "name": classes[code]["name"],
                "classification": classes[code],
                "isLocked": True,
            }
            yield _feature(f"{content.name}/{groups.column}/{groups.names[code]}", _polygon(region), properties)


def _feature(name: str, geometry: dict[str, Any], properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "id": str(uuid.uuid5(IDENTITY, name)), "geometry": geometry, "properties": properties}


def _classes(names: list[str], colours: list[str]) -> list[dict[str, Any]]:
    plain = distinct(names, forbidden=CLASS_SEPARATORS)
    return [{"name": name, "color": _rgb(colour)} for name, colour in zip(plain, colours, strict=True)]


def _rgb(colour: str) -> list[int]:
    from matplotlib.colors import to_rgb

    return [round(255 * part) for part in to_rgb(colour)]


def _measurements(content: Content, names: list[str], spot: int) -> dict[str, float]:
    values = {name: float(value) for name, value in zip(names, content.values[spot], strict=True)}
    if content.support is not None:
        values.setdefault(SUPPORT, float(content.support[spot]))
    return {name: float(f"{value:.{DIGITS}g}") for name, value in values.items() if np.isfinite(value)}


def _ring(corners: NDArray[np.float64]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [corners.round(DECIMALS).tolist()], "isEllipse": True}


def _polygon(outline: Any) -> dict[str, Any]:
    """Polygon or MultiPolygon as GeoJSON has it, valid also once its corners are rounded."""
    import shapely

    rounded = shapely.set_precision(shapely.make_valid(outline), grid_size=10.0**-DECIMALS)
    coordinates = [
        [np.asarray(ring.coords)[:, :2].round(DECIMALS).tolist() for ring in (part.exterior, *part.interiors)]
        for part in shapely.get_parts(rounded)
        if part.geom_type == "Polygon"
    ]
    if len(coordinates) == 1:
        return {"type": "Polygon", "coordinates": coordinates[0]}
    return {"type": "MultiPolygon", "coordinates": coordinates}
