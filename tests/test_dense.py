"""Points denser than patches: one pass a tile, features of each point's own area, and records that keep the two ways apart."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import shapely
import timm
import torch
from torch import nn

import spahgc as sp
from spahgc._slides.polygons import Polygons
from spahgc._validate import check_same_encoder, embedding_matrix
from spahgc.encoders import Encoder
from spahgc.encoders._layout import Layout, context_blocks, parse_layout, write_layout
from spahgc.pp import Context
from spahgc.pp._embed.spot_areas import SpotAreas
from spahgc.pp._embed.tiles import STEP, WIDEST_STEP, Tiles, step_of

from . import map_networks as nets
from .map_networks import KEY, SIDE, colour_at, grid, maps, points, ramp

ROUNDING = 1.5 / 255
"""A ramp is rounded to whole colours."""
BESIDE = f"{KEY}_context"
TRIED = 4
"""Patches by which a network is tried before it is used."""


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")
    monkeypatch.setattr(sp.settings, "progress", False)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return ramp()


def dense(slide: ad.AnnData, image: np.ndarray, encoder: Encoder | None = None, **options) -> ad.AnnData:
    options = {"context": False, "dense": True} | options
    return sp.pp.embed(slide, encoder=encoder or maps(), image=image, copy=True, **options)


def record_of(slide: ad.AnnData) -> dict:
    return slide.uns["spahgc"]["embeddings"][KEY]


# What a point gets


@pytest.mark.parametrize("kept_as", ["channels first", "channels last", "tokens"])
def test_a_point_gets_what_the_last_map_shows_at_its_place(image, kept_as):
    slide = points(grid(3.0))
    found = dense(slide, image, maps(kept_as))
    np.testing.assert_allclose(found.obsm[KEY], colour_at(slide.obsm["spatial"]), atol=ROUNDING)


def test_beside_it_stands_what_the_encoder_says_of_its_tile(image):
    slide = points(grid(3.0))
    found = dense(slide, image)
    tiles = Tiles.around(slide.obsm["spatial"], SIDE, nets.MPP)
    centres = np.repeat(tiles.centres, tiles.n_points, axis=0)[np.argsort(tiles.points)]
    np.testing.assert_allclose(found.obsm[BESIDE], colour_at(centres), atol=ROUNDING)


def test_points_of_a_tile_share_one_pass_of_the_encoder(image):
    encoder, slide = maps(), points(grid(3.0, columns=40, rows=40))
    found = dense(slide, image, encoder)
    before = encoder.module.n_patches
    n_tiles = found.uns["spahgc"]["areas"][KEY]["n_tiles"]
    assert n_tiles <= before <= n_tiles + TRIED
    assert slide.n_obs / n_tiles > 20


def test_a_spot_far_from_others_is_in_the_middle_of_its_tile_and_keeps_the_embedding_of_its_patch(image):
    slide = points(grid(60.0, columns=5, rows=4), diameter_px=20)
    patch = sp.pp.embed(slide, encoder=maps(), image=image, copy=True)
    found = dense(slide, image, context=None)
    assert found.uns["spahgc"]["areas"][KEY]["n_tiles"] == slide.n_obs
    n_levels = 3 + 3
    expected = embedding_matrix(patch, KEY, "the slide")
    np.testing.assert_array_equal(found.obsm[BESIDE][:, n_levels:], expected)
    np.testing.assert_array_equal(found.obs["spahgc_context_padded"], patch.obs["spahgc_context_padded"])


def test_levels_are_averaged_over_the_area_as_well(image):
    slide = points(grid(3.0))
    found = dense(slide, image, context=Context(scales=(1,), rotations=1))
    for first in (0, 3):
        np.testing.assert_allclose(
            found.obsm[BESIDE][:, first : first + 3], colour_at(slide.obsm["spatial"]), atol=ROUNDING
        )
    blocks = context_blocks(record_of(found), 3 + found.obsm[BESIDE].shape[1])
    assert [block.stop - block.start for block in blocks] == [3] * 8
    assert record_of(found)["context"] == "areas 3,3; tile 3; scales 1; levels 3,3; rotations 1"


def test_wider_patches_are_those_around_the_middle_of_the_tile(image):
    slide = points(grid(3.0))
    found = dense(slide, image, context=Context(scales=(1, 2), depths=0, rotations=1))
    tiles = Tiles.around(slide.obsm["spatial"], SIDE, nets.MPP)
    centres = np.repeat(tiles.centres, tiles.n_points, axis=0)[np.argsort(tiles.points)]
    np.testing.assert_allclose(found.obsm[BESIDE][:, 3:6], colour_at(centres), atol=ROUNDING)


def test_the_order_of_points_does_not_matter(image):
    slide, order = points(grid(3.0)), np.random.default_rng(0).permutation(400)
    there, here = dense(slide, image), dense(slide[order].copy(), image)
    np.testing.assert_allclose(here.obsm[KEY], there.obsm[KEY][order], atol=1e-6)
    np.testing.assert_allclose(here.obsm[BESIDE], there.obsm[BESIDE][order], atol=1e-6)


def test_points_whose_tile_reaches_past_the_image_are_flagged(image):
    found = dense(points([[2.0, 200.0], [300.0, 200.0], [598.0, 399.0]]), image)
    assert list(found.obs["spahgc_patch_padded"]) == [True, False, True]


def test_patch_tokens_of_a_vision_transformer_are_averaged_and_its_class_token_is_not():
    torch.manual_seed(0)
    module = timm.create_model("test_vit", pretrained=False, num_classes=0)
    side = module.patch_embed.img_size[0]
    encoder = Encoder(nets.record("vit", side=side), module.eval())
    encoder = replace(encoder, record=replace(encoder.record, dim=module.num_features))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2 * side, 2 * side, 3), dtype=np.uint8)
    centre = [[float(side), float(side)]]
    slide = points(centre)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side / 2 + centre
    slide.obsm["polygons"] = Polygons.of_rings([corners]).as_matrix()  # the whole tile
    found = sp.pp.embed(slide, encoder=encoder, image=pixels, context=False, dense=True, copy=True)
    tile = pixels[side // 2 : side // 2 + side, side // 2 : side // 2 + side]
    with torch.inference_mode():
        tokens = module.forward_features(torch.from_numpy(tile / 255.0).float().permute(2, 0, 1)[None])
        expected = tokens[0, module.num_prefix_tokens :]
        output = module(torch.from_numpy(tile / 255.0).float().permute(2, 0, 1)[None])
    n = round(len(expected) ** 0.5)
    rows = expected.reshape(n, n, -1).numpy()
    # Places are those of a grid of 8 x 8 over the outline, between the cells by bilinear interpolation.
    steps = np.clip((np.arange(8) + 0.5) / 8 * n - 0.5, 0, n - 1)
    low = np.minimum(np.floor(steps).astype(int), n - 2)
    shares = np.zeros((8, n))
    shares[np.arange(8), low] += 1 - (steps - low)
    shares[np.arange(8), low + 1] += steps - low
    weights = shares.mean(0)
    np.testing.assert_allclose(found.obsm["X_vit"][0], np.einsum("i,j,ijc", weights, weights, rows), atol=1e-4)
    np.testing.assert_allclose(found.obsm["X_vit_context"][0], output[0].numpy(), atol=1e-4)


@pytest.mark.parametrize("network", ["test_efficientnet", "test_resnet", "test_convnext", "test_vit2"])
def test_networks_of_timm_of_every_kind_show_their_maps(network):
    torch.manual_seed(0)
    module = timm.create_model(network, pretrained=False, num_classes=0)
    side = timm.data.resolve_model_data_config(module)["input_size"][1]
    encoder = Encoder(replace(nets.record(network, side=side), dim=module.num_features), module)
    if hasattr(module, "head_hidden_size") and not hasattr(module, "num_prefix_tokens"):
        encoder = replace(encoder, record=replace(encoder.record, dim=module.head_hidden_size))
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    found = sp.pp.embed(points(grid(20.0, columns=4, rows=4)), encoder=encoder, image=pixels, dense=True, copy=True)
    z = embedding_matrix(found, f"X_{network}", "the slide")
    record = found.uns["spahgc"]["embeddings"][f"X_{network}"]
    assert context_blocks(record, z.shape[1])[-1].stop == z.shape[1]
    assert record["dim"] == found.obsm[f"X_{network}"].shape[1]
    assert len(np.unique(z[:, : record["dim"]].round(6), axis=0)) == 16


# Areas


def half_dark() -> np.ndarray:
    pixels = np.full((400, 600, 3), 200, dtype=np.uint8)
    pixels[:, 300:] = 100
    return pixels


def test_the_outline_of_a_cell_counts_where_it_has_one():
    slide = points([[300.0, 200.0], [300.0, 200.0], [300.0, 200.0]], diameter_px=12)
    left, right = ([[x, 194], [x + 6, 194], [x + 6, 206], [x, 206]] for x in (292, 302))
    rings = [np.array(left, float), np.array(right, float), np.empty((0, 2))]
    slide.obsm["polygons"] = Polygons.of_rings(rings).as_matrix()
    found = dense(slide, half_dark())
    np.testing.assert_allclose(found.obsm[KEY][:, 0] * 255, [200, 100, 150], atol=5)
    assert found.uns["spahgc"]["areas"][KEY] == {"diameter_px": 12.0, "n_outlines": 2, "n_tiles": 1}


def test_places_lie_within_an_outline_that_is_not_convex():
    bent = np.array([[0, 0], [30, 0], [30, 10], [10, 10], [10, 30], [0, 30]], float)
    areas = SpotAreas(np.array([[8.0, 8.0]]), 5.0, Polygons.of_rings([bent]))
    places, within = areas.places(np.array([0]))
    inside = shapely.contains_xy(shapely.Polygon(bent), places[0][:, 0], places[0][:, 1])
    assert within.sum() > 20
    assert inside[within[0]].all()
    assert np.abs(within.mean() - shapely.Polygon(bent).area / 900) < 0.06


def test_an_outline_thinner_than_its_places_is_looked_at_in_its_centre():
    thread = np.array([[0, 0], [100, 0], [100, 100], [99.99, 0.01]], float)
    areas = SpotAreas(np.array([[66.6, 24.7]]), 5.0, Polygons.of_rings([thread]))
    places, within = areas.places(np.array([0]))
    np.testing.assert_array_equal(places[within], [[66.6, 24.7]])


def test_places_of_a_circle_are_spread_evenly_within_it():
    areas = SpotAreas(np.array([[50.0, 60.0]]), 20.0, None)
    places, within = areas.places(np.array([0]))
    away = places[within] - [50.0, 60.0]
    assert np.hypot(*away.T).max() < 10
    np.testing.assert_allclose((away**2).mean(), 10**2 / 4, rtol=0.02)
    np.testing.assert_allclose(away.mean(0), 0, atol=0.5)


def test_what_of_an_area_lies_outside_of_its_tile_does_not_count(image):
    slide = points(grid(60.0, columns=5, rows=4), diameter_px=10 * SIDE)
    found = dense(slide, image)
    tile = colour_at(slide.obsm["spatial"])
    np.testing.assert_allclose(found.obsm[KEY], tile, atol=10 / 255)  # not that of the whole slide, or of white


def test_spots_without_a_size_are_as_wide_as_they_are_drawn(image):
    found = dense(points(grid(10.0), diameter_px=None), image)
    assert found.uns["spahgc"]["areas"][KEY]["diameter_px"] == pytest.approx(5.5)


def test_cells_of_qupath_are_embedded_over_their_outlines(tmp_path: Path, image):
    features = [
        {
            "type": "Feature",
            "id": f"cell{i}",
            "geometry": shapely.geometry.mapping(shapely.Point(x, y).buffer(6)),
            "properties": {"objectType": "cell"},
        }
        for i, (x, y) in enumerate(grid(14.0, columns=6, rows=5))
    ]
    path = tmp_path / "cells.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    cells = sp.pp.points(image, path, mpp=0.5)
    found = dense(cells, image)
    assert found.uns["spahgc"]["areas"][KEY]["n_outlines"] == 30
    np.testing.assert_allclose(found.obsm[KEY], colour_at(cells.obsm["spatial"]), atol=2 * ROUNDING)


@pytest.mark.parametrize(("width_um", "step"), [(56.0, WIDEST_STEP), (112.0, 64 / 112), (448.0, STEP), (None, STEP)])
def test_tiles_lie_64_um_apart_as_far_as_points_stay_within_them(width_um, step):
    assert step_of(224.0, None if width_um is None else width_um / 224) == pytest.approx(step)


def test_a_dozen_points_of_a_grid_of_20_um_share_a_tile_of_a_pathology_encoder():
    rows = 20 * np.sqrt(3) / 2 * np.arange(116)
    xy = np.concatenate(
        [np.column_stack([20.0 * np.arange(100) + 10 * (i % 2), np.full(100, y)]) for i, y in enumerate(rows)]
    )
    assert len(xy) / len(Tiles.around(xy * 2, 224.0, 0.5)) > 10


@pytest.mark.parametrize("spacing", [1.0, 3.7, 40.0])
def test_every_point_lies_in_the_inner_part_of_its_tile(spacing):
    xy = grid(spacing, left=13.3, top=7.9) + np.random.default_rng(0).normal(0, spacing / 3, (400, 2))
    tiles = Tiles.around(xy, 50.0, None)
    assert sorted(tiles.points) == list(range(400))
    tile = np.repeat(np.arange(len(tiles)), tiles.n_points)
    assert np.abs(xy[tiles.points] - tiles.centres[tile]).max() <= STEP * 50 / 2 + 1e-9
    some = np.array([len(tiles) - 1, 0])
    np.testing.assert_array_equal(
        tiles.points_of(some), np.concatenate([tiles.points[tile == some[0]], tiles.points[tile == some[1]]])
    )


# The record


def test_the_two_ways_never_mix(image):
    slide = points(grid(3.0))
    shared, patch = dense(slide, image), sp.pp.embed(slide, encoder=maps(), image=image, context=False, copy=True)
    assert record_of(shared)["sampling"] == "areas in shared tiles, 0.4 patches or 64 um apart"
    with pytest.raises(ValueError, match="sampling: 'areas in shared tiles, 0.4 patches or 64 um apart' and None"):
        check_same_encoder(record_of(shared), record_of(patch), KEY, "the target", 'reference "A"')


def test_records_of_one_patch_a_spot_stay_as_they_were(image):
    found = sp.pp.embed(points(grid(12.0)), encoder=maps(), image=image, context=False, copy=True)
    assert "sampling" not in record_of(found)
    assert "areas" not in found.uns["spahgc"]
    check_same_encoder(record_of(found), maps().record.to_uns() | {"sampling": None}, KEY, "one", "other")


def test_an_embedding_of_patches_takes_the_place_of_one_of_tiles_as_a_whole(image):
    found = dense(points(grid(3.0)), image)
    sp.pp.embed(found, encoder=maps(), image=image, context=False)
    assert BESIDE not in found.obsm
    assert "areas" not in found.uns["spahgc"]


@pytest.mark.parametrize(
    "layout",
    [
        Layout(areas=(), tile_dim=7),
        Layout(scales=(1.0, 2.5), levels=(4, 8), rotations=1, areas=(4, 8), tile_dim=1280),
        Layout(widths_um=(448.0, 1344.0), levels=(16,), areas=(16,), tile_dim=3),
    ],
)
def test_the_layout_of_areas_is_read_as_it_was_written(layout):
    assert parse_layout(write_layout(layout)) == layout
    assert not layout.has_one_block


def test_predictions_take_dense_references_and_survive_a_file(tmp_path: Path):
    slides = sp.datasets.simulated(2, n_patients=2, n_spots=30, n_genes=10)
    encoder = maps()
    for slide in slides:
        sp.pp.embed(slide, encoder=encoder, dense=True)
    target, *refs = slides
    target.write_h5ad(tmp_path / "target.h5ad")
    again = ad.read_h5ad(tmp_path / "target.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in (target, again):
            sp.tl.predict(each, refs, method="ridge")
    np.testing.assert_array_equal(target.layers["spahgc"], again.layers["spahgc"])
    patch = sp.pp.embed(target, encoder=encoder, copy=True)
    with pytest.raises(ValueError, match="come from different encoders .*sampling: None and 'areas in shared tiles"):
        sp.tl.predict(patch, refs, method="ridge")


# Errors


class Pooled(nn.Module):
    """A module that shows nothing but its output."""

    def forward(self, x):
        return x.mean((2, 3))


def test_an_encoder_without_a_map_is_told(image):
    with pytest.raises(ValueError, match='"maps" shows no map of its features: Pooled has no forward_intermediates'):
        dense(points(grid(3.0)), image, Encoder(nets.record(), Pooled()))


def test_a_map_of_a_single_cell_is_told(image):
    class One(nets.Maps):
        def forward_intermediates(self, x, indices=None):
            last = x.mean((2, 3), keepdim=True)
            return last, [last]

    with pytest.raises(ValueError, match="a single cell, which is the same for all spots"):
        dense(points(grid(3.0)), image, Encoder(nets.record(), One()))


def test_features_that_are_no_map_are_told(image):
    with pytest.raises(ValueError, match=r"last features .* have shape \(192,\), which is no map of the 8 x 8 cells"):
        dense(points(grid(3.0)), image, maps("flat"))


@pytest.mark.parametrize("kept", [slice(4, -4), slice(None, -8)])
def test_a_transform_that_cuts_borders_away_is_told(image, kept):
    def crop(picture):
        pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255
        return nn.functional.interpolate(pixels[None, :, kept, kept], size=(SIDE, SIDE))[0]

    with pytest.raises(ValueError, match="does not keep the whole of a square patch"):
        dense(points(grid(3.0)), image, replace(maps(), transform=crop))


def test_a_transform_that_resizes_is_taken(image):
    def resize(picture):
        pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255
        return nn.functional.interpolate(pixels[None], size=(2 * SIDE, 2 * SIDE), mode="bilinear")[0]

    slide = points(grid(3.0))
    found = dense(slide, image, replace(maps(), transform=resize))
    np.testing.assert_allclose(found.obsm[KEY], colour_at(slide.obsm["spatial"]), atol=ROUNDING)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dense": "yes"}, TypeError, "dense is 'yes'; pass True for tiles that points share"),
        ({"samples": 7}, ValueError, "looks at all of a point's area already, and samples=7 was asked for"),
        ({"context": True}, ValueError, "takes a tile as it lies, and a context of 4 turns was asked for"),
    ],
)
def test_what_does_not_go_with_tiles_is_told_before_the_image_is_opened(options, error, message):
    with pytest.raises(error, match=message):
        dense(points(grid(3.0)), "nowhere.tif", **options)


def test_an_encoder_with_a_context_of_its_own_is_told(image):
    with pytest.raises(ValueError, match='has a context of its own .*"own", and dense=True|context of its own'):
        dense(points(grid(3.0)), image, maps(context="a slide"), context=None)


def test_a_single_point_of_unknown_size_is_told(image):
    with pytest.raises(ValueError, match='size of the spots of slide "S" is not known, and a single place'):
        dense(points([[300.0, 200.0]], diameter_px=None), image)


# Runs that were stopped


def test_a_run_that_was_stopped_computes_only_the_tiles_that_are_missing(image, tmp_path: Path):
    slide = points(grid(3.0, columns=40, rows=40))
    whole = dense(slide, image, resume=tmp_path, batch_size=8)
    parts = sorted(tmp_path.glob("*/spots-*"))
    assert len(parts) == -(-whole.uns["spahgc"]["areas"][KEY]["n_tiles"] // 8)
    parts[1].unlink()
    encoder = maps()
    again = dense(slide, image, encoder, resume=tmp_path, batch_size=8)
    looked_at = encoder.module.n_patches - 8
    assert 0 <= looked_at <= TRIED
    np.testing.assert_array_equal(again.obsm[KEY], whole.obsm[KEY])
    np.testing.assert_array_equal(again.obsm[BESIDE], whole.obsm[BESIDE])


def test_parts_of_other_areas_are_not_taken(image, tmp_path: Path):
    dense(points(grid(3.0)), image, resume=tmp_path)
    with pytest.warns(UserWarning, match=r"made with other inputs \(areas\)"):
        other = dense(points(grid(3.0), diameter_px=30.0), image, resume=tmp_path)
    np.testing.assert_array_equal(other.obsm[KEY], dense(points(grid(3.0), diameter_px=30.0), image).obsm[KEY])


# Many slides, and the shell


def test_results_of_many_slides_that_know_one_patch_a_spot_are_kept_and_others_are_not(tmp_path: Path, monkeypatch):
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=20, n_genes=10)
    slide.write_h5ad(tmp_path / "one.h5ad")
    arguments = {"encoder": maps(), "context": False}
    sp.pp.embed_many([tmp_path / "one.h5ad"], tmp_path / "out", **arguments)
    again = sp.pp.embed_many([tmp_path / "one.h5ad"], tmp_path / "out", dense=False, samples=1, **arguments)
    assert list(again["status"]) == ["kept"]
    made_with = ad.read_zarr(tmp_path / "out" / "one.zarr").uns["spahgc"]["made_with"]["embed"]
    assert "dense" not in str(made_with)
    with pytest.raises((FileExistsError, ExceptionGroup), match="one.zarr|arguments"):
        sp.pp.embed_many([tmp_path / "one.h5ad"], tmp_path / "out", dense=True, **arguments)


@pytest.mark.parametrize("options", [{"dense": True}, {"samples": 7}])
def test_the_shell_does_not_embed_some_slides_in_another_way_than_others(options):
    from spahgc.cli._slide_files import check_context
    from spahgc.encoders import describe_encoder

    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=20, n_genes=10)
    encoder = "efficientnet_lite0"
    sampling = {"dense": "areas in shared tiles, 0.4 patches or 64 um apart", "samples": "7 patches within the spot"}
    record = replace(describe_encoder(encoder), sampling=sampling[next(iter(options))])
    slide.uns["spahgc"] = {"embeddings": {f"X_{encoder}": record.to_uns()}}
    with pytest.raises(ValueError, match="embedded already, by .*, and the others would get one patch a spot"):
        check_context(slide, encoder, None)
