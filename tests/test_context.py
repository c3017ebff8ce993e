"""Context: which column shows what, turns of the slide that change nothing, errors before any image is read."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from torch import nn

import spahgc as sp
from spahgc._validate import embedding_matrix
from spahgc.encoders import Encoder, EncoderRecord, load_encoder
from spahgc.encoders._layout import Layout, context_blocks, parse_layout, write_layout
from spahgc.encoders._levels import find_levels
from spahgc.encoders._record import plain_columns
from spahgc.pp import Context

SIDE = 32
CELLS = 2
VIT_SIDE = 64
VIT_DIM = 192
LITE0 = "X_efficientnet_lite0"
LITE0_DIM = 1280
LITE0_LEVELS = (16, 24, 40, 112, 320)
"""Channels of all its levels."""
LITE0_SIDE = 96
LITE0_COLUMNS = LITE0_DIM + 2 * sum(LITE0_LEVELS)
"""Of one scale."""
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Rounding of a network that takes its numbers in another order."""
KEY = "X_colours"


class MeanColours(nn.Module):
    """An encoder without levels: mean colours of 2 x 2 cells of the patch."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(CELLS)

    def forward(self, x):
        return self.pool(x).flatten(1)


def record_of(name: str, dim: int, side: int, mpp: float | None = None) -> EncoderRecord:
    return EncoderRecord(name, "1", dim, side, mpp, (0.0,) * 3, (1.0,) * 3, "area", "mean", "fp32", "patch")


COLOURS = Encoder(record_of("colours", 3 * CELLS**2, SIDE), MeanColours())


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")


@pytest.fixture(scope="module")
def lite0() -> Encoder:
    """The real network at a quarter of its area, for speed."""
    loaded = load_encoder("efficientnet_lite0")
    return replace(loaded, record=replace(loaded.record, input_px=LITE0_SIDE))


@pytest.fixture(scope="module")
def vit() -> Encoder:
    """UNI's architecture, smaller, with random weights."""
    torch.manual_seed(0)
    module = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, num_classes=0, img_size=VIT_SIDE, dynamic_img_size=True
    )
    return Encoder(record_of("vit", VIT_DIM, VIT_SIDE), module)


@pytest.fixture(scope="module")
def simulated() -> ad.AnnData:
    return sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=12)[0]


@pytest.fixture
def slide(simulated) -> ad.AnnData:
    return simulated[:6].copy()


def spots(xy) -> ad.AnnData:
    xy = np.atleast_2d(np.asarray(xy, dtype=float))
    obs = pd.DataFrame(index=[f"spot{i}" for i in range(len(xy))])
    return ad.AnnData(np.zeros((len(xy), 0), np.float32), obs=obs, obsm={"spatial": xy})


