"""Predictions in files of other programs: read back by their own rules, places and names compared."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from shapely import box, intersection, unary_union
from shapely.geometry import Point, shape

import spahgc as sp
from spahgc._keys import UNITS
from spahgc._slides.polygons import Polygons

GENES = ["MORPH001", "MORPH002", "FLAT001"]
QUPATH_TYPES = {"annotation", "detection", "cell", "tile", "tma_core", "root", "unknown"}
"""What QuPath's reader of JSON knows as ``objectType``."""


@pytest.fixture(scope="module")
def simulated() -> AnnData:
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=60, n_genes=20, seed=4)
    return slide


@pytest.fixture
def slide(simulated: AnnData) -> AnnData:
    """A slide with a prediction of three genes, its support and domains; one spot has neither prediction nor domain."""
    slide = simulated.copy()
    layer = np.full(slide.shape, np.nan, dtype=np.float32)
    columns = slide.var_names.get_indexer(GENES)
    layer[:, columns] = slide.layers["truth"][:, columns]
    layer[7] = np.nan
    slide.layers["spahgc"] = layer
    slide.var["spahgc_panel"] = slide.var_names.isin(GENES)
    slide.obs["spahgc_support"] = np.linspace(0.1, 0.9, slide.n_obs)
    halves = np.where(slide.obsm["spatial"][:, 0] > np.median(slide.obsm["spatial"][:, 0]), "1", "0").astype(object)
    halves[7] = np.nan
    slide.obs["spahgc_domain"] = pd.Categorical(halves)
    return slide


