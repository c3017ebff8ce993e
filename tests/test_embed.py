"""Embedding: the right patch of the right slide, the same numbers however it is called, errors that name the fix."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

import spahgc as sp
from spahgc._slides.resolution import slide_mpp
from spahgc.encoders import Encoder, EncoderRecord
from spahgc.image import cut_patch, open_image
from spahgc.pp._embed.patches import PatchCutter

embed_patch = partial(sp.pp.embed, context=False)
"""The patch alone, which is what these tests are about; what stands beside it by default: test_context.py."""

INPUT_PX = 32
CELLS = 4
MPP_UM = 0.8
"""Resolution of the simulated slides."""


class MeanColours(nn.Module):
    """An encoder whose embedding can be computed by hand: mean colours of 4 x 4 cells of the patch."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(CELLS)

    def forward(self, x):
        return self.pool(x).flatten(1)


RECORD = EncoderRecord(
    name="colours",
    revision="1",
    dim=3 * CELLS**2,
    input_px=INPUT_PX,
    mpp=0.5,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    interpolation="area",
    pooling="mean",
    precision="fp32",
    context="patch",
)
ENCODER = Encoder(RECORD, MeanColours())
NATIVE = Encoder(replace(RECORD, mpp=None), MeanColours())
KEY = "X_colours"


class Recorder:
    """Stands in for an encoder and keeps the patches it is given."""

    def __init__(self, record: EncoderRecord = RECORD, fail_at: int | None = None) -> None:
        self.batches: list[np.ndarray] = []
        self.fail_at = fail_at
        self.encoder = Encoder(record, MeanColours())

    def __call__(self, encoder, patches, *, device):
        if len(self.batches) == self.fail_at:
            raise KeyboardInterrupt
        self.batches.append(patches)
        return np.zeros((len(patches), RECORD.dim), np.float32)

    @property
    def patches(self) -> np.ndarray:
        return np.concatenate(self.batches)


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(
        Encoder, "encode", lambda encoder, patches, *, device, **_: recorder(encoder, patches, device=device)
    )
    return recorder


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(sp.settings, "progress", False)
    monkeypatch.setattr(sp.settings, "device", "cpu")


@pytest.fixture(scope="module")
def simulated() -> ad.AnnData:
    return sp.datasets.simulated(1, n_patients=1, n_spots=50, n_genes=12)[0]


@pytest.fixture
def slide(simulated) -> ad.AnnData:
    return simulated.copy()


def plain(xy, **columns) -> ad.AnnData:
    """Spots without genes and without any record of an image."""
    xy = np.atleast_2d(np.asarray(xy, dtype=float))
    obs = pd.DataFrame(columns, index=[f"spot{i}" for i in range(len(xy))])
    return ad.AnnData(np.zeros((len(xy), 0), np.float32), obs=obs, obsm={"spatial": xy})


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def visium(pitch_px: float, n_rows: int = 8, n_cols: int = 8) -> ad.AnnData:
    """A hexagonal array; its first spot lies at (100, 100)."""
    row, col = np.nonzero((np.indices((n_rows, 2 * n_cols)).sum(0) % 2) == 0)
    xy = np.column_stack([col * pitch_px / 2, row * pitch_px * np.sqrt(3) / 2]) + 100
    return plain(xy, array_row=row, array_col=col)


def with_hires(adata: ad.AnnData, hires: np.ndarray, scale: float, **factors: float) -> ad.AnnData:
    adata.uns["spatial"] = {
        "S": {"images": {"hires": hires}, "scalefactors": {"tissue_hires_scalef": scale, **factors}, "metadata": {}}
    }
    return adata


# --- what is written


def test_the_result_has_the_promised_layout(slide):
    before = slide.X.copy()
    assert embed_patch(slide, encoder=ENCODER) is None
    assert slide.obsm[KEY].dtype == np.float32 and slide.obsm[KEY].shape == (50, RECORD.dim)
    assert slide.obs["spahgc_patch_padded"].dtype == bool
    assert slide.uns["spahgc"]["embeddings"][KEY] == RECORD.to_uns()
    assert slide.uns["spahgc"]["slide_mpp"] == MPP_UM
    assert slide.uns["spahgc"]["patch_um"][KEY] == pytest.approx(INPUT_PX * 0.5)
    assert (slide.X != before).nnz == 0


