"""Several patches within a spot: where they lie, what they cost, and a record that keeps them apart from one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import spahgc as sp
from spahgc._validate import check_same_encoder, embedding_matrix
from spahgc.pp import Context
from spahgc.pp._embed.samples import RING, looks_of

from .map_networks import KEY, SIDE, grid, maps, points, ramp

DIAMETER = 40.0


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")
    monkeypatch.setattr(sp.settings, "progress", False)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)


def embedded(slide, image, encoder=None, **options):
    options = {"context": False} | options
    return sp.pp.embed(slide, encoder=encoder or maps(), image=image, copy=True, **options)


def mean_colour(image: np.ndarray, x: float, y: float) -> np.ndarray:
    left, top = (int(np.floor(value - SIDE / 2 + 0.5)) for value in (x, y))
    return image[top : top + SIDE, left : left + SIDE].mean((0, 1)) / 255


@pytest.mark.parametrize("samples", [4, 7])
def test_the_numbers_are_means_over_the_centre_and_a_ring_at_two_thirds_of_the_radius(image, samples):
    x, y = 300.25, 200.75
    found = embedded(points([[x, y]], diameter_px=DIAMETER), image, samples=samples)
    angles = 2 * np.pi * np.arange(samples - 1) / (samples - 1)
    radius = 2 / 3 * DIAMETER / 2
    places = [(x, y), *zip(x + radius * np.cos(angles), y + radius * np.sin(angles), strict=True)]
    expected = np.mean([mean_colour(image, *place) for place in places], axis=0)
    np.testing.assert_allclose(found.obsm[KEY][0], expected, atol=1e-6)


def test_what_changes_evenly_across_a_spot_is_that_of_its_centre():
    slide = points(grid(20.0, columns=4, rows=4), diameter_px=DIAMETER)
    one, several = embedded(slide, ramp()), embedded(slide, ramp(), samples=7)
    np.testing.assert_allclose(several.obsm[KEY], one.obsm[KEY], atol=1 / 255)


def test_wider_patches_and_those_beside_them_cost_one_pass(image):
    encoder, slide = maps(), points(grid(45.0, columns=4, rows=4), diameter_px=DIAMETER)
    context = Context(scales=(1, 2, 4), rotations=1)
    several = embedded(slide, image, encoder, samples=5, context=context)
    tried = 3
    assert 0 <= encoder.module.n_patches - (5 + 2) * slide.n_obs <= tried + 1
    one = embedded(slide, image, context=context)
    width = 3 + 2 * (3 + 3)
    columns = [embedding_matrix(each, KEY, "the slide") for each in (one, several)]
    np.testing.assert_array_equal(columns[0][:, width:], columns[1][:, width:])
    assert np.abs(columns[0][:, :width] - columns[1][:, :width]).max() > 0.01


def test_levels_of_the_patches_are_averaged_too(image):
    slide, context = points([[300.0, 200.0]], diameter_px=DIAMETER), Context(scales=(1,), rotations=1)
    several = embedded(slide, image, samples=4, context=context)
    looks = looks_of((1.0,), 4, DIAMETER)
    each = [
        embedding_matrix(embedded(points([[300.0 + x, 200.0 + y]]), image, context=context), KEY, "one")
        for x, y in (look.offset_px for look in looks)
    ]
    np.testing.assert_allclose(embedding_matrix(several, KEY, "all"), np.mean(each, axis=0), atol=1e-6)


def test_the_ring_favours_no_direction_and_lies_within_the_spot():
    for samples in (4, 7, 20):
        offsets = np.array([look.offset_px for look in looks_of((1.0,), samples, DIAMETER)])
        np.testing.assert_allclose(offsets.mean(0), 0, atol=1e-9)
        np.testing.assert_allclose(np.hypot(*offsets[1:].T), RING * DIAMETER / 2)


def test_one_patch_is_what_it_always_was(image):
    slide = points(grid(20.0, columns=4, rows=4), diameter_px=None)
    one, plain = embedded(slide, image, samples=1), embedded(slide, image)
    np.testing.assert_array_equal(one.obsm[KEY], plain.obsm[KEY])
    assert one.uns["spahgc"] == plain.uns["spahgc"]
    assert "sampling" not in one.uns["spahgc"]["embeddings"][KEY]


def test_embeddings_of_several_patches_and_of_one_never_mix(image):
    slide = points(grid(20.0, columns=4, rows=4))
    records = [embedded(slide, image, samples=n).uns["spahgc"]["embeddings"][KEY] for n in (1, 4, 7)]
    assert records[2]["sampling"] == "7 patches within the spot"
    for other in records[:2]:
        with pytest.raises(ValueError, match="sampling: '7 patches within the spot' and "):
            check_same_encoder(records[2], other, KEY, "the target", "a reference")


def test_what_the_spots_were_taken_to_be_is_kept(image):
    found = embedded(points(grid(20.0, columns=4, rows=4), diameter_px=DIAMETER), image, samples=7)
    assert found.uns["spahgc"]["areas"][KEY] == {"diameter_px": DIAMETER, "n_outlines": 0}
    found = embedded(points(grid(20.0, columns=4, rows=4), diameter_px=None), image, samples=7)
    assert found.uns["spahgc"]["areas"][KEY]["diameter_px"] == pytest.approx(11.0)


def test_a_spot_is_flagged_where_any_of_its_patches_reaches_past_the_image(image):
    slide = points([[20.0, 200.0], [300.0, 200.0]], diameter_px=DIAMETER)
    assert list(embedded(slide, image).obs["spahgc_patch_padded"]) == [False, False]
    assert list(embedded(slide, image, samples=7).obs["spahgc_patch_padded"]) == [True, False]


@pytest.mark.parametrize("samples", [0, 2, 3, 65, True, 7.0, "7", None])
def test_what_is_no_number_of_patches_is_told_before_the_image_is_opened(samples):
    with pytest.raises(ValueError, match="pass 1 for one patch .* or a whole number from 4 to 64"):
        embedded(points([[300.0, 200.0]]), "nowhere.tif", samples=samples)


def test_a_spot_whose_size_nobody_knows_is_told(image):
    with pytest.raises(ValueError, match="size of the spots of slide"):
        embedded(points([[300.0, 200.0]], diameter_px=None), image, samples=7)


def test_a_run_that_was_stopped_goes_on_with_the_same_numbers(image, tmp_path: Path):
    slide = points(grid(20.0, columns=5, rows=5))
    whole = embedded(slide, image, samples=7, resume=tmp_path, batch_size=8)
    next(tmp_path.glob("*/spots-*")).unlink()
    encoder = maps()
    again = embedded(slide, image, encoder, samples=7, resume=tmp_path, batch_size=8)
    assert encoder.module.n_patches < 7 * 8 + 4
    np.testing.assert_array_equal(again.obsm[KEY], whole.obsm[KEY])
