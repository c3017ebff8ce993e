"""Names that would break a format or a spreadsheet: escaped in every export, and places and values stay with their spots."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from shapely.geometry import shape

import spahgc as sp

NAMES = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-2",
    "@x",
    "tab\tbed",
    "two\nlines",
    "carriage\rreturn",
    'a "quoted", name',
    "a/b\\c",
    "../../etc/x",
    "<script>alert(1)</script>",
    "\u57fa\u56e0 \u03b2-actin \U0001f9ec",
    "right\u202eleft",
    "A:B",
    "\uff1dfull width",
    "long" * 300,
    "",
    " ",
]
PER_NAME = 4
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\uff1d")


@pytest.fixture
def slide() -> AnnData:
    """A slide whose genes, domains, spots and own name are all hostile; each gene's value is its own in every spot."""
    n_spots = PER_NAME * len(NAMES)
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=n_spots, n_genes=20, seed=5)
    slide = slide[:, : len(NAMES)].copy()
    slide.var_names = NAMES
    slide.layers["spahgc"] = np.arange(slide.n_obs * slide.n_vars, dtype=np.float32).reshape(slide.shape) / 8
    slide.obs["spahgc_domain"] = pd.Categorical(NAMES * PER_NAME)
    slide.obs_names = [f"{name} {number}" for number, name in enumerate(NAMES * PER_NAME)]
    slide.obs["slide"] = "../=evil<script>\n"
    return slide


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def assert_disarmed(cells: list[str]) -> None:
    """No cell begins as a formula, and none holds what breaks a line."""
    assert not [cell for cell in cells if cell.startswith(FORMULAS)]
    assert not [cell for cell in cells if set(cell) & set("\n\r\t\u202e")]


def test_qupath(slide: AnnData, tmp_path: Path) -> None:
    path = sp.io.write_geojson(slide, tmp_path / "a.geojson")
    features = json.loads(path.read_text("utf-8"))["features"]
    detections = [each for each in features if each["properties"]["objectType"] == "detection"]
    annotations = [each for each in features if each["properties"]["objectType"] == "annotation"]
    centres = [shape(each["geometry"]).centroid.coords[0] for each in detections]
    np.testing.assert_allclose(centres, slide.obsm["spatial"], atol=0.01)
    for values, each in zip(slide.layers["spahgc"], detections, strict=True):
        np.testing.assert_allclose(list(each["properties"]["measurements"].values()), values, rtol=1e-4)
    classes = [each["properties"]["classification"]["name"] for each in annotations]
    assert len(set(classes)) == len([name for name in NAMES if name.strip()])
    assert not [name for name in classes if set(name) & set(":\n\r\t\u202e")]
    assert len({each["id"] for each in features}) == len(features)


def test_tissuumaps(slide: AnnData, tmp_path: Path) -> None:
    path = sp.io.write_tissuumaps(slide, tmp_path / "maps")
    header, *rows = rows_of(path.parent / "spots.csv")
    assert_disarmed([*header, *(cell for row in rows for cell in (row[0], row[3]))])
    assert len(set(header)) == len(header) and all(header)
    np.testing.assert_allclose(np.array([row[1:3] for row in rows], float), slide.obsm["spatial"], atol=0.006)
    np.testing.assert_allclose(np.array([row[4:] for row in rows], float), slide.layers["spahgc"], rtol=1e-4)
    groups, genes = json.loads(path.read_text("utf-8"))["markerFiles"]
    assert set(json.loads(groups["expectedHeader"]["cb_gr_dict"])) >= {row[3] for row in rows} - {""}
    assert len({row[3] for row in rows} - {""}) == len([name for name in NAMES if name.strip()])
    assert [option["expectedHeader.cb_col"] for option in genes["dropdownOptions"]] == header[4:]
    shown = [option[name] for option in genes["dropdownOptions"] for name in ("optionName", "name")]
    project = path.read_text("utf-8")
    assert not [text for text in shown if "<" in text] and "<script" not in project
    assert sorted(file.name for file in path.parent.iterdir()) == ["project.tmap", "spots.csv", "tissue.png"]


def test_loupe_and_xenium_explorer(slide: AnnData, tmp_path: Path) -> None:
    for write in (sp.io.write_loupe, sp.io.write_xenium_explorer):
        header, *rows = rows_of(write(slide, tmp_path / "groups.csv"))
        assert_disarmed([cell for row in (header, *rows) for cell in row])
        named = [number for number, name in enumerate(NAMES * PER_NAME) if name.strip()]
        assert [int(row[0].rpartition(" ")[2]) for row in rows] == named
        assert len({row[1] for row in rows}) == len([name for name in NAMES if name.strip()])


def test_cellxgene(slide: AnnData, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = sp.io.write_cellxgene(slide, tmp_path / "a.h5ad")
    written = ad.read_h5ad(path)
    np.testing.assert_allclose(written.X.toarray(), slide.layers["spahgc"])
    np.testing.assert_allclose(written.obsm["spatial"], slide.obsm["spatial"])
    for names in (written.var_names, written.obs_names, written.obs["spahgc_domain"].cat.categories):
        assert names.is_unique and not [name for name in names if set(name) & set("\n\r\t\u202e")]


def test_vitessce(slide: AnnData, tmp_path: Path) -> None:
    pytest.importorskip("vitessce")
    path = sp.io.write_vitessce(slide, tmp_path / "web")
    table = ad.read_zarr(path.parent / "slide.zarr")
    np.testing.assert_allclose(table.X, slide.layers["spahgc"])
    np.testing.assert_allclose(table.obsm["spatial"], slide.obsm["spatial"])
    config = json.loads(path.read_text("utf-8"))
    assert config["coordinationSpace"]["featureSelection"]["A"] == [table.var_names[0]]
    for names in (table.var_names, table.obs_names, table.obs["group"].cat.categories):
        assert names.is_unique and not [name for name in names if set(name) & set("\n\r\t\u202e")]
    assert sorted(file.name for file in path.parent.iterdir()) == ["config.json", "slide.zarr", "tissue.ome.tif"]
