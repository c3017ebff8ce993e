"""Pictures in uns: whatever their kind of number, they are drawn and embedded in their true colours, or refused."""

from __future__ import annotations

import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc._slides.library import find_library
from spahgc.image._eight_bits import rgb_of_8_bits
from spahgc.pl._tissue import tissue_of
from spahgc.pp._embed.slide_image import ImageRequirements, check_hires, find_source

matplotlib.use("Agg")


@pytest.fixture
def rgb() -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    return pixels


KINDS = {
    "uint8": lambda a: a,
    "16 bits": lambda a: a.astype(np.uint16) * 257,
    "8 bits in uint16": lambda a: a.astype(np.uint16),
    "8 bits in int64": lambda a: a.astype(np.int64),
    "float from 0 to 1": lambda a: (a / 255).astype(np.float32),
    "float from 0 to 255": lambda a: a.astype(np.float64),
    "float of 16 bits": lambda a: a.astype(np.float32) * 257,
    "channels first": lambda a: np.moveaxis(a, -1, 0).astype(np.uint16) * 257,
    "opaque RGBA": lambda a: np.dstack([a, np.full(a.shape[:2], 255, np.uint8)]),
    "opaque RGBA from 0 to 1": lambda a: np.dstack([a, np.full(a.shape[:2], 255, np.uint8)]) / 255.0,
    "opaque RGBA of 16 bits": lambda a: np.dstack([a, np.full(a.shape[:2], 255)]).astype(np.uint16) * 257,
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_picture_gives_the_same_rgb(kind, rgb):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(rgb_of_8_bits(KINDS[kind](rgb), "the picture"), rgb)


def test_12_bits_in_16_are_taken_as_such_and_said(rgb):
    twelve = np.rint(rgb / 255 * 4095).astype(np.uint16)
    with pytest.warns(UserWarning, match="the picture has values up to 4095 .* taken as 12 bits"):
        found = rgb_of_8_bits(twelve, "the picture")
    np.testing.assert_array_equal(found, rgb)


@pytest.mark.parametrize("kind", ["uint8", "16 bits", "float from 0 to 1", "float from 0 to 255"])
def test_grey_pictures_are_repeated(kind, rgb):
    found = rgb_of_8_bits(KINDS[kind](rgb)[:, :, 0], "the picture")
    np.testing.assert_array_equal(found, np.repeat(rgb[:, :, :1], 3, axis=2))


def test_transparent_pixels_are_white(rgb):
    clear = np.dstack([rgb, np.zeros(rgb.shape[:2], np.uint8)]) / 255.0
    assert (rgb_of_8_bits(clear, "the picture") == 255).all()


@pytest.mark.parametrize(
    "broken",
    [
        np.full((4, 5, 3), np.nan),
        np.full((4, 5, 3), -1.0),
        np.full((4, 5, 3), 70000.0),
        np.full((4, 5, 3), -1, np.int16),
        np.ones((4, 5), bool),
        np.array([["a"] * 5] * 4),
        np.zeros((0, 5, 3)),
        np.zeros((7, 5, 2)),
        np.zeros(7),
    ],
)
def test_what_is_no_picture_is_refused(broken):
    with pytest.raises(ValueError, match=r"^the picture has "):
        rgb_of_8_bits(broken, "the picture")


def _slide(hires: np.ndarray, scale: float = 0.25) -> AnnData:
    xy = np.array([[40.0, 20.0], [80.0, 60.0]]) * (0.25 / scale)
    adata = AnnData(np.ones((2, 1), np.float32), obs=pd.DataFrame(index=["a", "b"]), obsm={"spatial": xy})
    factors = {"tissue_hires_scalef": scale, "microns_per_pixel": 0.5, "spot_diameter_fullres": 20.0}
    adata.uns["spatial"] = {"S1": {"images": {"hires": hires}, "scalefactors": factors}}
    return adata


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_is_drawn_in_its_true_colours(kind, rgb):
    want = tissue_of(_slide(rgb), None, 1.0).image
    np.testing.assert_array_equal(tissue_of(_slide(KINDS[kind](rgb)), None, 1.0).image, want)


def test_a_grey_picture_is_drawn_without_stretching_its_contrast(rgb):
    dim = (100 + rgb[:, :, 0] // 8).astype(np.uint8)
    drawn = tissue_of(_slide(dim), None, 1.0).image
    assert drawn.shape[2] == 3 and drawn.max() <= 131 and drawn.min() >= 100


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_is_embedded_in_its_true_colours(kind, rgb):
    slide = _slide(KINDS[kind](rgb))
    found = check_hires(slide, find_library(slide), ImageRequirements(None, True))
    np.testing.assert_array_equal(found.source, rgb)
    full = _slide(KINDS[kind](rgb), scale=1.0)
    np.testing.assert_array_equal(find_source(full, "the slide"), rgb)


def test_a_lowres_picture_of_16_bits_is_drawn_too(rgb, tmp_path):
    slide = _slide(rgb)
    record = slide.uns["spatial"]["S1"]
    record["images"] = {"lowres": rgb.astype(np.uint16) * 257}
    record["scalefactors"]["tissue_lowres_scalef"] = 0.25
    np.testing.assert_array_equal(tissue_of(slide, None, 1.0).image, tissue_of(_slide(rgb), None, 1.0).image)
    slide.var_names = ["A"]
    slide.layers["spahgc"] = np.ones((2, 1), np.float32)
    sp.pl.spatial_genes(slide, ["A"], show=False, save=tmp_path / "a.png")