def test_the_embedding_is_that_of_the_patch_around_the_spot(slide):
    embed_patch(slide, encoder=ENCODER)
    (record,) = slide.uns["spatial"].values()
    image = open_image(record["images"]["hires"])
    patch, _ = cut_patch(
        image, slide.obsm["spatial"][7], width_px=INPUT_PX * 0.5 / MPP_UM, out_px=INPUT_PX, interpolation="area"
    )
    cell = INPUT_PX // CELLS
    expected = patch.reshape(CELLS, cell, CELLS, cell, 3).mean((1, 3)).transpose(2, 0, 1).ravel() / 255
    np.testing.assert_allclose(slide.obsm[KEY][7], expected, atol=1e-5)


def test_copy_leaves_the_original_alone(slide):
    changed = embed_patch(slide, encoder=ENCODER, copy=True)
    assert KEY in changed.obsm
    assert KEY not in slide.obsm and "spahgc" not in slide.uns and "spahgc_patch_padded" not in slide.obs


def test_the_key_may_be_chosen_and_embeddings_live_side_by_side(slide):
    embed_patch(slide, encoder=ENCODER)
    embed_patch(slide, encoder=ENCODER, patch_um=60, key_added="X_wide")
    assert {KEY, "X_wide"} <= set(slide.obsm)
    assert set(slide.uns["spahgc"]["embeddings"]) == {KEY, "X_wide"}
    assert slide.uns["spahgc"]["patch_um"] == {KEY: pytest.approx(16), "X_wide": pytest.approx(60)}


def test_other_entries_of_uns_stay(slide):
    slide.uns["spahgc"] = {"predictions": {"a": 1}}
    embed_patch(slide, encoder=ENCODER)
    assert slide.uns["spahgc"]["predictions"] == {"a": 1}


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.parametrize("encoder", [ENCODER, NATIVE], ids=["mpp", "native"])
def test_the_result_survives_writing(slide, tmp_path, form, encoder):
    embed_patch(slide, encoder=encoder)
    path = tmp_path / f"slide.{form}"
    if form == "h5ad":
        slide.write_h5ad(path)
        again = ad.read_h5ad(path)
    else:
        slide.write_zarr(path)
        again = ad.read_zarr(path)
    np.testing.assert_array_equal(again.obsm[KEY], slide.obsm[KEY])
    record = again.uns["spahgc"]["embeddings"][KEY]
    assert {name: np.asarray(value).tolist() for name, value in record.items()} == encoder.record.to_uns()


def test_a_list_is_embedded_slide_by_slide(slide):
    other = sp.datasets.simulated(2, n_patients=2, n_spots=30, n_genes=12)[1]
    alone = embed_patch(other, encoder=ENCODER, copy=True)
    assert embed_patch([slide, other], encoder=ENCODER) is None
    np.testing.assert_array_equal(other.obsm[KEY], alone.obsm[KEY])
    copies = embed_patch([slide, other], encoder=ENCODER, key_added="X_again", copy=True)
    assert [copy.n_obs for copy in copies] == [50, 30]
    assert "X_again" not in slide.obsm


def test_a_view_can_be_embedded(slide):
    view = slide[:10]
    with pytest.warns(ad.ImplicitModificationWarning):
        embed_patch(view, encoder=ENCODER)
    assert view.obsm[KEY].shape[0] == 10
    assert KEY not in slide.obsm


# --- what does not change the numbers


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_the_batch_size_changes_the_embedding_by_rounding_only(slide, batch_size):
    embed_patch(slide, encoder=ENCODER)
    embed_patch(slide, encoder=ENCODER, batch_size=batch_size, key_added="X_batched")
    np.testing.assert_allclose(slide.obsm["X_batched"], slide.obsm[KEY], atol=1e-6)


def test_permuting_the_spots_permutes_the_embedding(slide):
    order = np.random.default_rng(0).permutation(slide.n_obs)
    permuted = embed_patch(slide[order].copy(), encoder=ENCODER, copy=True)
    embed_patch(slide, encoder=ENCODER)
    np.testing.assert_allclose(permuted.obsm[KEY], slide.obsm[KEY][order], atol=1e-6)


