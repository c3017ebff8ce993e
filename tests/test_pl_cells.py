"""Cells are drawn with their outlines, bins as squares, and very many of either as pixels."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import shapely
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc._slides.polygons import Polygons
from spahgc.pl import _footprint

mpl.use("Agg")
MPP = 0.5


def predicted(xy: np.ndarray, diameter: float = 16.0) -> AnnData:
    """A slide with a prediction of one gene that rises from left to right, on a plain picture."""
    n = len(xy)
    slide = AnnData(csr_matrix(np.ones((n, 1), np.float32)), var=pd.DataFrame(index=["A"]))
    slide.obsm["spatial"] = xy
    slide.layers["spahgc"] = (xy[:, :1] / xy[:, 0].max()).astype(np.float32)
    side = int(xy.max()) + 20
    factors = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": diameter, "microns_per_pixel": MPP}
    picture = np.full((side, side, 3), 230, dtype=np.uint8)
    slide.uns["spatial"] = {"s": {"images": {"hires": picture}, "scalefactors": factors, "metadata": {}}}
    slide.var["spahgc_panel"] = True
    slide.uns["spahgc"] = {"predictions": {"spahgc": {"units": "log1p counts per 10,000", "genes": ["A"]}}}
    return slide


def grid(n: int = 6, pitch: float = 20.0, turn: float = 0.0) -> tuple[np.ndarray, pd.DataFrame]:
    row, col = (index.ravel() for index in np.indices((n, n)))
    step = pitch * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.column_stack([col, row]) @ step + 120, pd.DataFrame({"array_row": row, "array_col": col})


def drawn(slide: AnnData, **style: object) -> mpl.collections.Collection:
    axes = sp.pl.spatial_genes(slide, "A", show=False, **style)
    (collection,) = axes[-1].collections
    return collection


def vertices(collection: mpl.collections.Collection) -> list[np.ndarray]:
    return [path.vertices[:-1] for path in collection.get_paths()]


def test_spots_stay_circles() -> None:
    assert isinstance(drawn(predicted(grid()[0])), mpl.collections.EllipseCollection)


def test_bins_of_visium_hd_are_squares_along_their_array() -> None:
    turn = np.deg2rad(20)
    xy, array = grid(turn=turn)
    slide = predicted(xy, diameter=20.0)
    slide.obs[["array_row", "array_col"]] = array.to_numpy()
    slide.uns["spatial"]["s"]["metadata"]["bin_um"] = 8
    shapes = vertices(drawn(slide))
    assert len(shapes) == slide.n_obs
    for square, centre in zip(shapes, xy, strict=True):
        np.testing.assert_allclose(square.mean(axis=0), centre)
        sides = np.diff(np.vstack([square, square[:1]]), axis=0)
        np.testing.assert_allclose(np.hypot(*sides.T), 20.0)
        assert np.arctan2(sides[0, 1], sides[0, 0]) == pytest.approx(turn)
    # Neighbours touch: bins leave no gap.
    whole = shapely.unary_union([shapely.Polygon(square).buffer(1e-6) for square in shapes])
    assert whole.geom_type == "Polygon"
    assert whole.area == pytest.approx(slide.n_obs * 400, rel=1e-3)


def test_pooled_square_tiles_are_squares_and_hexagonal_ones_circles() -> None:
    cells = predicted(np.random.default_rng(0).uniform(50, 400, (300, 2)))
    for layout, kind in (("square", mpl.collections.PolyCollection), ("hexagonal", mpl.collections.EllipseCollection)):
        tiles = sp.pp.pool(cells, spacing_um=30, diameter_um=None, layout=layout)
        tiles.layers["spahgc"] = np.asarray(tiles.X.todense())
        tiles.var["spahgc_panel"] = True
        tiles.uns["spahgc"]["predictions"] = cells.uns["spahgc"]["predictions"]
        assert isinstance(drawn(tiles), kind)


def test_cells_have_their_outlines_and_those_without_are_circles() -> None:
    xy = grid()[0]
    slide = predicted(xy)
    rings = [np.array([[-8, -5], [8, -5], [0, 9]]) + centre for centre in xy]
    rings[3] = np.empty((0, 2))
    slide.obsm["polygons"] = Polygons.of_rings(rings).as_matrix()
    shapes = vertices(drawn(slide))
    np.testing.assert_allclose(shapes[0], rings[0], atol=1e-4)
    assert len(shapes[3]) > 10
    np.testing.assert_allclose(np.hypot(*(shapes[3] - xy[3]).T), 8.0)
    twice = vertices(drawn(slide, size=2.0))
    np.testing.assert_allclose(twice[0] - xy[0], 2 * (rings[0] - xy[0]), atol=1e-4)
    part = vertices(drawn(slide, crop_coord=(100, 150, 100, 150)))
    assert 0 < len(part) < len(shapes)


def test_outlines_follow_the_scale_of_the_picture() -> None:
    xy = grid()[0]
    slide = predicted(xy)
    slide.uns["spatial"]["s"]["scalefactors"]["tissue_hires_scalef"] = 0.5
    ring = np.array([[-8, -5], [8, -5], [0, 9]])
    slide.obsm["polygons"] = Polygons.of_rings([ring + centre for centre in xy]).as_matrix()
    np.testing.assert_allclose(vertices(drawn(slide))[0], (ring + xy[0]) / 2, atol=1e-4)


def test_polygons_of_a_spatialdata_are_drawn_on_its_image() -> None:
    spatialdata = pytest.importorskip("spatialdata")
    geopandas = pytest.importorskip("geopandas")
    from spatialdata.models import Image2DModel, ShapesModel, TableModel

    xy = grid()[0]
    slide = predicted(xy)
    boxes = [shapely.box(x - 9, y - 6, x + 9, y + 6) for x, y in xy]
    shapes = ShapesModel.parse(geopandas.GeoDataFrame(geometry=boxes, index=list(slide.obs_names)))
    table = slide.copy()
    del table.uns["spatial"]
    table.obs["region"], table.obs["instance"] = pd.Categorical(["cells"] * slide.n_obs), slide.obs_names
    table = TableModel.parse(table, region="cells", region_key="region", instance_key="instance")
    picture = Image2DModel.parse(slide.uns["spatial"]["s"]["images"]["hires"], dims=("y", "x", "c"))
    sdata = spatialdata.SpatialData(images={"he": picture}, shapes={"cells": shapes}, tables={"table": table})
    (first, *_), width = vertices(drawn(sdata)), 18.0
    assert np.ptp(first[:, 0]) == pytest.approx(width)
    assert np.ptp(first[:, 1]) == pytest.approx(12.0)


def test_very_many_cells_become_pixels_with_the_mean_of_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(50, 450, (3000, 2))
    slide = predicted(xy)
    monkeypatch.setattr(_footprint, "MAX_SHAPES", 2000)
    axes = sp.pl.spatial_genes(slide, "A", show=False)
    raster = axes[-1].images[-1]
    values = raster.get_array()
    left, right, bottom, top = raster.get_extent()
    columns = np.floor((xy[:, 0] - left) / 16).astype(int)
    rows = np.floor((xy[:, 1] - top) / 16).astype(int)
    expected = pd.Series(slide.layers["spahgc"][:, 0].astype(float)).groupby([rows, columns]).mean()
    found = values[expected.index.get_level_values(0), expected.index.get_level_values(1)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.ma.count(values) == len(expected)
    # A part of the slide has few enough to be drawn one by one.
    part = sp.pl.spatial_genes(slide, "A", crop_coord=(50, 200, 50, 200), show=False)
    assert len(part[-1].collections) == 1


def test_half_a_million_cells_are_saved(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    slide = predicted(rng.uniform(0, 4000, (500_000, 2)), diameter=6.0)
    sp.pl.spatial_genes(slide, "A", save=tmp_path / "cells.png")
    assert (tmp_path / "cells.png").stat().st_size > 10_000


def test_what_is_no_outline_is_named() -> None:
    slide = predicted(grid()[0])
    slide.obsm["polygons"] = np.zeros((slide.n_obs, 4))
    with pytest.raises(ValueError, match='obsm."polygons". is a ndarray; it must be the sparse matrix'):
        sp.pl.spatial_genes(slide, "A", show=False)
    slide.obsm["polygons"] = csr_matrix(np.ones((slide.n_obs, 3)))
    with pytest.raises(ValueError, match="rows of an odd number of coordinates"):
        sp.pl.spatial_genes(slide, "A", show=False)