def columns(adata: ad.AnnData, key: str) -> np.ndarray:
    """All that an embedding shows, as every function takes it that is handed its key."""
    return embedding_matrix(adata, key, "the slide")


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def hooked(encoder: Encoder, names: list[str], patches: np.ndarray) -> list[np.ndarray]:
    """What the named parts of a network return while it does what it always does."""
    seen: dict[str, np.ndarray] = {}

    def keep(name: str):
        return lambda _module, _inputs, output: seen.update({name: output.double().numpy()})

    handles = [encoder.module.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        encoder.encode(patches, device="cpu")
    finally:
        for handle in handles:
            handle.remove()
    return [seen[name] for name in names]


def statistics(places: np.ndarray) -> list[np.ndarray]:
    """Mean and standard deviation over the places of patches x places x channels."""
    mean = places.mean(1)
    return [mean, np.sqrt((places**2).mean(1) - mean**2)]


@pytest.fixture
def batch_sizes(monkeypatch) -> list[int]:
    """How many patches each pass through a MeanColours was given."""
    sizes: list[int] = []
    forward = MeanColours.forward

    def counted(module, x):
        sizes.append(len(x))
        return forward(module, x)

    monkeypatch.setattr(MeanColours, "forward", counted)
    return sizes


# --- columns


def test_the_columns_are_output_and_levels_scale_by_scale(slide, lite0):
    sp.pp.embed(slide, encoder=lite0, context=Context(scales=(1, 2), rotations=1))
    assert slide.obsm[LITE0].dtype == slide.obsm[f"{LITE0}_context"].dtype == np.float32
    assert slide.obsm[LITE0].shape == (slide.n_obs, LITE0_DIM)
    assert slide.obsm[f"{LITE0}_context"].shape == (slide.n_obs, 2 * LITE0_COLUMNS - LITE0_DIM)
    both = np.hstack([slide.obsm[LITE0], slide.obsm[f"{LITE0}_context"]])
    np.testing.assert_array_equal(columns(slide, LITE0), both)
    record = slide.uns["spahgc"]["embeddings"][LITE0]
    assert record["dim"] == LITE0_DIM
    assert record["context"] == "scales 1,2; levels 16,24,40,112,320; rotations 1"


@pytest.mark.parametrize("depths", [0, 2])
@pytest.mark.parametrize("rotations", [1, 4])
def test_the_first_columns_are_those_of_the_patch_alone(slide, lite0, vit, depths, rotations):
    few = slide[:2].copy()
    for encoder in (lite0, vit):
        key = f"X_{encoder.record.name}"
        sp.pp.embed(few, encoder=encoder, key_added="X_plain", context=False)
        sp.pp.embed(few, encoder=encoder, context=Context(scales=(1, 3), depths=depths, rotations=rotations))
        plain = few.obsm["X_plain"]
        assert plain.shape[1] == encoder.record.dim < columns(few, key).shape[1]
        np.testing.assert_allclose(few.obsm[key], plain, **CLOSE)


def test_a_scale_is_the_embedding_of_a_patch_so_much_wider(slide, lite0):
    def embed(key, **arguments):
        sp.pp.embed(slide, encoder=lite0, key_added=key, **arguments)
        return columns(slide, key)

    both = embed("X_both", patch_um=80, context=Context(scales=(1, 2.5), depths=1, rotations=1))
    wide = embed("X_wide", patch_um=200, context=Context(scales=(1,), depths=1, rotations=1))
    n_columns = LITE0_DIM + 2 * LITE0_LEVELS[-1]
    assert both.shape[1] == 2 * n_columns
    np.testing.assert_allclose(both[:, n_columns:], wide, **CLOSE)
    np.testing.assert_allclose(
        both[:, n_columns:][:, :LITE0_DIM], embed("X_plain", patch_um=200, context=False), **CLOSE
    )
    assert np.abs(both[:, :n_columns] - both[:, n_columns:]).max() > 0.1


def test_scales_widen_the_patch_around_the_same_centre():
    pixels = noise(200, 200)
    adata = spots([[100, 90]])
    sp.pp.embed(adata, encoder=COLOURS, image=pixels, context=Context(scales=(1, 2), depths=0, rotations=1))
    wide = pixels[90 - SIDE : 90 + SIDE, 100 - SIDE : 100 + SIDE] / 255
    cells = wide.reshape(CELLS, SIDE, CELLS, SIDE, 3).mean((1, 3)).transpose(2, 0, 1).ravel()
    # Rows and columns are averaged one after the other, and each time halves are rounded up to whole numbers.
    np.testing.assert_allclose(adata.obsm[f"{KEY}_context"][0], cells, atol=1 / 255)


@pytest.mark.parametrize("depths", [None, 3])
def test_depths_of_a_convolutional_network_are_statistics_of_its_last_levels(lite0, depths):
    patches = noise(2 * LITE0_SIDE, LITE0_SIDE).reshape(2, LITE0_SIDE, LITE0_SIDE, 3)
    levels = find_levels(lite0, depths, device="cpu")
    n_levels = 5 if depths is None else depths
    assert levels.widths == LITE0_LEVELS[-n_levels:]
    features = lite0.encode(patches, device="cpu", levels=levels)
    parts = hooked(lite0, [info["module"] for info in lite0.module.feature_info[-n_levels:]], patches)
    assert parts[-1].shape == (2, 320, 3, 3)
    expected = [block for part in parts for block in statistics(part.reshape(*part.shape[:2], -1).swapaxes(1, 2))]
    np.testing.assert_allclose(features[:, LITE0_DIM:], np.concatenate(expected, axis=1), **CLOSE)


@pytest.mark.parametrize("depths", [None, 3])
def test_depths_of_a_transformer_are_statistics_of_patch_tokens_at_even_distances(vit, depths):
    patches = noise(2 * VIT_SIDE, VIT_SIDE).reshape(2, VIT_SIDE, VIT_SIDE, 3)
    levels = find_levels(vit, depths, device="cpu")
    assert len(vit.module.blocks) == 12 and levels.indices == (2, 5, 8) and levels.widths == (VIT_DIM,) * 3
    features = vit.encode(patches, device="cpu", levels=levels)
    # Behind blocks 3, 6 and 9 of 12; the first token is the class token.
    tokens = hooked(vit, ["blocks.2", "blocks.5", "blocks.8"], patches)
    expected = [block for part in tokens for block in statistics(part[:, 1:])]
    np.testing.assert_allclose(features[:, VIT_DIM:], np.concatenate(expected, axis=1), **CLOSE)
    np.testing.assert_allclose(features[:, :VIT_DIM], vit.encode(patches, device="cpu"), **CLOSE)


def test_a_transformer_of_fewer_blocks_shows_all_but_the_last():
    module = timm.models.VisionTransformer(
        img_size=SIDE, patch_size=8, embed_dim=12, depth=3, num_heads=2, num_classes=0
    )
    assert find_levels(Encoder(record_of("shallow", 12, SIDE), module), None, device="cpu").indices == (0, 1)


def test_a_level_that_is_the_same_everywhere_deviates_by_nothing(lite0):
    levels = find_levels(lite0, None, device="cpu")
    small = replace(lite0, record=replace(lite0.record, input_px=SIDE))
    features = small.encode(noise(SIDE, SIDE)[None], device="cpu", levels=levels)
    # At 32 px the last level is a plane of a single place.
    np.testing.assert_array_equal(features[0, -LITE0_LEVELS[-1] :], 0)


def test_a_single_depth_of_a_transformer_lies_in_its_middle(vit):
    assert find_levels(vit, 1, device="cpu").indices == (5,)
    assert find_levels(vit, 11, device="cpu").indices == tuple(range(11))


def test_the_recommended_context_is_that_of_true(slide, vit):
    few = slide[:2].copy()
    sp.pp.embed(few, encoder=vit, context=True)
    sp.pp.embed(few, encoder=vit, context=Context(), key_added="X_same")
    np.testing.assert_array_equal(columns(few, "X_vit"), columns(few, "X_same"))
    assert few.uns["spahgc"]["embeddings"]["X_vit"]["context"] == "scales 1,2,4; levels 192,192,192; rotations 4"


@pytest.mark.parametrize("context", [False, Context(scales=(1,), depths=0)])
def test_a_context_of_nothing_is_the_plain_patch(slide, context):
    sp.pp.embed(slide, encoder=COLOURS, context=context)
    assert slide.uns["spahgc"]["embeddings"][KEY] == COLOURS.record.to_uns()
    assert slide.obsm[KEY].shape[1] == COLOURS.record.dim
    assert "spahgc_context_padded" not in slide.obs


# --- the default


def test_without_a_word_patches_of_448_and_1344_um_and_all_levels_are_looked_at(slide, lite0):
    few = slide[:2].copy()
    sp.pp.embed(few, encoder=lite0)
    sp.pp.embed(few, encoder=lite0, context=Context(widths_um=(448, 1344), rotations=1), key_added="X_same")
    np.testing.assert_array_equal(columns(few, LITE0), columns(few, "X_same"))
    record = few.uns["spahgc"]["embeddings"][LITE0]
    assert record["context"] == "widths 448,1344 um; levels 16,24,40,112,320; rotations 1"
    assert few.obsm[LITE0].shape == (2, LITE0_DIM)
    assert columns(few, LITE0).shape == (2, 3 * LITE0_COLUMNS)


@pytest.mark.parametrize("mpp", [0.5, 2.0])
def test_widths_in_microns_are_the_same_on_every_slide(mpp):
    pixels = noise(400, 400)
    adata = spots([[200, 200]])
    context = Context(widths_um=(64,), depths=0, rotations=1)
    sp.pp.embed(adata, encoder=COLOURS, image=pixels, mpp=mpp, context=context)
    half = int(64 / mpp / 2)
    wide = pixels[200 - half : 200 + half, 200 - half : 200 + half] / 255
    cells = wide.reshape(CELLS, half, CELLS, half, 3).mean((1, 3)).transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(adata.obsm[f"{KEY}_context"][0], cells, atol=1.5 / 255)


def test_an_encoder_that_shows_no_levels_is_asked_for_its_output_alone(slide):
    sp.pp.embed(slide, encoder=COLOURS)
    record = slide.uns["spahgc"]["embeddings"][KEY]
    assert record["context"] == "widths 448,1344 um; levels none; rotations 1"
    assert columns(slide, KEY).shape == (slide.n_obs, 3 * COLOURS.record.dim)


def test_an_encoder_with_a_context_of_its_own_keeps_it(slide):
    own = replace(COLOURS, record=replace(COLOURS.record, context="whole slide"))
    sp.pp.embed(slide, encoder=own)
    assert slide.uns["spahgc"]["embeddings"][KEY]["context"] == "whole slide"
    assert columns(slide, KEY).shape == (slide.n_obs, COLOURS.record.dim) and f"{KEY}_context" not in slide.obsm


def test_a_slide_of_unknown_resolution_is_refused_with_both_ways_out():
    refused(ValueError, r"resolution .* not known.*448 and 1344 um.*Pass mpp=.*or context=False", encoder=COLOURS)


def test_a_plain_embedding_takes_the_place_of_a_wider_one(slide):
    sp.pp.embed(slide, encoder=COLOURS)
    assert f"{KEY}_context" in slide.obsm
    sp.pp.embed(slide, encoder=COLOURS, context=False)
    assert f"{KEY}_context" not in slide.obsm
    np.testing.assert_array_equal(columns(slide, KEY), slide.obsm[KEY])


def test_half_of_an_embedding_is_refused(slide):
    sp.pp.embed(slide, encoder=COLOURS)
    del slide.obsm[f"{KEY}_context"]
    with pytest.raises(KeyError, match=r'obsm\["X_colours_context"\] not found in the slide.*"widths 448,1344 um'):
        columns(slide, KEY)


def test_an_embedding_of_an_earlier_version_holds_all_columns_under_one_key(slide):
    sp.pp.embed(slide, encoder=COLOURS)
    all_columns = columns(slide, KEY)
    slide.obsm[KEY] = all_columns
    del slide.obsm[f"{KEY}_context"]
    np.testing.assert_array_equal(columns(slide, KEY), all_columns)


# --- turns


@pytest.mark.parametrize("name", ["lite0", "vit"])
def test_a_slide_turned_about_the_spot_changes_the_plain_block_alone(name, request):
    encoder = request.getfixturevalue(name)
    # By whole pixels at every scale, so that resampling rounds nothing.
    encoder = replace(encoder, record=replace(encoder.record, interpolation="area", mpp=None))
    dim, middle = encoder.record.dim, 2 * encoder.record.input_px
    pixels = noise(middle // 2, middle // 2).repeat(4, 0).repeat(4, 1)
    found = []
    for image in (pixels, np.rot90(pixels), np.rot90(pixels, 2)):
        adata = spots([[middle, middle]])
        sp.pp.embed(adata, encoder=encoder, image=np.ascontiguousarray(image), context=Context(), key_added="X_turned")
        assert not adata.obs["spahgc_context_padded"].any()
        found.append(columns(adata, "X_turned")[0])
    for turned in found[1:]:
        np.testing.assert_allclose(turned[dim:], found[0][dim:], **CLOSE)
        assert np.abs(turned[:dim] - found[0][:dim]).max() > 0.01


@pytest.mark.parametrize("turn_output", [True, False])
def test_blocks_are_averages_of_four_turned_patches(vit, turn_output):
    patches = noise(2 * VIT_SIDE, VIT_SIDE).reshape(2, VIT_SIDE, VIT_SIDE, 3)
    levels = find_levels(vit, 2, device="cpu")
    four = [vit.encode(np.rot90(patches, turn, (1, 2)), device="cpu", levels=levels).astype(float) for turn in range(4)]
    assert min(np.abs(turned - four[0]).max() for turned in four[1:]) > 0.01
    expected = np.mean(four, axis=0)
    if not turn_output:
        expected[:, :VIT_DIM] = four[0][:, :VIT_DIM]
    features = vit.encode(patches, device="cpu", levels=levels, rotations=4, turn_output=turn_output)
    np.testing.assert_allclose(features, expected, **CLOSE)


def test_without_turns_every_block_is_that_of_the_upright_patch(vit):
    adata, pixels = spots([[70, 80]]), noise(160, 160)
    sp.pp.embed(adata, encoder=vit, image=pixels, context=Context(scales=(1,), depths=2, rotations=1))
    patch = pixels[80 - 32 : 80 + 32, 70 - 32 : 70 + 32][None]
    upright = vit.encode(patch, device="cpu", levels=find_levels(vit, 2, device="cpu"))
    np.testing.assert_allclose(columns(adata, "X_vit"), upright, **CLOSE)


@pytest.mark.parametrize(("depths", "rotations", "n_passes"), [(1, 4, 12), (1, 1, 3), (0, 4, 9), (0, 1, 3)])
def test_a_spot_costs_as_many_passes_as_promised(vit, depths, rotations, n_passes):
    passes = []
    levels = find_levels(vit, depths, device="cpu")
    handle = vit.module.patch_embed.register_forward_hook(lambda *_: passes.append(1))
    for place in range(3):
        patch = noise(VIT_SIDE, VIT_SIDE)[None]
        vit.encode(patch, device="cpu", levels=levels, rotations=rotations, turn_output=place > 0)
    handle.remove()
    assert len(passes) == n_passes


def test_a_transform_that_makes_oblong_inputs_is_refused_with_turns_only():
    def oblong(image):
        return torch.from_numpy(np.asarray(image, dtype=np.float32)[: SIDE // 2]).permute(2, 0, 1)

    encoder = replace(COLOURS, transform=oblong)
    context = Context(scales=(1, 2), depths=0)
    refused(ValueError, r'"colours" makes 16 x 32 pixels.*Context\(rotations=1\)', encoder=encoder, context=context)
    adata = spots([[50, 50]])
    sp.pp.embed(adata, encoder=encoder, image=noise(100, 100), context=replace(context, rotations=1))
    assert columns(adata, KEY).shape == (1, 2 * COLOURS.record.dim)


# --- layout


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout((1.0,), (40, 112), 1),
        Layout((1.0, 2.0, 4.0), LITE0_LEVELS, 4),
        Layout((1.0, 2.5, 0.3, 1e-05, 1e16), (), 4),
        Layout((1.0,), LITE0_LEVELS, 1, (448.0, 1344.0)),
        Layout((1.0,), (), 1, (0.5,)),
    ],
)
def test_a_layout_is_read_as_it_was_written(layout):
    assert parse_layout(write_layout(layout)) == layout


def test_layouts_are_written_for_people():
    assert write_layout(Layout()) == "patch"
    written = "scales 1,2,4; levels 16,24,40,112,320; rotations 4"
    assert write_layout(Layout((1.0, 2.0, 4.0), LITE0_LEVELS, 4)) == written
    written = "widths 448,1344 um; levels 16,24,40,112,320; rotations 1"
    assert write_layout(Layout((1.0,), LITE0_LEVELS, 1, (448.0, 1344.0))) == written
    assert write_layout(Layout((1.0, 2.5), (), 1)) == "scales 1,2.5; levels none; rotations 1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whole slide",
        "scales 1,2; depths 3",
        "scales 1,2; levels 16; rotations 4 ",
        "scales 1.0,2; levels 16; rotations 4",
        "scales 1,2; levels 0; rotations 4",
        "scales 1,2; levels 16,; rotations 4",
        "scales nan; levels 16; rotations 4",
        "scales 1; levels none; rotations 4",
    ],
)
def test_a_context_in_the_users_own_words_is_one_block(text):
    assert parse_layout(text) is None
    assert context_blocks({"dim": 5, "context": text}, 7) == [slice(0, 7)]


