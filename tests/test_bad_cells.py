"""Bad cells, outlines and panels are named before any long work, whichever reader gets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from anndata import AnnData
from PIL import Image

import spahgc as sp

MPP = 0.5


@pytest.fixture(scope="module")
def cells() -> AnnData:
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=20, n_genes=20, n_domains=2, cells=True, seed=2)
    return slide[::4].copy()


@pytest.fixture
def he(cells: AnnData, tmp_path: Path) -> Path:
    (library,) = cells.uns["spatial"].values()
    Image.fromarray(library["images"]["hires"]).save(tmp_path / "he.png")
    return tmp_path / "he.png"


def tables(cells: AnnData) -> tuple[pd.DataFrame, pd.DataFrame]:
    counts = pd.DataFrame(cells.X.toarray(), index=cells.obs_names, columns=cells.var_names)
    return counts, pd.DataFrame(cells.obsm["spatial"], index=cells.obs_names, columns=["x", "y"])


def outlines(cells: AnnData, factor: float = 1.0, *, bare: bool = False, solid: bool = False) -> dict[str, Any]:
    """GeoJSON of a circle of 8 um around each cell."""
    shapes = [shapely.Point(*(factor * xy)).buffer(factor * 8) for xy in cells.obsm["spatial"]]
    if solid:
        shapes = [shapely.force_3d(shape, 1.0) for shape in shapes]
    if bare:
        return shapely.geometry.mapping(shapely.MultiPolygon(shapes))
    features = [
        {"type": "Feature", "id": name, "properties": {}, "geometry": shapely.geometry.mapping(shape)}
        for name, shape in zip(cells.obs_names, shapes, strict=True)
    ]
    return {"type": "FeatureCollection", "features": features}


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def everywhere(cells: AnnData, he: Path, path: Path) -> list[Any]:
    """All functions that take outlines as a file."""
    counts, places = tables(cells)
    return [
        lambda: sp.io.cells(counts, places, he, polygons=path, mpp=MPP),
        lambda: sp.pp.points(he, path, mpp=MPP),
        lambda: sp.pp.pool(cells, regions=path),
    ]


def test_a_bare_geometry_is_refused_wherever_outlines_are_read(cells: AnnData, he: Path, tmp_path: Path) -> None:
    for call in everywhere(cells, he, write(tmp_path / "bare.geojson", outlines(cells, bare=True))):
        with pytest.raises(ValueError, match="it is a bare geometry .MultiPolygon. and no feature.*FeatureCollection"):
            call()


def test_outlines_in_3d_are_refused_wherever_they_are_read(cells: AnnData, he: Path, tmp_path: Path) -> None:
    for call in everywhere(cells, he, write(tmp_path / "solid.geojson", outlines(cells, solid=True))):
        with pytest.raises(ValueError, match=r"its points are in 3-D \(x, y, z\).*export them without z"):
            call()


def test_outlines_in_microns_are_refused_with_cells_and_as_points(cells: AnnData, he: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "microns.geojson", outlines(cells, 0.2))
    of_cells, of_points, _ = everywhere(cells, he, path)
    with pytest.raises(ValueError, match="in microns"):
        of_cells()
    with pytest.raises(ValueError, match="smaller than any cell. Their coordinates look like microns"):
        of_points()


def test_a_dapi_image_is_refused_by_every_reader_of_cells(cells: AnnData, tmp_path: Path) -> None:
    counts, places = tables(cells)
    glow = np.random.default_rng(0).poisson(300, (1400, 1400)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "deep.ome.tif", glow)
    Image.fromarray((glow // 16).astype(np.uint8)).save(tmp_path / "grey.png")
    for name in ("deep.ome.tif", "grey.png"):
        for call in (
            lambda path: sp.io.cells(counts, places, path, mpp=MPP),
            lambda path: sp.pp.points(path, np.full((3, 2), 300.0), mpp=MPP),
            lambda path: sp.pp.tile(path, mpp=MPP),
        ):
            with pytest.raises(ValueError, match="H&E"):
                call(tmp_path / name)


def test_positions_in_3d_are_refused_where_a_slide_already_has_them(cells: AnnData) -> None:
    slide = cells.copy()
    slide.obsm["spatial"] = np.column_stack([slide.obsm["spatial"], np.ones(slide.n_obs)])
    for call in (
        lambda: sp.pp.embed(slide, encoder="efficientnet_lite0", context=False),
        lambda: sp.pp.pool(slide, spacing_um=100),
        lambda: sp.pp.spatial_graph(slide),
    ):
        with pytest.raises(ValueError, match=r'obsm\["spatial"\].*\(x, y\)'):
            call()


def panels(cohort: list[AnnData], *lists: slice) -> list[AnnData]:
    return [slide[:, genes].copy() for slide, genes in zip(cohort, lists, strict=False)]


def test_panels_without_a_common_gene_are_refused_among_references_and_for_the_target(cohort: list[AnnData]) -> None:
    target, one, other = panels(cohort, slice(0, 60), slice(0, 30), slice(30, 60))
    with pytest.raises(ValueError, match="the references have no gene in common"):
        sp.tl.predict(target, [one, other])
    with pytest.raises(ValueError, match="the references have no gene in common"):
        sp.pp.reference_bank([one, other])
    target, one, other = panels(cohort, slice(0, 20), slice(20, 60), slice(20, 60))
    with pytest.raises(ValueError, match="the target has none of the .* genes of the panel.*same kind of gene names"):
        sp.tl.predict(target, [one, other], method="ridge")
    with pytest.raises(KeyError, match="5 of 5 genes not found in the genes that all references share"):
        sp.tl.predict(target, [one, other], genes=list(target.var_names[:5]))
