"""Stain normalisation: another stain comes back to the reference, white stays white, records keep embeddings apart."""

from __future__ import annotations

import functools
import itertools

import anndata as ad
import numpy as np
import pytest
from torch import nn

import spahgc as sp
from spahgc._validate import check_same_encoder
from spahgc.encoders import Encoder, EncoderRecord
from spahgc.image import open_image
from spahgc.pp._embed import stain as _stain
from spahgc.pp._embed.stain import (
    OPPONENTS,
    REFERENCE_MEAN,
    REFERENCE_SPREAD,
    REFERENCE_STAINS,
    REFERENCE_STRONGEST,
    fit_stain,
    stain_name,
)

embed_patch = functools.partial(sp.pp.embed, context=False)
"""The patch alone, which is what these tests are about; what stands beside it by default: test_context.py."""

KEY = "X_colours"
OTHER_STAINS = np.array([[0.65, 0.07], [0.70, 0.99], [0.29, 0.11]])
"""Haematoxylin and eosin of Ruifrok and Johnston (2001)."""


class MeanColours(nn.Module):
    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)


ENCODER = Encoder(
    EncoderRecord("colours", "1", 48, 32, None, (0.0,) * 3, (1.0,) * 3, "area", "mean", "fp32", "patch"), MeanColours()
)


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    monkeypatch.setattr(sp.settings, "device", "cpu")