def objects_of_qupath(path: Path) -> list[dict[str, Any]]:
    """Objects of a file as QuPath reads them: every field that it asks for, with the types that it takes."""
    content = json.loads(path.read_text("utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert content["type"] == "FeatureCollection"
    for feature in content["features"]:
        assert feature["type"] == "Feature"
        assert str(uuid.UUID(feature["id"])) == feature["id"]
        geometry, properties = feature["geometry"], feature["properties"]
        assert shape(geometry).is_valid and not shape(geometry).is_empty
        rings = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        assert all(ring[0] == ring[-1] and len(ring) >= 4 for polygon in rings for ring in polygon)
        assert properties["objectType"] in QUPATH_TYPES
        if "classification" in properties:
            assert set(properties["classification"]) == {"name", "color"}
            assert ":" not in properties["classification"]["name"]
            colour = properties["classification"]["color"]
            assert len(colour) == 3 and all(type(part) is int and 0 <= part <= 255 for part in colour)
        measurements = properties.get("measurements", {})
        assert all(type(value) in (int, float) and math.isfinite(value) for value in measurements.values())
    assert len({feature["id"] for feature in content["features"]}) == len(content["features"])
    return content["features"]


def of_type(features: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [feature for feature in features if feature["properties"]["objectType"] == kind]


# --- QuPath


def test_a_detection_lies_where_its_spot_lies_and_is_as_wide(slide: AnnData, tmp_path: Path) -> None:
    detections = of_type(objects_of_qupath(sp.io.write_geojson(slide, tmp_path / "a.geojson")), "detection")
    assert [feature["properties"]["name"] for feature in detections] == list(slide.obs_names)
    centres = np.array([shape(feature["geometry"]).centroid.coords[0] for feature in detections])
    np.testing.assert_allclose(centres, slide.obsm["spatial"], atol=0.01)
    (library,) = slide.uns["spatial"].values()
    left, _, right, _ = shape(detections[0]["geometry"]).bounds
    assert right - left == pytest.approx(library["scalefactors"]["spot_diameter_fullres"], abs=0.02)
    assert all(feature["geometry"]["isEllipse"] for feature in detections)


def test_measurements_are_predicted_values_and_what_is_unknown_is_left_out(slide: AnnData, tmp_path: Path) -> None:
    detections = of_type(objects_of_qupath(sp.io.write_geojson(slide, tmp_path / "a.geojson")), "detection")
    measured = detections[3]["properties"]["measurements"]
    assert set(measured) == {*GENES, "support"}
    assert [measured[gene] for gene in GENES] == pytest.approx(
        slide[:, GENES].layers["spahgc"][3].tolist(), rel=1e-4, abs=1e-6
    )
    assert measured["support"] == pytest.approx(slide.obs["spahgc_support"].iloc[3], rel=1e-4)
    unknown = detections[7]["properties"]
    assert list(unknown["measurements"]) == ["support"] and "classification" not in unknown


def test_domains_are_annotations_that_hold_their_own_spots_and_do_not_overlap(slide: AnnData, tmp_path: Path) -> None:
    annotations = of_type(objects_of_qupath(sp.io.write_geojson(slide, tmp_path / "a.geojson")), "annotation")
    assert [feature["properties"]["classification"]["name"] for feature in annotations] == ["0", "1"]
    first, second = (shape(feature["geometry"]) for feature in annotations)
    for name, region in (("0", first), ("1", second)):
        inside = [region.contains(Point(xy)) for xy in slide.obsm["spatial"]]
        assert inside == (slide.obs["spahgc_domain"] == name).to_list()
    assert intersection(first, second).area < 1e-3 * min(first.area, second.area)


def test_annotations_do_not_reach_into_the_glass(slide: AnnData, tmp_path: Path) -> None:
    annotations = of_type(objects_of_qupath(sp.io.write_geojson(slide, tmp_path / "a.geojson")), "annotation")
    region = unary_union([shape(feature["geometry"]) for feature in annotations])
    (library,) = slide.uns["spatial"].values()
    pitch = library["scalefactors"]["spot_diameter_fullres"] / 0.55
    spots = unary_union([Point(xy).buffer(pitch) for xy in slide.obsm["spatial"]])
    assert spots.contains(region)


def test_classes_have_the_colours_that_scanpy_keeps(slide: AnnData, tmp_path: Path) -> None:
    slide.uns["spahgc_domain_colors"] = ["#ff0000", "#0000ff"]
    annotations = of_type(objects_of_qupath(sp.io.write_geojson(slide, tmp_path / "a.geojson")), "annotation")
    colours = [feature["properties"]["classification"]["color"] for feature in annotations]
    assert colours == [[255, 0, 0], [0, 0, 255]]


def test_names_that_would_break_a_class_are_escaped_and_stay_apart(slide: AnnData, tmp_path: Path) -> None:
    slide.obs["kind"] = ["Tumor: in situ", "Tumor\n\u2236 in situ", 'a "quoted" <b>\u202e'] * 20
    features = objects_of_qupath(sp.io.write_geojson(slide, tmp_path / "a.geojson", groups="kind"))
    names = [feature["properties"]["classification"]["name"] for feature in of_type(features, "annotation")]
    assert len(set(names)) == 3
    assert "Tumor\u2236 in situ" in names and not any("\n" in name or "\u202e" in name for name in names)


def test_a_spot_keeps_its_id_when_it_is_written_again(slide: AnnData, tmp_path: Path) -> None:
    first = objects_of_qupath(sp.io.write_geojson(slide, tmp_path / "a.geojson"))
    again = objects_of_qupath(sp.io.write_geojson(slide[::-1].copy(), tmp_path / "a.geojson", genes="FLAT001"))
    assert {feature["id"] for feature in first} == {feature["id"] for feature in again}


def test_cells_keep_their_polygons(slide: AnnData, tmp_path: Path) -> None:
    from geopandas import GeoSeries

    corners = slide.obsm["spatial"]
    polygons = GeoSeries([box(x - 3, y - 2, x + 5, y + 4) for x, y in corners], index=list(slide.obs_names))
    path = sp.io.write_geojson(slide, tmp_path / "cells.geojson", shapes=polygons.iloc[::-1])
    detections = of_type(objects_of_qupath(path), "detection")
    bounds = np.array([shape(feature["geometry"]).bounds for feature in detections])
    np.testing.assert_allclose(bounds[:, :2], corners - (3, 2), atol=0.01)
    np.testing.assert_allclose(bounds[:, 2:], corners + (5, 4), atol=0.01)
    assert not any("isEllipse" in feature["geometry"] for feature in detections)


def test_cells_that_were_read_with_their_outlines_keep_them(slide: AnnData, tmp_path: Path) -> None:
    corners = [xy + [[0, 0], [30 + i, 0], [0, 20]] for i, xy in enumerate(np.asarray(slide.obsm["spatial"]))]
    slide.obsm["polygons"] = Polygons.of_rings(corners).as_matrix()
    path = sp.io.write_geojson(slide, tmp_path / "cells.geojson")
    drawn = [shape(cell["geometry"]) for cell in of_type(objects_of_qupath(path), "detection")]
    np.testing.assert_allclose(
        [polygon.area for polygon in drawn], [10 * (30 + i) for i in range(len(corners))], rtol=1e-3
    )


def test_a_cell_without_a_polygon_is_named(slide: AnnData, tmp_path: Path) -> None:
    from geopandas import GeoSeries

    polygons = GeoSeries([box(0, 0, 1, 1)] * (slide.n_obs - 1), index=list(slide.obs_names[1:]))
    with pytest.raises(KeyError, match=f'1 of 60 spots have no shape: "{slide.obs_names[0]}"'):
        sp.io.write_geojson(slide, tmp_path / "cells.geojson", shapes=polygons)
    points = GeoSeries([Point(0, 0)] * slide.n_obs, index=list(slide.obs_names))
    with pytest.raises(ValueError, match="holds no polygon for 60 spots"):
        sp.io.write_geojson(slide, tmp_path / "cells.geojson", shapes=points)
    assert list(tmp_path.iterdir()) == []


def test_bins_of_visium_hd_are_squares(slide: AnnData, tmp_path: Path) -> None:
    (library,) = slide.uns["spatial"].values()
    library["scalefactors"] |= {"bin_size_um": 8.0, "spot_diameter_fullres": 10.0}
    detections = of_type(objects_of_qupath(sp.io.write_geojson(slide, tmp_path / "a.geojson")), "detection")
    assert shape(detections[0]["geometry"]).area == pytest.approx(100.0, rel=1e-2)


def test_polygons_of_a_spatialdata_come_in_pixels_of_its_image(slide: AnnData, tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    from geopandas import GeoDataFrame
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Scale, Translation

    xy = slide.obsm["spatial"].copy()
    # In microns, half as many as there are pixels, and shifted by 10.
    cells = GeoDataFrame(
        geometry=[box(x - 1, y - 1, x + 1, y + 1) for x, y in xy / 2 + 10], index=list(slide.obs_names)
    )
    shapes = ShapesModel.parse(cells, transformations={"global": Translation([-10, -10], axes=("x", "y"))})
    pixels = np.zeros((3, int(xy[:, 1].max()) + 50, int(xy[:, 0].max()) + 50), dtype=np.uint8)
    image = Image2DModel.parse(
        pixels, dims=("c", "y", "x"), transformations={"global": Scale([0.5, 0.5], axes=("x", "y"))}
    )
    table = slide.copy()
    del table.uns["spatial"], table.obsm["spatial"]
    table.obs["region"], table.obs["cell"] = pd.Categorical(["cells"] * table.n_obs), list(slide.obs_names)
    table = TableModel.parse(table, region="cells", region_key="region", instance_key="cell")
    sdata = spatialdata.SpatialData(images={"he": image}, shapes={"cells": shapes}, tables={"table": table})
    detections = of_type(objects_of_qupath(sp.io.write_geojson(sdata, tmp_path / "a.geojson")), "detection")
    bounds = np.array([shape(feature["geometry"]).bounds for feature in detections])
    np.testing.assert_allclose(bounds[:, :2], xy - 2, atol=0.02)
    np.testing.assert_allclose(bounds[:, 2:], xy + 2, atol=0.02)


def test_of_a_large_panel_the_most_trusted_genes_are_written_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slide: AnnData
) -> None:
    monkeypatch.setattr("spahgc.io._exports.geojson.MOST_GENES", 2)
    slide.var["spahgc_cv_pcc"] = np.nan
    slide.var.loc[GENES, "spahgc_cv_pcc"] = [0.1, 0.5, 0.3]
    with pytest.warns(UserWarning, match="2 of 3 predicted genes are written, those of the highest spahgc_cv_pcc"):
        path = sp.io.write_geojson(slide, tmp_path / "a.geojson")
    measured = objects_of_qupath(path)[0]["properties"]["measurements"]
    assert set(measured) == {"MORPH002", "FLAT001", "support"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sp.io.write_geojson(slide, path, genes=GENES)


# --- what all exports share

WRITERS: dict[str, tuple[Callable[..., Path], str]] = {
    "geojson": (sp.io.write_geojson, "a.geojson"),
    "tissuumaps": (sp.io.write_tissuumaps, "folder"),
    "loupe": (sp.io.write_loupe, "a.csv"),
    "xenium": (sp.io.write_xenium_explorer, "a.csv"),
    "cellxgene": (sp.io.write_cellxgene, "a.h5ad"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_slide_stays_as_it_is(slide: AnnData, tmp_path: Path, name: str) -> None:
    write, file = WRITERS[name]
    before = slide.copy()
    write(slide, tmp_path / file)
    pd.testing.assert_frame_equal(slide.obs, before.obs)
    np.testing.assert_array_equal(slide.layers["spahgc"], before.layers["spahgc"])
    assert list(slide.uns) == list(before.uns) and list(slide.obsm) == list(before.obsm)


@pytest.mark.parametrize("name", WRITERS)
def test_a_column_that_is_not_there_is_named_with_the_way_out(slide: AnnData, tmp_path: Path, name: str) -> None:
    write, file = WRITERS[name]
    with pytest.raises(KeyError, match=r'obs\["nobody"\] not found in the slide.*Run spahgc\.tl\.domains first'):
        write(slide, tmp_path / file, groups="nobody")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["geojson", "tissuumaps", "cellxgene"])
def test_a_slide_without_a_prediction_and_a_gene_outside_the_panel_are_refused(
    slide: AnnData, tmp_path: Path, name: str
) -> None:
    write, file = WRITERS[name]
    with pytest.raises(KeyError, match=r'layers\["other"\] not found in the slide.*pass key='):
        write(slide, tmp_path / file, key="other")
    with pytest.raises(KeyError, match=r'1 of 1 genes not found in the panel of layers\["spahgc"\]: "MORPH003"'):
        write(slide, tmp_path / file, genes=["MORPH003"])


@pytest.mark.parametrize("name", ["geojson", "loupe", "xenium", "cellxgene"])
def test_another_ending_is_refused(slide: AnnData, tmp_path: Path, name: str) -> None:
    write, _ = WRITERS[name]
    with pytest.raises(ValueError, match="must end in"):
        write(slide, tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["loupe", "xenium"])
def test_a_table_of_groups_needs_groups(slide: AnnData, tmp_path: Path, name: str) -> None:
    write, file = WRITERS[name]
    del slide.obs["spahgc_domain"]
    with pytest.raises(KeyError, match=r'no groups are there to write: obs\["spahgc_domain"\] not found'):
        write(slide, tmp_path / file)


# --- tables


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_loupe_reads_barcodes_and_a_category(slide: AnnData, tmp_path: Path) -> None:
    header, *rows = rows_of(sp.io.write_loupe(slide, tmp_path / "domains.csv"))
    assert header == ["Barcode", "spahgc_domain"]
    known = slide.obs["spahgc_domain"].dropna()
    assert rows == [[spot, name] for spot, name in known.items()]


def test_xenium_explorer_reads_cells_groups_and_colours(slide: AnnData, tmp_path: Path) -> None:
    header, *rows = rows_of(sp.io.write_xenium_explorer(slide, tmp_path / "domains.csv"))
    assert header == ["cell_id", "group", "color"]
    assert [row[:2] for row in rows] == [[spot, name] for spot, name in slide.obs["spahgc_domain"].dropna().items()]
    assert {(group, colour) for _, group, colour in rows} == {("0", "#0072B2"), ("1", "#E69F00")}


@pytest.mark.parametrize("name", ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "\t=1"])
def test_no_spreadsheet_takes_a_name_for_a_formula(slide: AnnData, tmp_path: Path, name: str) -> None:
    slide.obs["kind"] = [name, "plain, with a comma", 'with "quotes"'] * 20
    for write in (sp.io.write_loupe, sp.io.write_xenium_explorer):
        rows = rows_of(write(slide, tmp_path / "kinds.csv", groups="kind"))
        assert not [cell for row in rows for cell in row if cell[:1] in ("=", "+", "-", "@", "\t")]
        assert {row[1] for row in rows[1:]} >= {"plain, with a comma", 'with "quotes"'}


# --- TissUUmaps


def test_a_project_of_tissuumaps_names_its_files_and_columns(slide: AnnData, tmp_path: Path) -> None:
    path = sp.io.write_tissuumaps(slide, tmp_path / "maps")
    project = json.loads(path.read_text("utf-8"))
    (layer,) = project["layers"]
    assert (path.parent / layer["tileSource"].removesuffix(".dzi")).is_file()
    for markers in project["markerFiles"]:
        assert {"title", "name", "uid", "expectedHeader", "expectedRadios", "path"} <= set(markers)
        table = pd.read_csv(path.parent / markers["path"])
        header = markers["expectedHeader"]
        named = [header[name] for name in ("X", "Y", "gb_col", "cb_col") if header[name] != "null"]
        assert set(named) <= set(table.columns)
        options = markers.get("dropdownOptions", [])
        assert {option["expectedHeader.cb_col"] for option in options} <= set(table.columns)
    assert [markers["uid"] for markers in project["markerFiles"]] == ["groups", "genes"]
    assert [option["name"] for option in project["markerFiles"][1]["dropdownOptions"]] == GENES


def test_spots_of_a_project_lie_on_its_picture(slide: AnnData, tmp_path: Path) -> None:
    from PIL import Image

    path = sp.io.write_tissuumaps(slide, tmp_path / "maps")
    table = pd.read_csv(path.parent / "spots.csv", dtype={"group": str})
    np.testing.assert_allclose(table[["x", "y"]], slide.obsm["spatial"], atol=0.006)
    (library,) = slide.uns["spatial"].values()
    factor = float(json.loads(path.read_text("utf-8"))["markerFiles"][0]["expectedHeader"]["coord_factor"])
    assert factor == library["scalefactors"]["tissue_hires_scalef"]
    np.testing.assert_array_equal(np.asarray(Image.open(path.parent / "tissue.png")), library["images"]["hires"])
    np.testing.assert_allclose(table["MORPH001"], slide[:, "MORPH001"].layers["spahgc"].ravel(), rtol=1e-4, atol=1e-6)
    assert table.loc[7, [*GENES, "group"]].isna().all()


def test_a_project_may_link_the_full_image(slide: AnnData, tmp_path: Path) -> None:
    image = tmp_path / "slides" / "case 7.svs"
    image.parent.mkdir()
    image.write_bytes(b"")
    path = sp.io.write_tissuumaps(slide, tmp_path / "maps", image=image)
    project = json.loads(path.read_text("utf-8"))
    assert project["layers"] == [{"name": "case 7.svs", "tileSource": "../slides/case 7.svs.dzi"}]
    assert project["markerFiles"][0]["expectedHeader"]["coord_factor"] == "1.0"
    with pytest.raises(FileNotFoundError, match="is not a file"):
        sp.io.write_tissuumaps(slide, tmp_path / "more", image=tmp_path / "absent.svs")


def test_a_gene_that_is_called_as_another_column_keeps_its_values(slide: AnnData, tmp_path: Path) -> None:
    slide.var_names = [{"MORPH001": "x", "MORPH002": "=A1"}.get(name, name) for name in slide.var_names]
    path = sp.io.write_tissuumaps(slide, tmp_path / "maps")
    table = pd.read_csv(path.parent / "spots.csv")
    assert list(table.columns) == ["spot", "x", "y", "group", "x (2)", "'=A1", "FLAT001"]
    options = json.loads(path.read_text("utf-8"))["markerFiles"][1]["dropdownOptions"]
    assert [(option["name"], option["expectedHeader.cb_col"]) for option in options][:2] == [
        ("x", "x (2)"),
        ("=A1", "'=A1"),
    ]


def test_a_folder_that_is_there_is_not_replaced_unasked(slide: AnnData, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already. Pass overwrite=True"):
        sp.io.write_tissuumaps(slide, tmp_path / "maps")
    assert (tmp_path / "maps" / "mine.txt").read_text() == "mine"
    assert sp.io.write_tissuumaps(slide, tmp_path / "maps", overwrite=True).is_file()


# --- cellxgene

METADATA = {
    "title": "Case 7",
    "assay_ontology_term_id": "EFO:0022857",
    "cell_type_ontology_term_id": "unknown",
    "development_stage_ontology_term_id": "unknown",
    "disease_ontology_term_id": "MONDO:0007254",
    "donor_id": "P1",
    "organism_ontology_term_id": "NCBITaxon:9606",
    "self_reported_ethnicity_ontology_term_id": "unknown",
    "sex_ontology_term_id": "PATO:0000383",
    "tissue_ontology_term_id": "UBERON:0000310",
    "tissue_type": "tissue",
}


def test_cellxgene_reads_the_prediction_as_x_and_places_as_an_embedding(slide: AnnData, tmp_path: Path) -> None:
    written = ad.read_h5ad(sp.io.write_cellxgene(slide, tmp_path / "a.h5ad"))
    kept = np.arange(slide.n_obs) != 7
    assert list(written.obs_names) == list(slide.obs_names[kept]) and list(written.var_names) == GENES
    np.testing.assert_allclose(written.X.toarray(), slide[kept, GENES].layers["spahgc"])
    np.testing.assert_allclose(written.obsm["spatial"], slide.obsm["spatial"][kept])
    np.testing.assert_allclose(written.obsm["X_spatial"], slide.obsm["spatial"][kept] * (1, -1), rtol=1e-6)
    assert all(
        column.dtype.name in ("category", "bool") or column.dtype.kind in "iuf" for _, column in written.obs.items()
    )
    assert written.uns["spahgc_prediction"] == f"predicted by spahgc, not measured; {UNITS}"


def test_with_metadata_all_that_the_schema_asks_for_is_there(slide: AnnData, tmp_path: Path) -> None:
    slide.var["gene_ids"] = [f"ENSG{i:011d}.3" for i in range(slide.n_vars)]
    written = ad.read_h5ad(sp.io.write_cellxgene(slide, tmp_path / "a.h5ad", metadata=METADATA))
    from spahgc.io._exports.cellxgene import REQUIRED

    assert set(REQUIRED) <= set(written.obs) and written.uns["organism_ontology_term_id"] == "NCBITaxon:9606"
    assert not {"array_row", "array_col", "in_tissue"} & set(written.obs)
    assert not written.obs["is_primary_data"].any() and (written.obs["suspension_type"] == "na").all()
    assert list(written.var_names) == [f"ENSG{slide.var_names.get_loc(gene):011d}" for gene in GENES]
    assert list(written.var["symbol"]) == GENES and written.uns["title"] == "Case 7"


@pytest.mark.parametrize(("assay", "keys"), [("EFO:0022857", {"spatial", "X_slide"}), ("EFO:0008994", {"X_slide"})])
def test_the_schema_has_places_where_it_wants_them(slide: AnnData, tmp_path: Path, assay: str, keys: set[str]) -> None:
    slide.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(slide.n_vars)]
    metadata = {**METADATA, "assay_ontology_term_id": assay}
    written = ad.read_h5ad(sp.io.write_cellxgene(slide, tmp_path / "a.h5ad", metadata=metadata))
    kept = np.arange(slide.n_obs) != 7
    assert set(written.obsm) == keys and ("spatial" in written.uns) == ("spatial" in keys)
    np.testing.assert_allclose(written.obsm["X_slide"], slide.obsm["spatial"][kept] * (1, -1), rtol=1e-6)
    if "spatial" in keys:
        assert not written.uns["spatial"]["is_single"]
        np.testing.assert_allclose(written.obsm["spatial"], slide.obsm["spatial"][kept])


def test_a_file_holds_nothing_that_older_readers_stumble_over(slide: AnnData, tmp_path: Path) -> None:
    import h5py

    with h5py.File(sp.io.write_cellxgene(slide, tmp_path / "a.h5ad")) as root:
        encodings: list[str] = []
        root.visititems(lambda _, item: encodings.append(str(item.attrs.get("encoding-type"))))
    assert "null" not in encodings and "nullable-string-array" not in encodings


def test_what_the_schema_misses_is_named_at_once(slide: AnnData, tmp_path: Path) -> None:
    incomplete = {name: value for name, value in METADATA.items() if name not in ("donor_id", "tissue_type")}
    with pytest.raises(ValueError, match='lacks "donor_id", "tissue_type", and it has "organ"'):
        sp.io.write_cellxgene(slide, tmp_path / "a.h5ad", metadata={**incomplete, "organ": "breast"})
    with pytest.raises(KeyError, match="var_names holds no Ensembl identifiers"):
        sp.io.write_cellxgene(slide, tmp_path / "a.h5ad", metadata=METADATA)
    assert list(tmp_path.iterdir()) == []


def findings_of_the_schemas_tool(path: Path) -> list[str]:
    """Errors that ``cellxgene-schema validate`` reports; it wants older packages, and so lives in an environment of its own."""
    named = os.environ.get("SPAHGC_CELLXGENE_SCHEMA")
    tool = shutil.which(named or "cellxgene-schema")
    if named and tool is None:
        pytest.fail(f"SPAHGC_CELLXGENE_SCHEMA names {named}, which is no program")
    if tool is None:
        pytest.skip("cellxgene-schema is not installed, and SPAHGC_CELLXGENE_SCHEMA names none")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run([tool, "validate", path], capture_output=True, text=True, env=environment)
    said = ran.stdout + ran.stderr
    assert "Validation complete" in said, said
    return [line.partition("ERROR: ")[2] for line in said.splitlines() if "ERROR: " in line]


def test_the_schemas_own_tool_misses_measured_counts_and_nothing_else(slide: AnnData, tmp_path: Path) -> None:
    slide.var["gene_ids"] = ["ENSG00000000003"] * slide.n_vars
    slide.var.loc[GENES, "gene_ids"] = ["ENSG00000141736", "ENSG00000139618.4", "ENSG00000012048"]
    errors = findings_of_the_schemas_tool(sp.io.write_cellxgene(slide, tmp_path / "a.h5ad", metadata=METADATA))
    assert errors == [
        "All non-zero values in raw matrix must be positive integers of type numpy.float32.",
        "Raw data is missing: there is only a normalized matrix in X and no raw.X",
    ]


# --- Vitessce


def test_without_vitessce_the_extra_is_named(slide: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vitessce", None)
    with pytest.raises(ImportError, match=r'Run pip install "spahgc\[vitessce\]"'):
        sp.io.write_vitessce(slide, tmp_path / "web")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def opened_by_vitessce() -> Callable[[Path], Any]:
    """Its own reader of configurations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of extras for notebooks
        vitessce = pytest.importorskip("vitessce")
    return lambda path: vitessce.VitessceConfig.from_dict(json.loads(path.read_text("utf-8"))).to_dict()


def test_vitessce_reads_its_configuration_and_finds_the_files(
    slide: AnnData, tmp_path: Path, opened_by_vitessce: Callable[[Path], Any]
) -> None:
    path = sp.io.write_vitessce(slide, tmp_path / "web", base_url="https://lab.example/case 7/")
    config = opened_by_vitessce(path)
    files = {file["fileType"]: file for file in config["datasets"][0]["files"]}
    addresses = [file["url"] for file in files.values()]
    assert addresses == [f"https://lab.example/case 7/{name}" for name in ("slide.zarr", "tissue.ome.tif")]
    assert all((path.parent / address.rpartition("/")[2]).exists() for address in addresses)
    table = ad.read_zarr(path.parent / "slide.zarr")
    options = files["anndata.zarr"]["options"]
    for part in (options["obsSpots"]["path"], options["obsSets"][0]["path"]):
        room, _, key = part.partition("/")
        assert key in getattr(table, room)
    kept = np.arange(slide.n_obs) != 7  # what was not predicted it would draw as the lowest value
    np.testing.assert_allclose(table.X, slide[kept, GENES].layers["spahgc"])
    np.testing.assert_allclose(table.obsm["spatial"], slide.obsm["spatial"][kept])
    assert list(table.var_names) == GENES and list(table.obs_names) == list(slide.obs_names[kept])
    assert table.obs["group"].to_list() == slide.obs["spahgc_domain"][kept].to_list()


def test_every_view_of_vitessce_speaks_of_the_same_spots_and_genes(
    slide: AnnData, tmp_path: Path, opened_by_vitessce: Callable[[Path], Any]
) -> None:
    config = opened_by_vitessce(sp.io.write_vitessce(slide, tmp_path / "web"))
    space = config["coordinationSpace"]
    wanted = config["datasets"][0]["files"][0]["coordinationValues"] | {"featureSelection": [GENES[0]]}
    assert len(config["layout"]) == 4
    for view in config["layout"]:
        scopes = view["coordinationScopes"]
        assert {name: space[name][scopes[name]] for name in wanted} == wanted, view["component"]
    assert list(space["photometricInterpretation"].values()) == ["RGB"]


@pytest.mark.parametrize("known", [True, False])
def test_vitessce_draws_spots_where_they_lie_on_its_picture(
    slide: AnnData, tmp_path: Path, opened_by_vitessce: Callable[[Path], Any], known: bool
) -> None:
    import ome_types
    import tifffile

    (library,) = slide.uns["spatial"].values()
    if not known:
        del library["scalefactors"]["microns_per_pixel"]
    path = sp.io.write_vitessce(slide, tmp_path / "web")
    table = ad.read_zarr(path.parent / "slide.zarr")
    pixels = ome_types.from_tiff(path.parent / "tissue.ome.tif").images[0].pixels
    assert (pixels.physical_size_x is not None) is known
    drawn = table.obsm["spatial_drawn"] / (pixels.physical_size_x or 1.0)
    scale = library["scalefactors"]["tissue_hires_scalef"]
    np.testing.assert_allclose(drawn, table.obsm["spatial"] * scale, rtol=1e-6)
    (radius,) = opened_by_vitessce(path)["coordinationSpace"]["spatialSpotRadius"].values()
    wanted = library["scalefactors"]["spot_diameter_fullres"] / 2 * scale * (pixels.physical_size_x or 1.0)
    assert radius == pytest.approx(wanted)
    with tifffile.TiffFile(path.parent / "tissue.ome.tif") as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
    np.testing.assert_array_equal(np.moveaxis(levels[0], 0, -1), library["images"]["hires"])
    assert max(levels[-1].shape) <= 512  # the most that a browser loads whole
    for level, finer in zip(levels[1:], levels, strict=False):
        assert level.shape == (3, finer.shape[1] // 2, finer.shape[2] // 2)
        np.testing.assert_allclose(level[:, 5, 9], finer[:, 10:12, 18:20].mean(axis=(1, 2)), atol=0.51)
