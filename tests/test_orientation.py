"""Coordinates whose x and y are swapped, or that are microns, are refused; turned and mirrored slides are not."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import spahgc as sp
from spahgc._slides.orientation import Axes, array_axes
from spahgc._slides.resolution import slide_mpp
from spahgc.pp._embed.slide_image import check_slide


def _slide_files() -> Any:
    spec = importlib.util.spec_from_file_location("slide_files", Path(__file__).with_name("slide_files.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["slide_files"] = module
    spec.loader.exec_module(module)
    return module


files = _slide_files()
POSITIONS = "outs/spatial/tissue_positions.csv"
PIXELS = ["pxl_row_in_fullres", "pxl_col_in_fullres"]


@pytest.fixture(scope="module")
def slides() -> list[ad.AnnData]:
    return [_half(slide) for slide in sp.datasets.simulated(2, n_patients=2, n_spots=120, n_genes=20, seed=4)]


def _half(slide: ad.AnnData) -> ad.AnnData:
    """The tissue right of the diagonal: a round one looks the same with x and y swapped."""
    x, y = slide.obsm["spatial"].T
    slide = slide[x > y].copy()
    (record,) = slide.uns["spatial"].values()
    pixels = record["images"]["hires"] = record["images"]["hires"].copy()
    rows, columns = np.indices(pixels.shape[:2])
    pixels[rows > columns + 20] = pixels[:4, :4].mean((0, 1))
    return slide


@pytest.fixture(scope="module")
def _written(slides, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    files.write_visium(root / "V2", slides[0])
    return root


@pytest.fixture
def run(_written, tmp_path) -> Path:
    return Path(shutil.copytree(_written / "V2", tmp_path / "V2"))


def _square(slide: ad.AnnData) -> ad.AnnData:
    """The slide on an image of equal sides, so that no spot falls off when x and y are swapped."""
    slide = slide.copy()
    (record,) = slide.uns["spatial"].values()
    pixels = record["images"]["hires"]
    side = max(pixels.shape[:2])
    square = np.full((side, side, 3), pixels[:4, :4].mean((0, 1)).astype(np.uint8), np.uint8)
    square[: pixels.shape[0], : pixels.shape[1]] = pixels
    record["images"]["hires"] = square
    return slide


def _swap(slide: ad.AnnData) -> ad.AnnData:
    slide.obsm["spatial"] = slide.obsm["spatial"][:, ::-1].copy()
    return slide


def _change_image(slide: ad.AnnData, change) -> None:
    (record,) = slide.uns["spatial"].values()
    record["images"]["hires"] = np.ascontiguousarray(change(record["images"]["hires"]))


def test_swapped_coordinates_are_refused_by_an_embedding(slides):
    for slide in slides:
        with pytest.raises(ValueError, match=r"x and y of the spots of slide .* are swapped.*lie on the tissue"):
            sp.pp.embed(_swap(_square(slide)), encoder="efficientnet_lite0")


def test_swapped_columns_of_a_table_of_positions_are_refused(run):
    table = pd.read_csv(run / POSITIONS).rename(columns=dict(zip(PIXELS, PIXELS[::-1], strict=True)))
    table.to_csv(run / POSITIONS, index=False)
    with pytest.raises(ValueError, match='x and y of the spots of slide "V2" are swapped'):
        sp.io.visium(run)


def test_swapped_columns_of_a_legacy_spot_table_are_refused(slides, tmp_path):
    slide = _square(slides[0])
    (record,) = slide.uns["spatial"].values()
    Image.fromarray(record["images"]["hires"]).save(tmp_path / "S.png")
    grid, xy = slide.obs[["array_col", "array_row"]].to_numpy(), slide.obsm["spatial"]
    table = pd.DataFrame({"x": grid[:, 0], "y": grid[:, 1], "pixel_x": xy[:, 0], "pixel_y": xy[:, 1]})
    table.to_csv(tmp_path / "right.tsv", sep="\t", index=False)
    table.assign(pixel_x=xy[:, 1], pixel_y=xy[:, 0]).to_csv(tmp_path / "swapped.tsv", sep="\t", index=False)
    pitch = {"spot_pitch_um": 100.0}  # the simulated array is neither of legacy ST
    assert sp.io.st(None, tmp_path / "right.tsv", tmp_path / "S.png", **pitch).n_obs == slide.n_obs
    with pytest.raises(ValueError, match='x and y of the spots of slide "S" are swapped'):
        sp.io.st(None, tmp_path / "swapped.tsv", tmp_path / "S.png", **pitch)


def test_without_a_picture_that_tells_a_swap_is_said(slides):
    slide = _swap(_square(slides[0]))
    _change_image(slide, lambda pixels: np.full_like(pixels, 230))
    with pytest.warns(UserWarning, match="x and y of the spots .* may be swapped.*image does not tell"):
        check_slide(slide, None, None, 0)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_a_turned_slide_is_not_refused(quarter_turns, slides):
    slide = _square(slides[0])
    (record,) = slide.uns["spatial"].values()
    side = record["images"]["hires"].shape[0] - 1
    _change_image(slide, lambda pixels: np.rot90(pixels, quarter_turns))
    xy = slide.obsm["spatial"]
    for _ in range(quarter_turns):  # counter-clockwise: what was right is at the top
        xy = np.column_stack([xy[:, 1], side - xy[:, 0]])
    slide.obsm["spatial"] = xy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_slide(slide, None, None, 0)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_slide_of_an_inverted_microscope_is_not_refused(axis, slides):
    slide = _square(slides[0])
    (record,) = slide.uns["spatial"].values()
    side = record["images"]["hires"].shape[0] - 1
    _change_image(slide, lambda pixels: np.flip(pixels, 1 - axis))
    slide.obsm["spatial"][:, axis] = side - slide.obsm["spatial"][:, axis]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_slide(slide, None, None, 0)


def test_an_image_that_was_transposed_together_with_its_spots_is_not_refused(slides):
    slide = _swap(_square(slides[0]))
    _change_image(slide, lambda pixels: pixels.swapaxes(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_slide(slide, None, None, 0)


def test_the_axes_of_the_array_are_told():
    grid = np.array([[0, 0], [2, 0], [1, 1], [3, 1], [0, 2]], float)
    assert array_axes(grid, grid * 10) is Axes.TURNED
    assert array_axes(grid, grid[:, ::-1] * 10) is Axes.TRANSPOSED
    assert array_axes(grid, grid * [10, -10]) is Axes.MIRRORED
    assert array_axes(grid[:2], grid[:2]) is None
    assert array_axes(grid, np.random.default_rng(0).normal(size=(5, 2))) is None


def _in_microns(slide: ad.AnnData) -> ad.AnnData:
    """Coordinates in microns, scale factors and image as they were, with no word on the resolution."""
    slide = slide.copy()
    (record,) = slide.uns["spatial"].values()
    mpp = record["scalefactors"].pop("microns_per_pixel")
    pitch_px = 100 / mpp
    record["scalefactors"]["spot_diameter_fullres"] = 0.65 * pitch_px
    slide.obsm["spatial"] = slide.obsm["spatial"] * mpp * 0.9  # as if a pixel were 0.72 um wide
    record["scalefactors"]["spot_diameter_fullres"] /= 0.9
    return slide


def test_microns_are_not_taken_for_pixels(slides):
    slide = _in_microns(slides[0])
    slide.obsm["spatial"] /= 0.9
    with pytest.raises(ValueError, match=r"lie 100\.0 apart.*would touch. The coordinates look like microns"):
        sp.pp.embed(slide, encoder="efficientnet_lite0")
    with pytest.raises(ValueError, match="would touch"):
        slide_mpp(slide)


def test_positions_in_microns_are_refused_where_they_are_read(run):
    table = pd.read_csv(run / POSITIONS)
    table[PIXELS] = table[PIXELS] * files.MPP * 0.9
    table.to_csv(run / POSITIONS, index=False)
    with pytest.raises(ValueError, match="the positions in .* and the scale factors contradict each other"):
        sp.io.visium(run)


@pytest.mark.parametrize("share", [0.55, 0.65, 0.75])
def test_spots_of_their_true_width_are_not_refused(share, slides):
    slide = slides[0].copy()
    (record,) = slide.uns["spatial"].values()
    record["scalefactors"]["spot_diameter_fullres"] = share * 100 / files.MPP
    assert slide_mpp(slide) == files.MPP


@pytest.mark.data
def test_measured_slides_are_not_swapped_and_are_refused_when_they_are(her2st):
    for name in ("C4", "B4"):
        adata = sp.io.st(None, her2st / f"{name}_selection.tsv", her2st / f"{name}.jpg")
        with pytest.raises(ValueError, match="are swapped"):
            check_slide(_swap(adata), None, None, 0)
    for name in ("B1", "C1", "D1"):
        adata = sp.io.visium(her2st.parent / "kidney_organoid" / name)
        from spahgc._slides.library import find_library
        from spahgc.pp._embed.slide_image import ImageRequirements, check_hires

        check_hires(adata, find_library(adata), ImageRequirements())
        with pytest.raises(ValueError, match="are swapped"):
            check_hires(_swap(adata), find_library(adata), ImageRequirements())