def amounts(side: int = 200) -> np.ndarray:
    """Amounts of the two stains, side x side x 2: a tenth of the pixels has one of them only, the left edge neither."""
    rng = np.random.default_rng(0)
    drawn = rng.uniform(0.2, 1.0, (side, side, 2))
    alone = rng.random((side, side))
    drawn[alone < 0.05, 0] = 0
    drawn[alone > 0.95, 1] = 0
    drawn[:, : side // 10] = 0
    return drawn * REFERENCE_STRONGEST


def slide_of(stains: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.exp(-amounts @ stains.T)).astype(np.uint8)


def normalised(method, pixels: np.ndarray) -> np.ndarray:
    with open_image(pixels) as image:
        return fit_stain(method, image, "the slide")(pixels)


def test_macenko_brings_a_slide_of_another_stain_back_to_the_reference():
    drawn = amounts()
    expected = slide_of(REFERENCE_STAINS, drawn)
    found = normalised("macenko", slide_of(OTHER_STAINS, drawn * [0.7, 1.2])).astype(int)
    # The strongest amounts are 99th percentiles of what was drawn, close to the reference's.
    assert np.abs(found - expected).max() < 12
    assert np.abs(found - expected).mean() < 3


def test_macenko_makes_one_slide_of_two_stainings_of_the_same_tissue():
    drawn = amounts()
    one = normalised("macenko", slide_of(OTHER_STAINS, drawn)).astype(int)
    other = normalised("macenko", slide_of(REFERENCE_STAINS[:, ::-1], drawn[..., ::-1] * 0.8)).astype(int)
    assert np.abs(one - other).mean() < 2


def test_macenko_finds_the_stains_and_knows_which_is_which():
    with open_image(slide_of(OTHER_STAINS, amounts())) as image:
        found = fit_stain("macenko", image, "the slide")
    cosine = (
        (found.stains * OTHER_STAINS).sum(0)
        / np.linalg.norm(found.stains, axis=0)
        / np.linalg.norm(OTHER_STAINS, axis=0)
    )
    assert (cosine > 0.999).all()


def test_reinhard_moves_mean_and_spread_of_the_tissue_to_those_of_the_reference():
    pixels = slide_of(OTHER_STAINS, 0.2 + 0.3 * amounts()[:, 20:])
    found = _stain._opponents(normalised("reinhard", pixels)).reshape(-1, 3)
    # Colours brighter than white are cut off.
    np.testing.assert_allclose(found.mean(0), REFERENCE_MEAN, atol=0.05)
    np.testing.assert_allclose(found.std(0), REFERENCE_SPREAD, rtol=0.2)


def test_the_opponent_colours_of_grey_are_its_lightness_alone():
    grey = np.full((1, 3), 100, np.uint8)
    lightness, *colours = _stain._opponents(grey)[0]
    assert lightness == pytest.approx(np.sqrt(3) * np.log(100), rel=1e-3)
    assert np.abs(colours).max() < 0.01
    np.testing.assert_allclose(OPPONENTS @ OPPONENTS.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_white_stays_white(method):
    pixels = slide_of(OTHER_STAINS, amounts())
    assert (pixels[:, :20] == 255).all()
    assert (normalised(method, pixels)[:, :20] == 255).all()


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_background_does_not_change_the_estimate(method):
    pixels = slide_of(OTHER_STAINS, amounts())
    wider = np.full((200, 900, 3), 245, np.uint8)
    wider[:, :200] = pixels
    np.testing.assert_array_equal(normalised(method, wider)[:, :200], normalised(method, pixels))


@pytest.mark.parametrize(
    ("pixels", "match"),
    [
        (np.full((100, 100, 3), 250, np.uint8), "0 of 10000 pixels of its thumbnail show tissue"),
        (np.arange(100, 200, dtype=np.uint8).repeat(300).reshape(100, 100, 3), "cannot be told apart"),
    ],
)
def test_a_slide_whose_stains_cannot_be_told_is_refused(pixels, match):
    with pytest.raises(ValueError, match=match):
        normalised("macenko", pixels)


# --- in embed


def slide(pixels: np.ndarray, name: str = "S") -> ad.AnnData:
    xy = np.random.default_rng(1).uniform(40, 160, (15, 2))
    spatial = {name: {"images": {"hires": pixels}, "scalefactors": {"tissue_hires_scalef": 1.0}}}
    return ad.AnnData(np.ones((15, 2), np.float32), obsm={"spatial": xy}, uns={"spatial": spatial})


def difference(one: ad.AnnData, other: ad.AnnData) -> float:
    return float(np.abs(one.obsm[KEY] - other.obsm[KEY]).mean())


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_two_stainings_of_one_tissue_are_embedded_alike(method):
    drawn = amounts()
    pair = [slide(slide_of(OTHER_STAINS, drawn)), slide(slide_of(REFERENCE_STAINS, drawn * 0.7))]
    embed_patch(pair, encoder=ENCODER)
    before = difference(*pair)
    embed_patch(pair, encoder=ENCODER, stain_normalization=method)
    assert difference(*pair) < before / 4


def test_the_record_says_how_the_stain_was_changed_and_only_then():
    adata = slide(slide_of(OTHER_STAINS, amounts()))
    embed_patch(adata, encoder=ENCODER)
    assert adata.uns["spahgc"]["embeddings"][KEY] == ENCODER.record.to_uns()
    assert "stain" not in adata.uns["spahgc"]
    embed_patch(adata, encoder=ENCODER, stain_normalization="macenko")
    assert adata.uns["spahgc"]["embeddings"][KEY] == ENCODER.record.to_uns() | {"stain": "macenko"}
    assert adata.uns["spahgc"]["stain"][KEY]["stains"].shape == (3, 2)
    embed_patch(adata, encoder=ENCODER)
    assert "stain" not in adata.uns["spahgc"]


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_what_was_estimated_survives_writing(tmp_path, form):
    adata = slide(slide_of(OTHER_STAINS, amounts()))
    embed_patch(adata, encoder=ENCODER, stain_normalization="macenko")
    getattr(adata, f"write_{form}")(tmp_path / "slide")
    again = getattr(ad, f"read_{form}")(tmp_path / "slide")
    np.testing.assert_array_equal(
        again.uns["spahgc"]["stain"][KEY]["stains"], adata.uns["spahgc"]["stain"][KEY]["stains"]
    )


def test_embeddings_of_different_stains_are_not_mixed():
    records = []
    for method in (None, "macenko", "reinhard", darker):
        adata = slide(slide_of(OTHER_STAINS, amounts()))
        embed_patch(adata, encoder=ENCODER, stain_normalization=method)
        records.append(adata.uns["spahgc"]["embeddings"][KEY])
    for one, other in itertools.combinations(records, 2):
        with pytest.raises(ValueError, match="different encoders .stain: "):
            check_same_encoder(one, other, KEY, "the target", "the references")
        check_same_encoder(one, dict(one), KEY, "the target", "the references")


def darker(patch: np.ndarray) -> np.ndarray:
    patch //= 2  # in place: the function may do what it likes with its patch
    return patch


def test_a_function_of_the_users_is_applied_to_every_patch():
    adata = slide(slide_of(OTHER_STAINS, amounts()))
    halved = slide(slide_of(OTHER_STAINS, amounts()) // 2)
    embed_patch(adata, encoder=ENCODER, stain_normalization=darker)
    embed_patch(halved, encoder=ENCODER)
    np.testing.assert_allclose(adata.obsm[KEY], halved.obsm[KEY], atol=0.01)
    assert adata.uns["spahgc"]["embeddings"][KEY]["stain"] == "user:darker"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda patch: patch / 255, "returned float64 of shape"),
        (lambda patch: patch[:10], r"returned uint8 of shape \(10, 32, 3\)"),
        (lambda patch: patch.tolist(), "returned list"),
    ],
    ids=["dtype", "shape", "type"],
)
def test_a_function_that_returns_no_patch_is_refused(change, match):
    adata = slide(slide_of(OTHER_STAINS, amounts()))

    def own(patch):
        return change(patch)

    with pytest.raises(ValueError, match=match):
        embed_patch(adata, encoder=ENCODER, stain_normalization=own)
    assert KEY not in adata.obsm


def test_an_error_of_the_users_function_arrives():
    def own(patch):
        raise RuntimeError("no such lamp")

    with pytest.raises(RuntimeError, match="no such lamp"):
        embed_patch(slide(slide_of(OTHER_STAINS, amounts())), encoder=ENCODER, stain_normalization=own)


class Fitted:
    def __call__(self, patch):
        return patch

    def transform(self, patch):
        return patch


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (darker, "user:darker"),
        (functools.partial(darker), "user:darker"),
        (Fitted(), "user:Fitted"),
        (Fitted().transform, "user:Fitted.transform"),
    ],
)
def test_a_function_is_recorded_by_its_name(function, name):
    assert stain_name(function) == name


@pytest.mark.parametrize(
    ("wanted", "error", "match"),
    [
        ("vahadane", ValueError, '"vahadane" is not known; pass one of macenko, reinhard'),
        (3, TypeError, "is of type int"),
        (lambda patch: patch, ValueError, "is a lambda"),
    ],
)
def test_what_names_no_method_is_refused(wanted, error, match):
    with pytest.raises(error, match=match):
        embed_patch(slide(slide_of(OTHER_STAINS, amounts())), encoder=ENCODER, stain_normalization=wanted)