def test_an_embedding_without_a_context_is_one_block():
    assert context_blocks(COLOURS.record.to_uns(), 12) == [slice(0, 12)]
    assert context_blocks({}, 9) == [slice(0, 9)]


def test_the_blocks_of_an_embedding_follow_from_its_record(slide, lite0):
    few = slide[:2].copy()
    sp.pp.embed(few, encoder=lite0, context=Context(scales=(1, 3), depths=2, rotations=1))
    sp.pp.embed(few, encoder=lite0, context=Context(scales=(1, 3), depths=0, rotations=1), key_added="X_outputs")
    matrix = columns(few, LITE0)
    blocks = context_blocks(few.uns["spahgc"]["embeddings"][LITE0], matrix.shape[1])
    widths = [block.stop - block.start for block in blocks]
    assert widths == [LITE0_DIM, 112, 112, 320, 320] * 2
    np.testing.assert_array_equal(np.concatenate([matrix[:, block] for block in blocks], axis=1), matrix)
    outputs = np.concatenate([matrix[:, blocks[0]], matrix[:, blocks[5]]], axis=1)
    np.testing.assert_allclose(outputs, columns(few, "X_outputs"), **CLOSE)
    for deviation in (2, 4, 7, 9):
        assert (matrix[:, blocks[deviation]] >= 0).all() and (matrix[:, blocks[deviation - 1]] < 0).any()


