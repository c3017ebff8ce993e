"""Slides of which a reduced image alone is there: what is missing is said, and how many times what is there is enlarged."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc.encoders import list_encoders
from spahgc.io._space_ranger import COARSEST_ENCODER_MPP
from spahgc.pp._embed.enlarged import MAX_ENLARGEMENT

matplotlib.use("Agg")

ENCODER = "efficientnet_lite0"
KEY = "X_efficientnet_lite0"


def _slide_files() -> Any:
    """The helper beside this file; pytest's import mode does not put the folder on the path."""
    spec = importlib.util.spec_from_file_location("slide_files", Path(__file__).with_name("slide_files.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["slide_files"] = module
    spec.loader.exec_module(module)
    return module


files = _slide_files()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with its full-resolution image (0.8 um a pixel) beside it, and a hires image of 3.2 um."""
    slide = sp.datasets.simulated(1, n_patients=1, n_spots=24, n_genes=20, seed=1)[0]
    folder = tmp_path_factory.mktemp("runs") / "V2"
    files.write_visium(folder, slide)
    return folder


def few(slide: AnnData) -> AnnData:
    return slide[:4].copy()


def noted(slide: AnnData, key: str = KEY) -> dict[str, Any]:
    return dict(slide.uns["spahgc"]["patch_image"][key])


def test_a_run_read_without_its_image_says_what_is_missing(run):
    with pytest.warns(
        UserWarning, match=r"hires image alone, whose pixels are 3\.2 um wide; encoders take 1 um at most"
    ):
        sp.io.visium(run)


def test_a_run_read_with_its_image_says_nothing(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sp.io.visium(run, image=run.parent / "V2.tif")


def test_a_run_without_any_image_says_that_nothing_can_be_embedded(run, tmp_path):
    shutil.copytree(run, tmp_path / "bare")
    (tmp_path / "bare/outs/spatial/tissue_hires_image.png").unlink()
    with pytest.warns(UserWarning, match="nor is there a hires image, so that nothing can be embedded"):
        sp.io.visium(tmp_path / "bare")


def test_the_limit_of_the_reader_is_the_coarsest_encoder():
    assert list_encoders()["mpp"].max() == COARSEST_ENCODER_MPP


def test_an_enlarged_hires_image_is_said_with_the_times_and_both_pixels(run):
    slide = few(sp.io.visium(run))
    with pytest.warns(
        UserWarning, match=r"its hires image is enlarged 4\.6 times .* from pixels of 3\.2 um to 0\.7 um"
    ):
        sp.pp.embed(slide, encoder=ENCODER, context=False, allow_upsampling=True)
    found = noted(slide)
    assert found == {
        "image": "hires image",
        "enlarged": pytest.approx(3.2 / 0.7, rel=0.01),
        "mpp": pytest.approx(3.2, rel=0.01),
    }


def test_the_full_image_is_noted_and_nothing_is_said(run):
    slide = few(sp.io.visium(run, image=run.parent / "V2.tif"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sp.pp.embed(slide, encoder=ENCODER)
    found = noted(slide)
    assert found["image"] == "full-resolution image"
    assert found["enlarged"] == pytest.approx(0.8 / 0.7, rel=0.01)


@pytest.mark.parametrize(("mpp", "is_said"), [(0.7 * MAX_ENLARGEMENT, False), (0.72 * MAX_ENLARGEMENT, True)])
def test_a_coarse_image_that_is_handed_over_is_judged_by_the_same_limit(mpp, is_said):
    pixels = np.random.default_rng(0).integers(120, 250, (300, 300, 3), dtype=np.uint8)
    slide = AnnData(np.ones((2, 1), np.float32), obsm={"spatial": np.array([[150.0, 150], [100, 160]])})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sp.pp.embed(slide, encoder=ENCODER, image=pixels, mpp=mpp, context=False)
    assert any("full-resolution image is enlarged" in str(each.message) for each in caught) == is_said


def test_a_narrow_patch_and_a_narrow_scale_are_enlarged_too():
    pixels = np.random.default_rng(0).integers(120, 250, (300, 300, 3), dtype=np.uint8)
    xy = np.array([[150.0, 150], [100, 160]])
    for options in ({"patch_um": 39.2, "context": False}, {"context": sp.pp.Context(scales=(1, 0.25), rotations=1)}):
        slide = AnnData(np.ones((2, 1), np.float32), obsm={"spatial": xy})
        with pytest.warns(UserWarning, match=r"enlarged 4\.0 times"):
            sp.pp.embed(slide, encoder=ENCODER, image=pixels, mpp=0.7, **options)


def test_a_grey_background_is_bright_field(run):
    """As a hires image has it whose glass is no white: grey of 165 around pieces of tissue."""
    slide = few(sp.io.visium(run))
    (record,) = slide.uns["spatial"].values()
    hires = record["images"]["hires"]
    grey = np.random.default_rng(0).normal(165, 3, hires.shape[:2])[..., None].repeat(3, axis=2)
    is_glass = hires.min(axis=2) > 215
    record["images"]["hires"] = np.where(is_glass[..., None], grey, hires * (165 / 255)).astype(np.uint8)
    sp.pp.embed(slide, encoder=ENCODER, context=False, allow_upsampling=True)
    assert np.isfinite(slide.obsm[KEY]).all()


def test_the_report_names_the_image_and_pieces_of_tissue(run, quick_default, tmp_path):
    first, target = sp.io.visium(run), sp.io.visium(run)
    target.obsm["spatial"][0] = [2, 2]  # alone in the corner of the image
    target.obs = target.obs.drop(columns=["array_row", "array_col"])
    for slide in (first, target):
        slide.obsm[KEY] = np.random.default_rng(len(slide.obs.columns)).normal(size=(slide.n_obs, 8)).astype(np.float32)
        sp.pp.use_embedding(slide, KEY, record={"name": "own", "dim": 8, "input_px": 8})
    target.uns["spahgc"]["patch_image"] = {KEY: {"image": "hires image", "enlarged": 4.57}}
    sp.tl.predict(target, first, preset=quick_default)
    sp.pl.report(target, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "hires image, enlarged 4.6 times" in page
    assert "2; 1 spot without a neighbour, predicted all the same" in page


@pytest.mark.data
def test_organoids_go_from_the_hires_image_to_a_report(her2st, quick_default, tmp_path):
    sections = []
    for area in ("B1", "C1", "D1"):
        with pytest.warns(UserWarning, match=r"hires image alone, whose pixels are 4\.\d+ um wide"):
            whole = sp.io.visium(her2st.parent / "kidney_organoid" / area)
        section = whole[:: whole.n_obs // 30].copy()
        with pytest.warns(UserWarning, match=r"its hires image is enlarged 6\.0 times"):
            sp.pp.embed(section, encoder=ENCODER, allow_upsampling=True)
        assert noted(section)["image"] == "hires image"
        assert section.uns["spahgc"]["embeddings"][KEY]["context"].startswith("widths 448,1344 um")
        sections.append(section)
    target, *refs = sections
    sp.tl.predict(target, refs, preset=quick_default)
    panel = target.var["spahgc_panel"].to_numpy()
    assert np.isfinite(target.layers["spahgc"][:, panel]).all()
    genes = list(target.var_names[panel][:2])
    sp.pl.spatial_genes(target, genes, show=False, save=tmp_path / "genes.png")
    sp.pl.report(target, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "hires image, enlarged 6.0 times" in page
