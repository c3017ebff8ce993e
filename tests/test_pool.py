"""Cells, bins and spots are added up to spots, tiles and regions, and no count is lost or found."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import shapely
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc._slides.polygons import polygons_of

MPP = 0.8


@pytest.fixture(scope="module")
def _both() -> tuple[AnnData, AnnData]:
    sizes = {"n_slides": 1, "n_patients": 1, "n_spots": 60, "n_genes": 30, "seed": 2}
    return sp.datasets.simulated(**sizes)[0], sp.datasets.simulated(cells=True, **sizes)[0]


@pytest.fixture
def cells(_both: tuple[AnnData, AnnData]) -> AnnData:
    return _both[1].copy()


@pytest.fixture
def spots(_both: tuple[AnnData, AnnData]) -> AnnData:
    return _both[0].copy()


def sums(adata: AnnData) -> np.ndarray:
    return np.asarray(adata.X.sum(axis=0), dtype=np.float64).ravel()


@pytest.mark.parametrize("layout", ["hexagonal", "square"])
@pytest.mark.parametrize("spacing_um", [20.0, 50.0, 100.0])
def test_tiles_that_touch_hold_every_count(cells: AnnData, layout: str, spacing_um: float) -> None:
    tiles = sp.pp.pool(cells, spacing_um=spacing_um, diameter_um=None, layout=layout)
    np.testing.assert_array_equal(sums(tiles), sums(cells))
    assert tiles.obs["n_pooled"].sum() == cells.n_obs
    assert tiles.obs["n_pooled"].min() >= 1
    record = tiles.uns["spahgc"]["pooled"]
    assert (record["n_from"], record["n_left_out"], record["counts_left_out"]) == (cells.n_obs, 0, 0.0)
    np.testing.assert_allclose(tiles.obs["area_um2"].sum(), cells.obs["area_um2"].sum())


def test_square_tiles_are_what_a_histogram_counts(cells: AnnData) -> None:
    tiles = sp.pp.pool(cells, spacing_um=40, diameter_um=None, layout="square")
    side = 40 / MPP
    x, y = cells.obsm["spatial"].T
    counted = pd.Series(np.asarray(cells.X.sum(axis=1)).ravel()).groupby([np.floor(y / side), np.floor(x / side)]).sum()
    found = pd.Series(np.asarray(tiles.X.sum(axis=1)).ravel(), [tiles.obs["array_row"], tiles.obs["array_col"]])
    np.testing.assert_array_equal(counted.to_numpy(), found.sort_index().to_numpy())


@pytest.mark.parametrize("layout", ["hexagonal", "square"])
def test_circles_hold_what_lies_in_them_and_the_rest_is_recorded(cells: AnnData, layout: str) -> None:
    pooled = sp.pp.pool(cells, layout=layout)
    apart = np.linalg.norm(pooled.obsm["spatial"][:, None] - cells.obsm["spatial"][None], axis=2)
    within = apart <= 55 / MPP / 2
    np.testing.assert_array_equal(pooled.X.toarray(), within @ cells.X.toarray())
    np.testing.assert_array_equal(pooled.obs["n_pooled"], within.sum(axis=1))
    record = pooled.uns["spahgc"]["pooled"]
    assert record["n_left_out"] == (~within.any(axis=0)).sum()
    np.testing.assert_array_equal(sums(pooled).sum() + record["counts_left_out"], sums(cells).sum())


def test_the_grid_is_that_of_tile(cells: AnnData) -> None:
    (record,) = cells.uns["spatial"].values()
    tiles = sp.pp.tile(record["images"]["hires"], mpp=MPP, spacing_um=80, focus=False)
    pooled = sp.pp.pool(cells, spacing_um=80, diameter_um=44)
    places = {
        (row, col): xy
        for row, col, xy in zip(tiles.obs["array_row"], tiles.obs["array_col"], tiles.obsm["spatial"], strict=True)
    }
    shared = 0
    for row, col, xy in zip(pooled.obs["array_row"], pooled.obs["array_col"], pooled.obsm["spatial"], strict=True):
        if (row, col) in places:
            np.testing.assert_allclose(xy, places[row, col])
            shared += 1
    assert shared > 0.8 * tiles.n_obs


def test_pooled_cells_are_the_simulated_spots_of_the_same_circles(cells: AnnData, spots: AnnData) -> None:
    pooled = sp.pp.pool(cells, spots=spots)
    assert list(pooled.obs_names) == list(spots.obs_names)
    np.testing.assert_array_equal(pooled.obsm["spatial"], spots.obsm["spatial"])
    # The simulation says itself in which spot a cell lies.
    own = pd.DataFrame(cells.X.toarray()).groupby(cells.obs["spot"].astype(str).to_numpy()).sum()
    own = own.reindex(spots.obs_names, fill_value=0)
    np.testing.assert_array_equal(pooled.X.toarray(), own.to_numpy())
    some = pooled.obs["n_pooled"] >= 5
    assert some.mean() > 0.7
    # Of the genes that follow the tissue, cells added up and spots measured at once tell the same story.
    genes = (spots.var["truth_kind"] != "flat").to_numpy()
    totals = np.asarray(pooled.X.sum(axis=1))
    expression = np.log1p(1e4 * pooled.X.toarray() / np.maximum(totals, 1))[some][:, genes]
    truth = spots.layers["truth"][some][:, genes]
    correlations = [np.corrcoef(expression[:, gene], truth[:, gene])[0, 1] for gene in range(genes.sum())]
    assert np.median(correlations) > 0.8
    assert totals.mean() == pytest.approx(np.asarray(spots.X.sum(axis=1)).mean(), rel=0.15)


def test_bins_and_spots_are_pooled_as_cells_are(spots: AnnData) -> None:
    tiles = sp.pp.pool(spots, spacing_um=300, diameter_um=None, layout="square")
    np.testing.assert_array_equal(sums(tiles), sums(spots))
    spots.obs["in_tissue"] = [0] * 10 + [1] * 50
    with pytest.warns(UserWarning, match="10 of 60 spots of the slide lie off the tissue .* left out of the sums"):
        tiles = sp.pp.pool(spots, spacing_um=300, diameter_um=None)
    np.testing.assert_array_equal(sums(tiles), sums(spots[10:]))


def test_shares_of_kinds_and_of_domains_are_kept(cells: AnnData) -> None:
    pooled = sp.pp.pool(cells, spacing_um=100, diameter_um=None)
    share = pooled.obsm["domain_share"]
    np.testing.assert_allclose(share.sum(axis=1), 1)
    n = pooled.obs["n_pooled"].to_numpy()
    np.testing.assert_allclose((share * n[:, None]).sum(axis=0), cells.obs["domain"].value_counts(sort=False))
    assert list(pooled.obs["domain"].astype(str)) == list(pooled.obs["domain"].cat.categories[share.argmax(axis=1)])
    np.testing.assert_allclose(
        (pooled.obsm["truth_domains"] * n[:, None]).sum(axis=0),
        np.asarray(cells.obsm["truth_domains"], float).sum(axis=0),
        rtol=1e-5,
    )
    assert pooled.obs["slide"].unique().tolist() == ["P1S1"]
    assert pooled.obs["patient"].unique().tolist() == ["P1"]
    assert "spot_share" in pooled.obsm


def test_regions_hold_their_cells_whatever_their_shape(cells: AnnData, tmp_path: Path) -> None:
    (left, top), (right, bottom) = cells.obsm["spatial"].min(axis=0), cells.obsm["spatial"].max(axis=0)
    middle = (left + right) / 2
    ring = shapely.box(left - 1, top - 1, middle, bottom + 1).difference(
        shapely.Point(left + 200, top + 300).buffer(80)
    )
    parts = shapely.MultiPolygon(
        [shapely.box(middle, top - 1, right + 1, top + 200), shapely.box(middle, top + 300, right + 1, bottom)]
    )
    pooled = sp.pp.pool(cells, regions={"ring": ring, "parts": parts, "glass": shapely.box(0, 0, 2, 2)})
    points = shapely.points(cells.obsm["spatial"])
    for name, shape in (("ring", ring), ("parts", parts)):
        inside = shapely.covers(shape, points)
        np.testing.assert_array_equal(pooled[name].X.toarray()[0], cells.X.toarray()[inside].sum(axis=0))
        assert pooled.obs.loc[name, "n_pooled"] == inside.sum() > 0
        assert pooled.obs.loc[name, "area_um2"] == pytest.approx(shape.area * MPP**2)
    assert pooled.obs.loc["glass", "n_pooled"] == 0
    assert np.isnan(pooled["glass"].obsm["domain_share"]).all()
    assert len(polygons_of(pooled)) == 3
    geojson = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": shapely.geometry.mapping(shape),
                "properties": {"objectType": "annotation", "classification": {"name": "Tumour"}},
            }
            for shape in (ring, parts)
        ],
    }
    (tmp_path / "regions.geojson").write_text(json.dumps(geojson))
    by_file = sp.pp.pool(cells, regions=tmp_path / "regions.geojson")
    assert list(by_file.obs_names) == ["Tumour_1", "Tumour_2"]
    np.testing.assert_array_equal(by_file.X.toarray(), pooled.X.toarray()[:2])


def test_cells_of_two_regions_count_in_each_and_a_warning_says_so(cells: AnnData) -> None:
    geopandas = pytest.importorskip("geopandas")
    (left, top), (right, bottom) = cells.obsm["spatial"].min(axis=0), cells.obsm["spatial"].max(axis=0)
    whole = shapely.box(left, top, right, bottom)
    regions = geopandas.GeoDataFrame(geometry=[whole, whole.buffer(5)], index=["a", "b"])
    with pytest.warns(UserWarning, match=f"{cells.n_obs} cells lie in several regions"):
        pooled = sp.pp.pool(cells, regions=regions)
    np.testing.assert_array_equal(pooled.X.toarray()[0], sums(cells))
    assert pooled.uns["spahgc"]["pooled"]["n_in_several"] == cells.n_obs


def test_controls_and_library_sizes_are_added_up(cells: AnnData) -> None:
    cells.obsm["controls"] = pd.DataFrame({"Blank Codeword": np.arange(cells.n_obs)}, index=cells.obs_names)
    cells.obs["spahgc_total_counts"] = np.asarray(cells.X.sum(axis=1)).ravel()
    cells.uns["spahgc"] = {"library_size": {"n_genes": cells.n_vars, "spots": "x"}}
    fewer = cells[:, :10].copy()
    pooled = sp.pp.pool(fewer, diameter_um=None)
    assert pooled.obsm["controls"]["Blank Codeword"].sum() == np.arange(cells.n_obs).sum()
    assert pooled.obs["spahgc_total_counts"].sum() == cells.X.sum()
    whole = sp.pp.pool(cells, diameter_um=None)
    np.testing.assert_array_equal(pooled.obs["spahgc_total_counts"], whole.obs["spahgc_total_counts"])
    np.testing.assert_array_equal(whole.obs["spahgc_total_counts"], np.asarray(whole.X.sum(axis=1)).ravel())


def test_sums_beyond_single_precision_stay_exact() -> None:
    cells = AnnData(csr_matrix(np.array([[2.0**24], [1.0], [2.0]])))
    cells.obsm["spatial"] = np.array([[1.0, 1.0], [2.0, 2.0], [500.0, 500.0]])
    pooled = sp.pp.pool(cells, mpp=1.0, diameter_um=None)
    assert sorted(pooled.X.toarray().ravel()) == [2.0, 2.0**24 + 1]


def test_a_pooled_slide_is_embedded_written_and_read(cells: AnnData, tmp_path: Path) -> None:
    pooled = sp.pp.pool(cells)
    before = cells.X.copy()
    (record,) = pooled.uns["spatial"].values()
    assert record["scalefactors"]["spot_diameter_fullres"] == pytest.approx(55 / MPP)
    assert record["scalefactors"]["microns_per_pixel"] == MPP
    pooled.write_h5ad(tmp_path / "pooled.h5ad")
    again = ad.read_h5ad(tmp_path / "pooled.h5ad")
    np.testing.assert_array_equal(again.X.toarray(), pooled.X.toarray())
    sp.pp.embed(again, encoder="efficientnet_lite0", context=False)
    assert np.isfinite(again.obsm["X_efficientnet_lite0"]).all()
    assert (cells.X != before).nnz == 0


def test_bad_pooling_is_named(cells: AnnData, spots: AnnData, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="spots would overlap, and cells be counted twice"):
        sp.pp.pool(cells, diameter_um=120)
    with pytest.raises(ValueError, match="circles of 137.5 px overlap"):
        sp.pp.pool(cells, spots=spots, diameter_um=110)
    with pytest.raises(ValueError, match='layout="round" is not known'):
        sp.pp.pool(cells, layout="round")
    with pytest.raises(ValueError, match="spacing_um=-1; pass a positive number of microns"):
        sp.pp.pool(cells, spacing_um=-1)
    with pytest.raises(ValueError, match="both say where to pool"):
        sp.pp.pool(cells, spots=spots, regions=[shapely.box(0, 0, 1, 1)])
    with pytest.raises(ValueError, match="holds fractions, and only counts can be added up"):
        sp.pp.pool(cells, layer="truth")
    assert sp.pp.pool(cells, layer="truth", units="counts").n_obs > 0
    with pytest.raises(ValueError, match='units="log1p" cannot be added up'):
        sp.pp.pool(cells, units="log1p")
    plain = AnnData(cells.X.copy(), obsm={"spatial": cells.obsm["spatial"]})
    with pytest.raises(ValueError, match="the resolution of the slide is not known. Pass mpp="):
        sp.pp.pool(plain)
    assert sp.pp.pool(plain, mpp=MPP).n_obs == sp.pp.pool(cells).n_obs
    with pytest.raises(TypeError, match="regions holds a int"):
        sp.pp.pool(cells, regions=[1])
    with pytest.raises(ValueError, match='region "region_0" is a Point without an area'):
        sp.pp.pool(cells, regions=[shapely.Point(0, 0)])
    with pytest.raises(ValueError, match='region "bow" crosses itself'):
        sp.pp.pool(cells, regions={"bow": shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9.5)])})
    with pytest.raises(ValueError, match="is in 3-D"):
        sp.pp.pool(cells, regions=[shapely.force_3d(shapely.box(0, 0, 1, 1))])
    bare = tmp_path / "bare.geojson"
    bare.write_text(json.dumps(shapely.geometry.mapping(shapely.box(0, 0, 9, 9))))
    with pytest.raises(ValueError, match="it is a bare geometry .Polygon."):
        sp.pp.pool(cells, regions=bare)


def test_regions_in_microns_are_told_from_pixels(cells: AnnData) -> None:
    cells.obsm["spatial"] = cells.obsm["spatial"] + 4000
    region = shapely.box(*(cells.obsm["spatial"].min(axis=0)), *(cells.obsm["spatial"].max(axis=0)))
    assert sp.pp.pool(cells, regions=[region]).obs["n_pooled"].item() == cells.n_obs
    microns = shapely.affinity.scale(region, 0.25, 0.25, origin=(0, 0))
    with pytest.raises(
        ValueError, match="no cell lies in any of the 1 regions.*Are the regions in microns.*Divide them by 0.8"
    ):
        sp.pp.pool(cells, regions=[microns])


def test_the_real_annotations_of_qupath_are_regions(her2st: Path) -> None:
    folder = her2st.parent / "files" / "qupath"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    content = json.loads((folder / "regions-Tumor.geojson").read_text())
    shape = shapely.geometry.shape(content["features"][0]["geometry"])
    inside = np.array([[point.x, point.y] for point in (shape.representative_point(), shape.centroid)])
    cells = AnnData(csr_matrix(np.array([[3.0], [4.0]])))
    cells.obsm["spatial"] = inside
    pooled = sp.pp.pool(cells, regions=folder / "regions-Tumor.geojson", mpp=0.25)
    assert pooled.X.sum() == 3 + 4 * shape.covers(shape.centroid)
    with pytest.raises(ValueError, match="it is a bare geometry .MultiPolygon."):
        sp.pp.pool(cells, regions=folder / "polygon.geojson", mpp=0.25)