def test_a_matrix_that_the_record_does_not_describe_is_refused():
    record = {"dim": 10, "context": "scales 1,2; levels 3,4; rotations 4"}
    assert context_blocks(record, 48)[-1] == slice(44, 48)
    with pytest.raises(ValueError, match=r'tells of 48 columns \(dim 10, context "scales 1,2; .*embedding has 10\.'):
        context_blocks(record, 10)


def test_the_layout_is_read_without_torch():
    code = "import sys; from spahgc.encoders._layout import context_blocks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(("dim", "levels", "said"), [(1280, LITE0_LEVELS, "6,912"), (1024, (1024,) * 3, "21,504")])
def test_the_columns_are_as_many_as_the_documentation_says(dim, levels, said):
    default = Context()
    layout = Layout(default.scales, levels, default.rotations)
    assert f"{sum(layout.widths(dim)):,}" == said
    assert f"{said} columns" in Context.__doc__


# --- batches, borders, files


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_the_batch_size_does_not_change_the_embedding(slide, vit, batch_size):
    context = Context(scales=(1, 2), depths=2)
    sp.pp.embed(slide, encoder=vit, context=context)
    sp.pp.embed(slide, encoder=vit, context=context, batch_size=batch_size, key_added="X_batched")
    np.testing.assert_allclose(columns(slide, "X_batched"), columns(slide, "X_vit"), **CLOSE)


