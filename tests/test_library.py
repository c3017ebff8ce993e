"""Which library of ``uns["spatial"]`` is a slide's: every function finds the same one, or says the same."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest

import spahgc as sp
from spahgc._slides.library import find_library
from spahgc._slides.resolution import recorded_mpp, slide_mpp

GENE = "MORPH001"


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(sp.settings, "device", "cpu")
    monkeypatch.setattr(sp.settings, "progress", False)
    yield
    plt.close("all")


@pytest.fixture
def slide() -> ad.AnnData:
    """A predicted slide whose table holds the library of another one as well, and names neither."""
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    (name,) = slide.uns["spatial"]
    slide.layers["spahgc"] = np.ones(slide.shape, np.float32)
    slide.var["spahgc_panel"] = True
    pixels = np.zeros((9, 9, 3), np.uint8)
    other = {"images": {"hires": pixels}, "scalefactors": {"tissue_hires_scalef": 1.0, "microns_per_pixel": 7.0}}
    slide.uns["spatial"] = {"other": other, name: slide.uns["spatial"][name]}
    slide.obs["name"] = name
    del slide.obs["slide"]
    return slide


def embed(slide: ad.AnnData) -> None:
    sp.pp.embed(slide, encoder="efficientnet_lite0")


def draw(slide: ad.AnnData) -> list:
    return sp.pl.spatial_genes(slide, GENE, show=False)


@pytest.mark.parametrize("column", ["slide", "library_id"])
def test_obs_names_the_library_for_embedding_and_drawing_alike(slide, column):
    name = slide.obs["name"].iloc[0]
    slide.obs[column] = slide.obs["name"].astype("category")
    assert find_library(slide).name == name
    embed(slide)
    assert slide.uns["spahgc"]["slide_mpp"] == 0.8
    (drawn,) = draw(slide)[0].images
    assert np.ptp(np.asarray(drawn.get_array(), float)) > 0, "the black one belongs to the other slide"


def test_what_no_column_names_is_refused_in_the_same_words(slide):
    messages = []
    for function in (embed, draw, slide_mpp):
        with pytest.raises(ValueError, match=r"holds 2 slides .*obs does not say which one.*library_id=") as error:
            function(slide)
        messages.append(str(error.value))
    assert len(set(messages)) == 1


def test_spots_of_several_slides_are_refused_in_the_same_words(slide):
    slide.obs["slide"] = ["A", "B"] * (slide.n_obs // 2)
    messages = []
    for function in (embed, draw):
        with pytest.raises(ValueError, match='several slides.*names 2 slides .*"A", "B"') as error:
            function(slide)
        messages.append(str(error.value))
    assert len(set(messages)) == 1


def test_a_library_that_is_asked_for_is_taken_or_missed(slide):
    assert find_library(slide, "other").hires.shape == (9, 9, 3)
    with pytest.raises(KeyError, match='library_id="third" not found.*"other"'):
        find_library(slide, "third")


def test_without_libraries_there_is_none(slide):
    slide.uns["spatial"] = {}
    assert find_library(slide) is None
    del slide.uns["spatial"]
    assert find_library(slide) is None


def test_what_is_recorded_is_the_scale_factor_else_the_note_and_nothing_that_is_no_size(slide):
    library = find_library(slide, "other")
    slide.uns["spahgc"] = {"slide_mpp": 0.4}
    assert recorded_mpp(slide, library) == 7.0
    library.record["scalefactors"]["microns_per_pixel"] = 0.0
    assert recorded_mpp(slide, library) == recorded_mpp(slide, None) == 0.4
    slide.uns["spahgc"] = {"slide_mpp": float("nan")}
    assert recorded_mpp(slide, library) is None