def test_embedding_twice_gives_the_same(slide):
    first = embed_patch(slide, encoder=ENCODER, copy=True)
    second = embed_patch(slide, encoder=ENCODER, copy=True)
    np.testing.assert_array_equal(first.obsm[KEY], second.obsm[KEY])


def test_counts_do_not_change_the_embedding(slide):
    other = slide.copy()
    other.X = other.X[::-1] * 3
    embed_patch(slide, encoder=ENCODER)
    embed_patch(other, encoder=ENCODER)
    np.testing.assert_array_equal(slide.obsm[KEY], other.obsm[KEY])


@pytest.mark.parametrize("name", ["slide.png", "slide.tif"])
def test_array_file_and_record_give_the_same(slide, tmp_path, name):
    (record,) = slide.uns["spatial"].values()
    pixels = record["images"]["hires"]
    path = tmp_path / name
    if name.endswith("tif"):
        tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), compression="zlib")
    else:
        Image.fromarray(pixels).save(path)
    embed_patch(slide, encoder=ENCODER)
    embed_patch(slide, encoder=ENCODER, image=path, key_added="X_file")
    embed_patch(slide, encoder=ENCODER, image=pixels, key_added="X_array")
    record["metadata"]["source_image_path"] = str(path)
    record["images"]["hires"] = pixels[::4, ::4]
    record["scalefactors"]["tissue_hires_scalef"] = 0.25
    embed_patch(slide, encoder=ENCODER, key_added="X_named")
    for key in ("X_file", "X_array", "X_named"):
        np.testing.assert_array_equal(slide.obsm[key], slide.obsm[KEY], err_msg=key)


def test_an_image_that_the_caller_opened_stays_open(tmp_path):
    Image.fromarray(noise(100, 120)).save(tmp_path / "slide.png")
    with open_image(tmp_path / "slide.png") as image:
        embed_patch(plain([[50, 60]]), encoder=NATIVE, image=image)
        assert image.read(0, 0, 1, 1).shape == (1, 1, 3)


# --- patches


@pytest.mark.parametrize("mpp", [0.25, 0.125, 0.5])
def test_a_checkerboard_is_cut_to_the_pixel_at_any_resolution(recorder, mpp):
    """One micron of tissue is the same pixel of the patch, however finely the slide was scanned."""
    per_pixel = int(0.5 / mpp)
    small = noise(100, 120)
    large = small.repeat(per_pixel, 0).repeat(per_pixel, 1)
    adata = plain(np.array([[60.0, 40.0]]) * per_pixel)
    embed_patch(adata, encoder=recorder.encoder, image=large, mpp=mpp)
    np.testing.assert_array_equal(recorder.patches[0], small[24:56, 44:76])


def test_a_native_encoder_gets_the_slides_own_pixels(recorder):
    pixels = noise(100, 120)
    adata = plain([[60, 40], [70, 50]])
    embed_patch(adata, encoder=NATIVE, image=pixels)
    np.testing.assert_array_equal(recorder.patches[0], pixels[24:56, 44:76])
    np.testing.assert_array_equal(recorder.patches[1], pixels[34:66, 54:86])
    assert "slide_mpp" not in adata.uns["spahgc"]
    assert KEY not in adata.uns["spahgc"]["patch_um"]
    assert adata.uns["spahgc"]["embeddings"][KEY]["mpp"] == "native"


def test_patch_um_sets_the_width_and_the_record_says_so(recorder):
    small = noise(100, 120)
    adata = plain([[120, 80]])
    # 64 px of 0.25 um are 16 um.
    embed_patch(adata, encoder=NATIVE, image=small.repeat(2, 0).repeat(2, 1), mpp=0.25, patch_um=16)
    np.testing.assert_array_equal(recorder.patches[0], small[24:56, 44:76])
    assert adata.uns["spahgc"]["embeddings"][KEY]["mpp"] == 16 / INPUT_PX
    assert adata.uns["spahgc"]["patch_um"][KEY] == 16


def test_patches_past_the_border_are_white_and_flagged(recorder):
    adata = plain([[16, 50], [15, 50], [104, 84], [105, 84]])
    embed_patch(adata, encoder=NATIVE, image=np.full((100, 120, 3), 100, np.uint8))
    assert adata.obs["spahgc_patch_padded"].tolist() == [False, True, False, True]
    assert (recorder.patches[1][:, 0] == 255).all() and (recorder.patches[1][:, 1:] == 100).all()


