"""The hires image in place of the full-resolution one: when it is good enough, and what is said when it is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from spahgc._slides.library import Library, find_library
from spahgc.pp._embed.slide_image import ImageRequirements, check_hires

MPP, SCALE = 0.5, 0.25
"""Of the full-resolution image, and of the hires image to it: a pixel of the hires image is 2 um wide."""


@pytest.fixture
def slide() -> AnnData:
    xy = np.array([[40.0, 20.0], [80.0, 60.0]])
    adata = AnnData(np.ones((2, 1), np.float32), obs=pd.DataFrame(index=["a", "b"]), obsm={"spatial": xy})
    hires = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    scales = {"tissue_hires_scalef": SCALE, "microns_per_pixel": MPP}
    adata.uns["spatial"] = {"S1": {"images": {"hires": hires}, "scalefactors": scales}}
    return adata


def _check(slide: AnnData, needed: float | None, allow: bool = False, **kwargs):
    return check_hires(slide, find_library(slide), ImageRequirements(needed, allow), **kwargs)


def _forget_mpp(slide: AnnData) -> None:
    del slide.uns["spatial"]["S1"]["scalefactors"]["microns_per_pixel"]


def test_an_image_that_is_fine_enough_is_taken_with_spots_and_resolution_of_its_own(slide):
    found = _check(slide, 2.0)
    np.testing.assert_array_equal(found.source, slide.uns["spatial"]["S1"]["images"]["hires"])
    np.testing.assert_array_equal(found.xy, [[10, 5], [20, 15]])
    assert (found.scale, found.mpp, found.slide_mpp) == (SCALE, 2.0, MPP)


def test_a_coarse_image_is_refused_with_the_microns_it_has_and_those_it_needs(slide):
    with pytest.raises(ValueError, match=r"a pixel is 2 um wide, but 0.5 um are needed.*image=.*allow_upsampling=True"):
        _check(slide, 0.5)


def test_allow_upsampling_goes_on(slide):
    assert _check(slide, 0.5, allow=True).mpp == 2.0


def test_a_resolution_that_is_five_percent_off_is_no_enlargement(slide):
    assert _check(slide, 1.91).mpp == 2.0
    with pytest.raises(ValueError, match="too low"):
        _check(slide, 1.89)


def test_an_encoder_of_any_resolution_needs_the_full_image(slide):
    with pytest.raises(ValueError, match=r"a pixel is 2 um wide, but 0.5 um are needed \(the slide's own"):
        _check(slide, None)
    assert _check(slide, None, allow=True).scale == SCALE


def test_the_resolution_that_the_user_gives_counts(slide):
    _forget_mpp(slide)
    assert _check(slide, 4.0, mpp=1.0).mpp == 4.0
    with pytest.raises(ValueError, match="a pixel is 8 um wide, but 4 um are needed"):
        _check(slide, 4.0, mpp=2.0)


@pytest.mark.parametrize("needed", [0.5, None])
def test_an_unknown_resolution_is_refused_unless_upsampling_is_allowed(slide, needed):
    _forget_mpp(slide)
    with pytest.raises(ValueError, match="reduced to 0.25 .* not known.*Pass mpp="):
        _check(slide, needed)
    found = _check(slide, needed, allow=True)
    assert found.mpp is None and found.slide_mpp is None


def test_a_hires_image_of_full_size_is_what_an_encoder_of_any_resolution_needs(slide):
    _forget_mpp(slide)
    slide.uns["spatial"]["S1"]["scalefactors"]["tissue_hires_scalef"] = 1.0
    slide.obsm["spatial"] = slide.obsm["spatial"] / 4
    assert _check(slide, None).scale == 1.0


def test_pixels_between_0_and_1_and_greyscale_become_rgb(slide):
    images = slide.uns["spatial"]["S1"]["images"]
    want = images["hires"]
    images["hires"] = (want / 255).astype(np.float32)
    np.testing.assert_array_equal(_check(slide, 2.0).source, want)
    images["hires"] = want[:, :, 0]
    np.testing.assert_array_equal(_check(slide, 2.0).source, np.repeat(want[:, :, :1], 3, axis=2))


def test_what_is_no_image_is_refused(slide):
    slide.uns["spatial"]["S1"]["images"]["hires"] = np.zeros((20, 30, 3), bool)
    with pytest.raises(ValueError, match='hires image of slide "S1" has data type bool'):
        _check(slide, 2.0)


def test_a_scale_factor_that_is_no_scale_is_refused(slide):
    slide.uns["spatial"]["S1"]["scalefactors"]["tissue_hires_scalef"] = 0.0
    with pytest.raises(ValueError, match="tissue_hires_scalef of slide .* is 0.0"):
        _check(slide, 2.0)


def test_spots_off_the_hires_image_are_refused(slide):
    slide.obsm["spatial"] = slide.obsm["spatial"] * 4
    with pytest.raises(ValueError, match="hires image .*spot centres lie outside"):
        _check(slide, 2.0)


def test_a_hires_image_counts_together_with_its_scale(slide):
    record = slide.uns["spatial"]["S1"]
    assert find_library(slide).has_scaled_hires
    assert not Library("S1", {**record, "images": {}}).has_scaled_hires
    assert not Library("S1", {**record, "scalefactors": {}}).has_scaled_hires
    assert not Library("S1", {}).has_scaled_hires