def test_no_more_patches_than_a_batch_are_encoded_at_once(slide, batch_sizes):
    sp.pp.embed(slide, encoder=COLOURS, context=Context(scales=(1, 2, 4), depths=0), batch_size=4)
    assert batch_sizes == [4] * 9 + [2] * 9


def test_the_progress_bar_counts_points_whatever_their_patches(slide, capsys, monkeypatch):
    monkeypatch.setattr(sp.settings, "progress", True)
    sp.pp.embed(slide, encoder=COLOURS, context=Context(scales=(1, 2, 4), depths=0))
    assert "6/6" in capsys.readouterr().err


GREY = 100
"""Value of a plain image; a black one is refused."""


def test_wide_patches_past_the_border_are_white_and_flagged_apart():
    adata = spots([[60, 50], [20, 50], [15, 50]])
    image = np.full((100, 120, 3), GREY, np.uint8)
    sp.pp.embed(adata, encoder=COLOURS, image=image, context=Context(scales=(1, 2), depths=0, rotations=1))
    assert adata.obs["spahgc_patch_padded"].tolist() == [False, False, True]
    assert adata.obs["spahgc_context_padded"].tolist() == [False, True, True]
    wide = adata.obsm[f"{KEY}_context"]
    np.testing.assert_allclose(wide[0], GREY / 255, atol=1e-5)
    # 12 of the 32 columns that the wide patch's left cells stand for lie outside the image.
    expected = 12 / 32 + 20 / 32 * GREY / 255
    np.testing.assert_allclose(wide[1].reshape(3, CELLS, CELLS)[:, :, 0], expected, atol=1e-5)