def test_patches_are_cut_batch_by_batch_and_encoded_in_pieces_that_suit_a_cpu(recorder, slide, monkeypatch):
    empty, sizes = PatchCutter.empty, []
    monkeypatch.setattr(PatchCutter, "empty", lambda self, n: sizes.append(n) or empty(self, n))
    embed_patch(slide, encoder=ENCODER, batch_size=16)
    assert sizes == [16, 16, 16, 2]
    assert [len(batch) for batch in recorder.batches] == [8] * 6 + [2]


def test_an_encoder_with_an_unknown_filter_is_resampled_by_a_known_one(slide):
    embed_patch(slide, encoder=Encoder(replace(RECORD, interpolation="user"), MeanColours()))
    assert slide.uns["spahgc"]["embeddings"][KEY]["interpolation"] == "bicubic"


@pytest.mark.parametrize("progress", [True, False])
def test_the_progress_bar_follows_the_setting(slide, capsys, monkeypatch, progress):
    monkeypatch.setattr(sp.settings, "progress", progress)
    embed_patch(slide, encoder=ENCODER)
    assert ("50/50" in capsys.readouterr().err) is progress


def test_an_interrupt_leaves_the_object_as_it_was(slide, recorder):
    recorder.fail_at = 2
    with pytest.raises(KeyboardInterrupt):
        embed_patch(slide, encoder=ENCODER, batch_size=16)
    assert KEY not in slide.obsm and "spahgc" not in slide.uns and "spahgc_patch_padded" not in slide.obs


# --- resolution


def test_the_argument_comes_before_the_scale_factor(simulated):
    adata = plain(simulated.obsm["spatial"])
    with_hires(adata, np.zeros((4, 4, 3), np.uint8), 0.1, microns_per_pixel=0.7)
    assert slide_mpp(adata) == 0.7
    assert slide_mpp(adata, mpp=0.6) == 0.6


