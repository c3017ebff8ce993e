"""A slide at any points: of a table, of QuPath, of a SpatialData, or of a grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely

import spahgc as sp
from spahgc._slides.polygons import polygons_of

MPP = 0.5


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.clip(rng.normal((190, 120, 175), 20, (900, 1200, 3)), 0, 255).astype(np.uint8)


def cell(x: float, y: float, radius: float = 10.0) -> dict[str, object]:
    return {
        "type": "Feature",
        "id": f"cell-{x:g}-{y:g}",
        "geometry": shapely.geometry.mapping(shapely.Point(x, y).buffer(radius)),
        "properties": {"objectType": "cell", "classification": {"name": "Tumor", "color": [1, 2, 3]}},
    }


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_tables_arrays_and_csv_give_the_same_points(image: np.ndarray, tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"x": [100.0, 300.5, 1000.0], "y": [50.0, 700.0, 899.0], "kind": ["a", "b", "a"]}, index=["p", "q", "r"]
    )
    slide = sp.pp.points(image, table, mpp=MPP)
    assert list(slide.obs_names) == ["p", "q", "r"]
    assert slide.shape == (3, 0)
    assert list(slide.obs["kind"]) == ["a", "b", "a"]
    np.testing.assert_array_equal(slide.obsm["spatial"], table[["x", "y"]])
    np.testing.assert_array_equal(
        sp.pp.points(image, table[["x", "y"]].to_numpy(), mpp=MPP).obsm["spatial"], table[["x", "y"]]
    )
    for separator in (",", "\t", ";"):
        table.to_csv(tmp_path / "points.csv", sep=separator)
        np.testing.assert_array_equal(
            sp.pp.points(image, tmp_path / "points.csv", mpp=MPP).obsm["spatial"], table[["x", "y"]]
        )


def test_a_number_is_a_grid_of_that_spacing(image: np.ndarray) -> None:
    slide, tiles = sp.pp.points(image, 40, mpp=MPP), sp.pp.tile(image, spacing_um=40, mpp=MPP)
    np.testing.assert_array_equal(slide.obsm["spatial"], tiles.obsm["spatial"])


def test_cells_and_points_of_qupath_are_read_in_their_order(image: np.ndarray, tmp_path: Path) -> None:
    several = {
        "type": "Feature",
        "id": "clicks",
        "geometry": {"type": "MultiPoint", "coordinates": [[5, 6], [7, 8]]},
        "properties": {"objectType": "annotation", "name": "clicked"},
    }
    content = {"type": "FeatureCollection", "features": [cell(200, 300), several, cell(400, 500, 20)]}
    for given in (content, content["features"]):
        slide = sp.pp.points(image, write(tmp_path / "objects.geojson", given), mpp=MPP)
        np.testing.assert_allclose(slide.obsm["spatial"], [[200, 300], [5, 6], [7, 8], [400, 500]], atol=1e-6)
        assert list(slide.obs_names) == ["cell-200-300", "clicks_0", "clicks_1", "cell-400-500"]
        assert list(slide.obs["class"]) == ["Tumor", "", "", "Tumor"]
        assert list(slide.obs["object_type"]) == ["cell", "annotation", "annotation", "cell"]
        circle = shapely.Point(0, 0).buffer(10).area * MPP**2
        np.testing.assert_allclose(slide.obs["area_um2"], [circle, np.nan, np.nan, 4 * circle], rtol=1e-6)
        assert list(polygons_of(slide).known) == [True, False, False, True]


def shrunk(value: Any) -> Any:
    """Coordinates a twentieth as large, so that a small image holds them."""
    return [shrunk(item) for item in value] if isinstance(value, list) else value / 20


def test_real_files_of_qupath_are_read(her2st: Path, tmp_path: Path) -> None:
    folder = her2st.parent / "files" / "qupath"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    image = np.full((1300, 1300, 3), (200, 150, 190), dtype=np.uint8)
    for name in ("demo_points.geojson", "annotations-mixed_types.geojson", "regions-Tumor.geojson"):
        content = json.loads((folder / name).read_text())
        for feature in content["features"]:
            feature["geometry"]["coordinates"] = shrunk(feature["geometry"]["coordinates"])
        path = write(tmp_path / name, content)
        shapes = [shapely.geometry.shape(feature["geometry"]) for feature in content["features"]]
        if any("LineString" in shape.geom_type for shape in shapes):
            with pytest.raises(ValueError, match="are no points and have no area"):
                sp.pp.points(image, path, mpp=5.0)
            continue
        slide = sp.pp.points(image, path, mpp=5.0)
        parts = [shape.geoms if shape.geom_type == "MultiPoint" else [shape] for shape in shapes]
        expected = np.array([[part.centroid.x, part.centroid.y] for some in parts for part in some])
        # Of several parts the largest is the point.
        whole = [part.geom_type != "MultiPolygon" for some in parts for part in some]
        np.testing.assert_allclose(slide.obsm["spatial"][whole], expected[whole], rtol=2e-2)
    with pytest.raises(ValueError, match="it is a bare geometry .MultiPolygon. and no feature.*Wrap it as a feature"):
        sp.pp.points(image, folder / "polygon.geojson", mpp=5.0)


def test_shapes_of_a_spatialdata_go_through_their_transformation(image: np.ndarray) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    geopandas = pytest.importorskip("geopandas")
    from spatialdata.models import Image2DModel, ShapesModel
    from spatialdata.transformations import Scale

    centres = np.array([[100.0, 200.0], [500.0, 600.0]])
    frame = geopandas.GeoDataFrame(geometry=[shapely.Point(*xy).buffer(6) for xy in centres * MPP], index=["a", "b"])
    shapes = ShapesModel.parse(frame.copy(), transformations={"microns": spatialdata.transformations.Identity()})
    element = Image2DModel.parse(
        image, dims=("y", "x", "c"), transformations={"microns": Scale([MPP, MPP], axes=("x", "y"))}
    )
    slide = sp.pp.points(element, shapes, mpp=MPP)
    np.testing.assert_allclose(slide.obsm["spatial"], centres, atol=1e-6)
    assert list(slide.obs_names) == ["a", "b"]
    np.testing.assert_allclose(slide.obs["area_um2"], frame.area, rtol=1e-4)
    circles = ShapesModel.parse(centres, geometry=0, radius=np.array([9.0, 9.0]))
    np.testing.assert_allclose(sp.pp.points(image, circles, mpp=MPP).obsm["spatial"], centres)
    scaled = ShapesModel.parse(frame.copy(), transformations={"microns": Scale([2.0, 2.0], axes=("x", "y"))})
    with pytest.raises(ValueError, match="nothing tells how the image lies there"):
        sp.pp.points(image, scaled, mpp=MPP)
    other = Image2DModel.parse(image, dims=("y", "x", "c"))
    with pytest.raises(ValueError, match="shapes and image share no coordinate system"):
        sp.pp.points(other, shapes, mpp=MPP)


def test_bad_points_are_named(image: np.ndarray, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    with pytest.raises(ValueError, match=r"points is an array of shape \(4, 3\).*of 3-D points pass \(x, y\)"):
        sp.pp.points(image, np.ones((4, 3)), mpp=MPP)
    flat = cell(200, 300)
    flat["geometry"] = {"type": "Point", "coordinates": [1, 2, 3]}
    with pytest.raises(ValueError, match=r"its points are in 3-D \(x, y, z\)"):
        sp.pp.points(image, write(tmp_path / "solid.geojson", [flat]), mpp=MPP)
    with pytest.raises(ValueError, match="points are in 3-D"):
        sp.pp.points(image, geopandas.GeoDataFrame(geometry=[shapely.Point(1, 2, 3)]), mpp=MPP)
    with pytest.raises(ValueError, match="1 of 2 spot centres lie outside the image"):
        sp.pp.points(image, [[5.0, 5.0], [5000.0, 5.0]], mpp=MPP)
    with pytest.raises(ValueError, match="points has no column"):
        sp.pp.points(image, pd.DataFrame({"a": [1], "b": [2]}), mpp=MPP)
    with pytest.raises(ValueError, match="points has no rows"):
        sp.pp.points(image, np.empty((0, 2)), mpp=MPP)
    with pytest.raises(ValueError, match="holds no feature"):
        sp.pp.points(image, write(tmp_path / "empty.geojson", []), mpp=MPP)
    with pytest.raises(ValueError, match="holds geometries that are no points and have no area"):
        line = {
            "type": "Feature",
            "geometry": {"type": "LineString", "coordinates": [[0, 0], [1, 1]]},
            "properties": {},
        }
        sp.pp.points(image, write(tmp_path / "line.geojson", [line]), mpp=MPP)
    with pytest.raises(ValueError, match="the GeoJSON .* cannot be read"):
        (tmp_path / "broken.geojson").write_text('{"type": "FeatureCollection", "features": [')
        sp.pp.points(image, tmp_path / "broken.geojson", mpp=MPP)
    with pytest.raises(FileNotFoundError, match="is not a file"):
        sp.pp.points(image, tmp_path / "none.geojson", mpp=MPP)


def test_outlines_in_microns_are_told_from_pixels(image: np.ndarray, tmp_path: Path) -> None:
    nuclei = [cell(x * 0.25, 20 * 0.25, 12 * 0.25 * 0.6) for x in range(20, 200, 20)]
    path = write(tmp_path / "nuclei.geojson", {"type": "FeatureCollection", "features": nuclei})
    with pytest.raises(
        ValueError, match="smaller than any cell. Their coordinates look like microns.*divide them by 0.25"
    ):
        sp.pp.points(image, path, mpp=0.25)