def test_patches_wider_than_the_slide_are_padded():
    adata = spots([[50, 50]])
    pixels = np.full((100, 100, 3), GREY, np.uint8)
    sp.pp.embed(adata, encoder=COLOURS, image=pixels, context=Context(scales=(1, 8), depths=0))
    assert adata.obs["spahgc_context_padded"].all() and not adata.obs["spahgc_patch_padded"].any()


def test_the_width_on_record_is_that_of_the_patch(slide):
    sp.pp.embed(slide, encoder=COLOURS, patch_um=40, context=Context(scales=(1, 4), depths=0))
    assert slide.uns["spahgc"]["patch_um"][KEY] == pytest.approx(40)


def test_the_layout_survives_writing(slide, vit, tmp_path):
    sp.pp.embed(slide, encoder=vit, context=Context(scales=(1, 1.5), depths=1))
    slide.write_h5ad(tmp_path / "slide.h5ad")
    again = ad.read_h5ad(tmp_path / "slide.h5ad")
    np.testing.assert_array_equal(columns(again, "X_vit"), columns(slide, "X_vit"))
    record = again.uns["spahgc"]["embeddings"]["X_vit"]
    assert record["context"] == "scales 1,1.5; levels 192; rotations 4"
    widths = [block.stop - block.start for block in context_blocks(record, columns(again, "X_vit").shape[1])]
    assert widths == [VIT_DIM] * 6
    assert plain_columns(record) == VIT_DIM and type(plain_columns(record)) is int
    assert again.obs["spahgc_context_padded"].dtype == bool