def test_the_scale_factor_comes_before_the_file_and_the_file_before_the_array(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(60, 60), resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    adata = visium(pitch_px=100 / 0.45)
    assert slide_mpp(adata) == pytest.approx(0.45)
    with open_image(tmp_path / "a.tif") as image:
        assert slide_mpp(adata, image=image) == pytest.approx(0.5)
        with_hires(adata, np.zeros((4, 4, 3), np.uint8), 0.1, microns_per_pixel=0.52)
        assert slide_mpp(adata, image=image) == 0.52


def test_what_a_reader_noted_comes_before_its_file_but_not_before_an_image_that_is_passed(tmp_path, recorder):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(100, 120), resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    for passed, expected in ((None, 0.4), (path, 0.5), (noise(100, 120), 0.4)):
        adata = plain([[60, 50]])
        adata.uns["spahgc"] = {"slide_mpp": 0.4}
        adata.uns["spatial"] = {"S": {"metadata": {"source_image_path": str(path)}}}
        embed_patch(adata, encoder=recorder.encoder, image=passed)
        assert adata.uns["spahgc"]["slide_mpp"] == pytest.approx(expected)


def test_the_pitch_of_visium_is_recognised_on_a_turned_slide():
    adata = visium(pitch_px=250)
    turn = np.deg2rad(17)
    adata.obsm["spatial"] = adata.obsm["spatial"] @ np.array(
        [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    )
    assert slide_mpp(adata) == pytest.approx(0.4)


def test_the_pitch_of_a_square_array_tells_nothing():
    row, col = (index.ravel() for index in np.indices((9, 9)))
    xy = np.column_stack([col, row]) * 50.0
    assert slide_mpp(plain(xy, array_row=row, array_col=col)) is None
    every_other = (row + col) % 2 == 0
    thinned = plain(xy[every_other], array_row=row[every_other], array_col=col[every_other])
    assert slide_mpp(thinned) is None


def test_nothing_known_gives_no_resolution():
    assert slide_mpp(plain([[1, 2], [3, 4]])) is None


def test_a_resolution_that_contradicts_the_array_is_refused():
    adata = visium(pitch_px=200)
    with pytest.raises(ValueError, match=r"mpp= says 1 um per pixel.*lie 200\.0 px apart.*0\.5 um per pixel"):
        slide_mpp(adata, mpp=1.0)


def test_embed_refuses_a_resolution_that_contradicts_the_array():
    adata = visium(pitch_px=50)
    with pytest.raises(ValueError, match="full-resolution image"):
        embed_patch(adata, encoder=ENCODER, image=np.zeros((900, 900, 3), np.uint8), mpp=0.5)


# --- bad inputs


@pytest.fixture
def unloadable(monkeypatch):
    """Bad inputs are found before the encoder is loaded."""

    def load(*_, **__):
        raise AssertionError("the encoder was loaded before the inputs were checked")

    monkeypatch.setattr("spahgc.encoders.load_encoder", load)


def refused(data, error, match, **kwargs):
    with pytest.raises(error, match=match):
        embed_patch(data, **{"encoder": "efficientnet_lite0", **kwargs})


IMAGE = np.zeros((100, 120, 3), np.uint8)


def test_other_objects_are_refused(unloadable):
    refused(pd.DataFrame(), TypeError, "AnnData, a SpatialData or a list of them, found DataFrame")


def test_an_empty_list_is_refused(unloadable):
    refused([], ValueError, "list of slides is empty")


def test_one_image_for_a_list_is_refused(unloadable, slide):
    refused([slide], ValueError, "image= goes with one slide", image=IMAGE)


def test_an_object_without_spots_is_refused(unloadable, slide):
    refused(slide[:0].copy(), ValueError, "has no spots")


def test_several_slides_in_one_object_are_refused(unloadable):
    adata = plain([[10, 10], [20, 20]], slide=["a", "b"])
    refused(adata, ValueError, r'obs\["slide"\] names 2 slides.*Pass a list', image=IMAGE)


def test_missing_coordinates_are_refused(unloadable, slide):
    del slide.obsm["spatial"]
    refused(slide, KeyError, r'obsm\["spatial"\] not found')


def test_coordinates_that_are_not_finite_are_refused(unloadable, slide):
    slide.obsm["spatial"][3, 0] = np.nan
    refused(slide, ValueError, "NaN or infinite coordinates in 1 of 50 spots")


def test_coordinates_of_three_columns_are_refused(unloadable, slide):
    slide.obsm["spatial"] = np.ones((50, 3))
    refused(slide, ValueError, "spots x 2")


def test_a_slide_without_an_image_is_refused(unloadable):
    refused(plain([[5, 5]]), ValueError, "no full-resolution image is known.*Pass image=")


def test_a_reduced_hires_image_is_not_taken_for_the_slide(unloadable):
    adata = with_hires(plain([[5, 5]]), IMAGE, 0.2)
    refused(adata, ValueError, r"only the hires image .* reduced to 0\.2 of the full-resolution image.*Pass image=")


def test_a_hires_image_that_is_too_coarse_is_refused_with_both_resolutions(unloadable):
    adata = with_hires(plain([[50, 50]]), IMAGE, 0.2, microns_per_pixel=0.3)
    refused(
        adata,
        ValueError,
        r"a pixel is 1\.5 um wide, but 0\.5 um are needed.*allow_upsampling=True",
        encoder="uni",
    )
    refused(adata, ValueError, r"1\.5 um wide, but 1 um are needed", encoder="uni", patch_um=224)


@pytest.mark.parametrize("arguments", [{}, {"patch_um": 224}])
def test_an_encoder_that_never_saw_tissue_enlarges_a_hires_image_and_says_so(arguments):
    adata = with_hires(plain([[500, 500]]), noise(200, 200), 0.2, microns_per_pixel=0.3)
    with pytest.warns(UserWarning, match=r"1\.5 um wide, but .* um are needed.*trained on photographs"):
        embed_patch(adata, encoder="efficientnet_lite0", **arguments)
    assert adata.obsm["X_efficientnet_lite0"].shape == (1, 1280)


def test_a_hires_image_that_is_too_coarse_for_an_encoder_by_another_name_is_refused():
    adata = with_hires(plain([[50, 50]]), IMAGE, 0.2, microns_per_pixel=0.3)

    class Blank(MeanColours):
        pass

    def transform(image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255

    with pytest.raises(ValueError, match=r"1\.5 um wide, but 0\.3 um are needed"):
        embed_patch(adata, encoder=(Blank(), transform))


def test_a_hires_image_that_is_fine_enough_stands_in_for_the_slide(recorder):
    """Spots and resolution are those of the full-resolution image, pixels those of the hires image."""
    pixels = noise(100, 120)
    adata = with_hires(plain([[300, 200]]), pixels, 0.2, microns_per_pixel=0.1)
    embed_patch(adata, encoder=recorder.encoder)
    np.testing.assert_array_equal(recorder.patches[0], pixels[24:56, 44:76])
    assert adata.uns["spahgc"]["slide_mpp"] == pytest.approx(0.1)
    assert adata.uns["spahgc"]["patch_um"][KEY] == pytest.approx(INPUT_PX * 0.5)


def test_a_hires_image_that_is_too_coarse_is_enlarged_where_that_is_allowed(recorder):
    pixels = noise(100, 120).repeat(2, 0).repeat(2, 1)[::4, ::4]
    adata = with_hires(plain([[100, 80]]), pixels, 0.25, microns_per_pixel=0.5)
    embed_patch(adata, encoder=recorder.encoder, allow_upsampling=True)
    embed_patch(adata, encoder=NATIVE, allow_upsampling=True, key_added="X_native")
    # 32 px of the full-resolution image are 8 of the hires image, whichever way the encoder asks for them.
    small = pixels[16:24, 21:29].astype(float)
    for patch in recorder.patches:
        assert np.abs(patch.reshape(8, 4, 8, 4, 3).mean((1, 3)) - small).max() <= 1
    assert adata.uns["spahgc"]["slide_mpp"] == 0.5


def test_an_image_that_moved_is_named(unloadable, slide):
    (record,) = slide.uns["spatial"].values()
    record["metadata"]["source_image_path"] = "gone/slide.tif"
    refused(slide, FileNotFoundError, r'"gone/slide\.tif" does not exist\. Pass image=')


def test_images_of_several_slides_are_refused(unloadable, slide):
    slide.uns["spatial"]["other"] = {}
    del slide.obs["slide"]
    refused(slide, ValueError, r'uns\["spatial"\] holds 2 slides.*write its name into adata\.obs\["slide"\]')


@pytest.mark.parametrize("column", ["slide", "library_id"])
def test_obs_says_which_of_several_images_is_the_slides(slide, column):
    expected = embed_patch(slide, encoder=ENCODER, copy=True)
    slide.uns["spatial"]["other"] = {"images": {"hires": IMAGE}, "scalefactors": {"tissue_hires_scalef": 1.0}}
    slide.obs = slide.obs.rename(columns={"slide": column})
    embed_patch(slide, encoder=ENCODER)
    np.testing.assert_array_equal(slide.obsm[KEY], expected.obsm[KEY])


def test_an_unknown_resolution_is_refused(unloadable):
    from spahgc.encoders import describe_encoder

    assert describe_encoder("uni").mpp is not None
    refused(
        plain([[50, 50]]), ValueError, r"resolution of slide .* is not known.*Pass mpp=", image=IMAGE, encoder="uni"
    )


def test_patch_um_needs_a_resolution(unloadable):
    refused(plain([[50, 50]]), ValueError, "is not known.*112 um wide.*Pass mpp=", image=IMAGE, patch_um=112)


@pytest.mark.parametrize("mpp", [0, -1, np.nan, np.inf])
def test_a_resolution_that_is_none_is_refused(unloadable, slide, mpp):
    refused(slide, ValueError, "mpp is .* pass a positive number", mpp=mpp)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_a_batch_size_that_is_none_is_refused(unloadable, slide, batch_size):
    refused(slide, ValueError, "batch_size is", batch_size=batch_size)


@pytest.mark.parametrize("mpp", [0.0002, 200.0])
def test_a_resolution_in_other_units_is_refused(unloadable, mpp):
    refused(plain([[50, 50]]), ValueError, f"mpp={mpp} is no resolution", image=IMAGE, mpp=mpp, patch_um=112)


def test_a_patch_that_is_wider_than_the_slide_is_refused(unloadable):
    refused(
        plain([[50, 50]]),
        ValueError,
        "px wide on slide.*Is that resolution right",
        image=IMAGE,
        mpp=0.5,
        patch_um=50_000,
    )


def test_centres_outside_the_image_are_refused(unloadable):
    adata = plain([[50, 50], [500, 50], [50, 700]])
    refused(adata, ValueError, r"2 of 3 spot centres.*x from 50\.0 to 500\.0.*120 px wide and 100 px high", image=IMAGE)


def test_swapped_coordinates_are_recognised(unloadable):
    refused(plain([[50, 110], [60, 20]]), ValueError, "With x and y swapped all would be inside", image=IMAGE)


def test_the_hires_image_passed_as_the_full_one_is_recognised(unloadable):
    adata = with_hires(plain([[500, 400], [50, 50]]), IMAGE, 0.2)
    refused(adata, ValueError, "has the size of the hires image", image=IMAGE)


@pytest.mark.parametrize("diameter", [{"spot_diameter_fullres": 55.0}, {}], ids=["diameter", "extent"])
def test_coordinates_of_the_hires_image_are_recognised(unloadable, diameter):
    grid = np.column_stack([index.ravel() for index in np.indices((5, 5))]) * 20.0 + 10
    adata = with_hires(plain(grid), IMAGE, 0.2, **diameter)
    full = np.zeros((500, 600, 3), np.uint8)
    refused(adata, ValueError, r"look like pixels of the hires image.*Divide them by tissue_hires_scalef", image=full)


def test_a_corner_of_a_slide_is_not_taken_for_hires_coordinates():
    grid = np.column_stack([index.ravel() for index in np.indices((2, 2))]) * 70.0 + 20
    adata = with_hires(plain(grid), IMAGE, 0.2, spot_diameter_fullres=40.0)
    embed_patch(adata, encoder=NATIVE, image=np.full((500, 600, 3), 200, np.uint8))
    assert KEY in adata.obsm


def test_an_object_that_is_no_image_is_refused(unloadable):
    refused(plain([[50, 50]]), TypeError, "image is of type int", image=3)


def test_nothing_is_written_when_the_image_is_truncated(tmp_path):
    path = tmp_path / "slide.png"
    Image.fromarray(noise(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:50_000])
    adata = plain([[50, 50]])
    with pytest.raises(ValueError, match="cannot be read"):
        embed_patch(adata, encoder=NATIVE, image=path)
    assert list(adata.obsm) == ["spatial"]
    assert "spahgc" not in adata.uns


# --- the encoder that works offline, on a measured slide


def test_the_offline_encoder_works(slide):
    few = embed_patch(slide[:8].copy(), encoder="efficientnet_lite0", copy=True)
    assert few.obsm["X_efficientnet_lite0"].shape == (8, 1280)
    assert few.uns["spahgc"]["embeddings"]["X_efficientnet_lite0"]["name"] == "efficientnet_lite0"


@pytest.mark.data
def test_a_measured_slide_is_embedded_from_its_file(her2st):
    adata = sp.io.st(her2st / "C2.tsv.gz", her2st / "C2_selection.tsv", her2st / "C2.jpg")[::20].copy()
    embed_patch(adata, encoder="efficientnet_lite0", batch_size=4)
    embed_patch(adata, encoder="efficientnet_lite0", batch_size=64, key_added="X_again")
    assert adata.obsm["X_efficientnet_lite0"].shape == (10, 1280)
    np.testing.assert_allclose(adata.obsm["X_again"], adata.obsm["X_efficientnet_lite0"], atol=1e-4)
    assert not adata.obs["spahgc_patch_padded"].any()


@pytest.mark.data
def test_patches_of_a_measured_slide_show_the_tissue_under_the_spot(her2st, recorder):
    """Cut from the full-size file, a patch is the enlarged piece of the small image at the same place."""
    adata = sp.io.st(None, her2st / "C3_selection.tsv", her2st / "C3.jpg")[::30].copy()
    embed_patch(adata, encoder=NATIVE, patch_um=200)
    record = adata.uns["spatial"]["C3"]
    scale = record["scalefactors"]["tissue_hires_scalef"]
    width = 200 / record["scalefactors"]["microns_per_pixel"]
    hires = open_image(record["images"]["hires"])
    for patch, center in zip(recorder.patches, adata.obsm["spatial"], strict=True):
        small, _ = cut_patch(hires, center * scale, width_px=width * scale, out_px=INPUT_PX, interpolation="area")
        assert np.corrcoef(patch.ravel(), small.ravel())[0, 1] > 0.9