def test_all_columns_are_plain_where_there_is_no_context():
    assert plain_columns(COLOURS.record.to_uns()) is None
    assert plain_columns({}) is None


# --- embeddings with other contexts


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (Context(scales=(1, 3), depths=0, rotations=4), "scales 1,3; levels none; rotations 4"),
        (Context(scales=(1, 2), depths=0, rotations=1), "scales 1,2; levels none; rotations 1"),
    ],
    ids=["scales", "rotations"],
)
def test_a_target_with_another_context_than_the_references_is_refused(other, text, quick):
    slides = sp.datasets.simulated(3, n_patients=3, n_spots=30, n_genes=20)
    sp.pp.embed(slides, encoder=COLOURS, context=Context(scales=(1, 2), depths=0))
    target = sp.pp.embed(slides[0], encoder=COLOURS, context=other, copy=True)
    genes = list(slides[0].var_names[:5])
    with pytest.raises(ValueError, match=f"context: '{text}' and 'scales 1,2; levels none; rotations 4'"):
        sp.tl.predict(target, slides[1:], genes=genes, preset=quick)
    sp.tl.predict(slides[0], slides[1:], genes=genes, preset=quick)
    assert np.isfinite(slides[0][:, genes].layers["spahgc"]).all()


# --- refusals


class Unreadable:
    """An image whose pixels nobody may ask for."""

    height = width = 200
    mpp = None

    def read(self, *_):
        raise AssertionError("pixels were read before the context was checked")

    def close(self):
        """Nothing to close."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def refused(error, match, **kwargs):
    adata = spots([[100, 100]])
    with pytest.raises(error, match=match):
        sp.pp.embed(adata, image=Unreadable(), **kwargs)
    assert list(adata.obsm) == ["spatial"] and "spahgc" not in adata.uns


def test_a_network_without_levels_is_refused_with_the_way_out():
    refused(
        ValueError,
        r'"colours" cannot show.*MeanColours has no forward_intermediates.*Pass context=Context\(depths=0\)',
        encoder=COLOURS,
        context=True,
    )


def test_more_depths_than_the_network_has_are_refused(lite0, vit):
    refused(
        ValueError,
        "depths=6 asks for more .* has: 5 levels beside",
        encoder=lite0,
        mpp=0.7,
        context=Context((1,), depths=6),
    )
    refused(
        ValueError, "depths=12 asks for more .* has: 11 levels beside", encoder=vit, context=Context((1,), depths=12)
    )


def test_a_network_that_does_something_else_on_the_way_is_refused(vit):
    class Scaled(type(vit.module)):
        def forward(self, x):
            return 1.01 * super().forward(x)

    module = Scaled(img_size=SIDE, patch_size=8, embed_dim=12, depth=4, num_heads=2, num_classes=0)
    odd = Encoder(record_of("odd", 12, SIDE), module)
    refused(ValueError, '"odd" has another output when its intermediate levels are read', encoder=odd, context=True)


def test_an_encoder_with_a_context_of_its_own_is_refused():
    own = replace(COLOURS, record=replace(COLOURS.record, context="whole slide"))
    refused(ValueError, r'context of its own \("whole slide"\)', encoder=own, context=Context(depths=0))


def test_a_scale_too_narrow_to_show_anything_is_refused():
    refused(
        ValueError,
        "at scale 0.1 of the context a patch is 3.2 px wide.*at least 0.125",
        encoder=COLOURS,
        context=Context(scales=(1, 0.1), depths=0),
    )


@pytest.mark.parametrize("context", [(1, 2), 2, "scales 1,2"])
def test_what_is_no_context_is_refused(context):
    refused(TypeError, r"context is .*pass True .*spahgc\.pp\.Context", encoder=COLOURS, context=context)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"scales": ()}, ValueError, "does not begin with 1"),
        ({"scales": (2, 1)}, ValueError, "does not begin with 1"),
        ({"scales": (1, 0)}, ValueError, "positive width"),
        ({"scales": (1, float("inf"))}, ValueError, "positive width"),
        ({"scales": (1, 2, 2.0)}, ValueError, "names a width twice"),
        ({"scales": "12"}, TypeError, "pass multiples"),
        ({"scales": 1}, TypeError, "pass multiples"),
        ({"scales": (1, "2")}, TypeError, "holds '2'"),
        ({"scales": (True, 2)}, TypeError, "holds True"),
        ({"widths_um": (448, -1)}, ValueError, "positive width"),
        ({"widths_um": (448, float("nan"))}, ValueError, "positive width"),
        ({"widths_um": (448, 448.0)}, ValueError, "names a width twice"),
        ({"widths_um": 448}, TypeError, "in microns"),
        ({"widths_um": "448"}, TypeError, "in microns"),
        ({"widths_um": (448, "1344")}, TypeError, "holds '1344'"),
        ({"scales": (1, 2), "widths_um": (448,)}, ValueError, "as multiples of the encoder's own, or in microns"),
        ({"depths": -1}, ValueError, "depths is -1"),
        ({"depths": 1.5}, TypeError, "depths is 1.5"),
        ({"depths": True}, TypeError, "depths is True"),
        ({"rotations": 2}, ValueError, "rotations is 2; pass 4, or 1"),
        ({"rotations": 4.0}, TypeError, "rotations is 4.0"),
        ({"rotations": True}, TypeError, "rotations is True"),
        ({"rotations": None}, TypeError, "rotations is None"),
    ],
)
def test_impossible_contexts_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        Context(**arguments)


def test_contexts_of_the_same_numbers_are_equal_and_read_the_same():
    assert Context([1, 2]) == Context(np.array([1.0, 2.0])) and hash(Context([1, 2])) == hash(Context((1, 2.0)))
    same = Context([1, 2], depths=np.int64(3), rotations=np.int64(1))
    assert repr(same) == "Context(scales=(1.0, 2.0), depths=3, rotations=1, widths_um=())"
