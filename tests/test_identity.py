"""A slide is known again, however it was changed, and two slides are never taken for one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from PIL import Image
from tests.conftest import EMBEDDING

import spahgc as sp
from spahgc.pp._bank.identity import Look, overlap, overlaps
from spahgc.tl._cross_validation import folds as _folds

LEAK = "the target is also among the references, slightly changed: .* Leave that slide out of the references"
TWICE = "are the same slide, or parts of one: .* Leave one of the two out"
PITCH = 100.0


def last_digits(z, xy, rng):
    return z * (1 + rng.normal(scale=1e-6, size=z.shape)), xy


def half_precision(z, xy, rng):
    return z.astype(np.float16), xy


def moved(z, xy, rng):
    return z + rng.normal(scale=0.2 * z.std(), size=z.shape), xy + [1.0, 0.0]


def compressed(z, xy, rng):
    return z + rng.normal(scale=0.3 * z.std(), size=z.shape), xy


def mirrored(z, xy, rng):
    return z + rng.normal(scale=0.4 * z.std(), size=z.shape), xy * [-1, 1] + [9000, 0]


def turned(z, xy, rng):
    return z + rng.normal(scale=0.6 * z.std(), size=z.shape), xy[:, ::-1] * [1, -1] + [0, 9000]


def of_another_scale(z, xy, rng):
    return z + rng.normal(scale=0.4 * z.std(), size=z.shape), xy * 0.37 + 12.3


def of_unknown_places(z, xy, rng):
    return last_digits(z, rng.uniform(0, 5000, size=xy.shape), rng)


CHANGES = [last_digits, half_precision, moved, compressed, mirrored, turned, of_another_scale, of_unknown_places]


def array(n_rows: int = 12, n_columns: int = 12) -> np.ndarray:
    """Centres of a hexagonal array, in pixels; the same for every slide that is laid on it."""
    rows, columns = np.divmod(np.arange(n_rows * n_columns), n_columns)
    return np.column_stack([(columns + rows % 2 / 2) * PITCH, rows * PITCH * np.sqrt(3) / 2])


def look(seed: int, xy: np.ndarray | None = None, dim: int = 40) -> Look:
    """A slide of smooth tissue: what a spot looks like depends on where it lies, and on chance."""
    xy = array() if xy is None else xy
    rng = np.random.default_rng(seed)
    waves, phase = rng.normal(scale=2e-3, size=(2, dim)), rng.uniform(0, 6, dim)
    return Look((np.sin(xy @ waves + phase) + rng.normal(scale=0.5, size=(len(xy), dim))).astype(np.float32), xy)


def changed(slide: Look, change, seed: int = 0) -> Look:
    z, xy = change(slide.z, slide.xy, np.random.default_rng(seed))
    order = np.random.default_rng(seed + 1).permutation(len(xy))
    return Look(np.asarray(z)[order], np.asarray(xy, dtype=float)[order])


def part(slide: Look, chosen) -> Look:
    return Look(slide.z[chosen], slide.xy[chosen])


# A slide and what became of it.


@pytest.mark.parametrize("change", CHANGES)
def test_a_slide_is_known_again(change):
    assert overlap(look(0), changed(look(0), change)) is not None


@pytest.mark.parametrize("change", CHANGES)
def test_half_of_a_slide_is_known_again_from_either_side(change):
    whole, half = look(0), changed(part(look(0), slice(0, 72)), change)
    assert overlap(whole, half) is not None and overlap(half, whole) is not None


@pytest.mark.parametrize("change", [last_digits, moved, compressed])
def test_two_crops_that_share_a_half_are_known_again(change):
    assert overlap(part(look(0), slice(0, 96)), changed(part(look(0), slice(48, 144)), change)) is not None


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_a_few_spots_of_a_slide_are_known_again(n):
    few = part(look(0), np.arange(n) * 7)
    assert overlap(look(0), changed(few, last_digits)) is not None
    assert n < 4 or overlap(look(0), changed(few, moved)) is not None


def test_what_is_known_again_does_not_depend_on_the_order_of_the_two():
    one, other = look(0), changed(look(0), mirrored)
    assert overlap(one, other) is not None and overlap(other, one) is not None


def test_a_copy_whose_looks_are_few_is_known_again():
    """As of clusters, where many spots of a slide have the very same embedding."""
    slide = look(0)
    clusters = Look(np.eye(4, dtype=np.float32)[np.random.default_rng(0).integers(4, size=len(slide.xy))], slide.xy)
    assert overlap(clusters, Look(clusters.z.copy(), clusters.xy.copy())) is not None


# Two slides.


@pytest.mark.parametrize("seed", range(20))
def test_two_slides_on_the_same_array_are_not_one(seed):
    assert overlap(look(2 * seed), look(2 * seed + 1)) is None


def test_two_serial_sections_on_the_same_array_are_not_one():
    """The same waves of tissue, each spot with a chance of its own."""
    for seed in range(10):
        section, rng = look(seed), np.random.default_rng(1000 + seed)
        smooth = section.z - np.random.default_rng(seed).normal(scale=0, size=section.z.shape)
        other = Look((smooth + rng.normal(scale=0.9, size=smooth.shape)).astype(np.float32), section.xy + 50.0)
        # Sections never lie on the array in the very same place: their spots see other cells.
        assert overlap(part(section, slice(0, 72)), part(other, slice(72, 144))) is None


@pytest.mark.parametrize("n", [2, 3, 5, 9, 20])
def test_two_slides_of_few_spots_are_not_one(n):
    for seed in range(20):
        few = part(look(100 + seed), np.random.default_rng(seed).permutation(144)[:n])
        assert overlap(few, look(seed)) is None


def test_blank_spots_do_not_make_two_slides_one():
    """White glass has all but the same embedding on all slides, here at two thirds of the spots."""
    white = np.random.default_rng(5).normal(size=40)
    slides = []
    for seed in (0, 1):
        slide, rng = look(seed), np.random.default_rng(50 + seed)
        slide.z[: 2 * len(slide.z) // 3] = white + rng.normal(scale=1e-3, size=(2 * len(slide.z) // 3, 40))
        slides.append(slide)
    assert overlap(*slides) is None


def test_the_very_same_blank_spots_at_the_same_places_do_not_make_two_slides_one():
    """Patches outside the image are all white, and grids are laid alike over images."""
    slides = [look(0), look(1)]
    for slide in slides:
        slide.z[:100] = 1.0
    assert overlap(*slides) is None


def test_the_same_blank_spots_do_not_keep_a_target_from_its_references(cohort, quick):
    for seed, slide in enumerate(cohort):
        slide.obsm[EMBEDDING], slide.obsm["spatial"] = look(seed, array(7, 10), dim=24)[:2]
        slide.obsm[EMBEDDING][:20] = 1.0
    sp.tl.predict(cohort[0], cohort[1:], preset=quick)
    assert "spahgc" in cohort[0].layers


def test_patches_past_the_image_which_look_like_their_place_do_not_make_two_slides_one():
    place = np.random.default_rng(3).normal(size=(144, 40))
    slides = [Look((place + 0.1 * look(seed).z).astype(np.float32), array()) for seed in (0, 1)]
    assert overlap(*slides) is not None, "nobody knows that they are padded"
    padded = np.ones(144, dtype=bool)
    for of_one, of_other in ((padded, padded), (padded, None), (None, padded)):
        assert overlap(slides[0]._replace(padded=of_one), slides[1]._replace(padded=of_other)) is None


@pytest.mark.parametrize("change", [last_digits, moved, mirrored])
def test_a_slide_with_some_patches_past_the_image_is_known_again(change):
    padded = np.arange(144) < 24
    assert overlap(look(0)._replace(padded=padded), changed(look(0), change)) is not None


@pytest.mark.parametrize("dim", [2, 5])
def test_two_slides_with_an_embedding_of_few_columns_are_not_one(dim):
    for seed in range(10):
        assert overlap(look(seed, dim=dim), look(seed + 100, array(40, 40), dim=dim)) is None


def test_a_spot_of_a_constant_embedding_is_no_other_spot():
    flat = Look(np.ones((144, 5), np.float32), array())
    assert overlap(look(0, dim=5), flat) is None


def test_any_two_of_some_slides_are_compared():
    slides = {"a": look(0), "b": look(1), "again": changed(look(0), moved), "c": look(2)}
    assert [(one, other) for one, other, _ in overlaps(slides)] == [("a", "again")]


# Where slides come together.


def again(slide, change, name="again"):
    copy = slide.copy()
    rng = np.random.default_rng(0)
    z, xy = change(np.asarray(slide.obsm[EMBEDDING]), np.asarray(slide.obsm["spatial"]), rng)
    copy.obsm[EMBEDDING], copy.obsm["spatial"] = np.asarray(z), np.asarray(xy)
    copy.obs["slide"] = name
    copy.obs_names = [f"s{i}" for i in range(copy.n_obs)]
    return copy


@pytest.mark.parametrize("change", [last_digits, moved, mirrored])
@pytest.mark.parametrize("method", ["spahgc", "ridge"])
def test_a_target_among_its_references_is_refused_however_it_was_changed(target, refs, monkeypatch, change, method):
    monkeypatch.setattr("spahgc.tl._predict.fit_bank", lambda *args, **kwargs: pytest.fail("a model was trained"))
    with pytest.raises(ValueError, match=rf"{LEAK}") as caught:
        sp.tl.predict(target, [*refs, again(target, change)], method=method)
    assert 'look the same in "again"' in str(caught.value)


def test_a_target_that_a_model_has_seen_is_refused_however_it_was_changed(target, refs, quick):
    model = sp.tl.fit([target, *refs[:1]], preset=quick)
    for call in (model.predict, model.cross_graph, lambda slide: sp.tl.predict(slide, model=model)):
        with pytest.raises(ValueError, match=LEAK):
            call(again(target, moved))


def test_a_target_in_a_bank_on_disk_is_refused_however_it_was_changed(target, refs, tmp_path, quick):
    sp.pp.reference_bank([*refs, target], path=tmp_path / "bank.zarr")
    with pytest.raises(ValueError, match=LEAK):
        sp.tl.predict(again(target, mirrored), tmp_path / "bank.zarr", preset=quick)


@pytest.mark.parametrize("change", [last_digits, moved, mirrored])
def test_a_reference_that_stands_there_twice_is_refused(refs, change):
    for call in (sp.pp.reference_bank, sp.tl.fit):
        with pytest.raises(ValueError, match=rf'references "P1S2" and "again" {TWICE}'):
            call([*refs, again(refs[1], change)])


def test_an_exact_copy_of_a_reference_under_another_name_is_refused(refs):
    with pytest.raises(ValueError, match=rf'references "P1S2" and "again" {TWICE}'):
        sp.pp.reference_bank([*refs, again(refs[1], lambda z, xy, rng: (z, xy))])


def test_a_reference_is_not_appended_again_under_another_name(refs, tmp_path):
    path = tmp_path / "bank.zarr"
    sp.pp.reference_bank(refs, path=path)
    with pytest.raises(ValueError, match=rf'references "again" and "P1S2" {TWICE}'):
        sp.pp.reference_bank(again(refs[1], moved), path=path, append=True)


@pytest.mark.parametrize("change", [last_digits, moved, mirrored])
@pytest.mark.parametrize("group_by", ["slide", "patient"])
def test_a_slide_that_is_cross_validated_twice_is_refused(cohort, monkeypatch, change, group_by):
    monkeypatch.setattr(_folds, "run_fold", lambda fold: pytest.fail(f"fold {fold.key} ran"))
    with pytest.raises(ValueError, match='slides ".*" and ".*" are the same, or parts of one: .* Pass each slide once'):
        sp.tl.cross_validate([*cohort, again(cohort[0], change)], group_by=group_by, methods=["ridge"])


def test_four_slides_of_two_patients_are_predicted_banked_and_cross_validated(cohort):
    sp.pp.reference_bank(cohort)
    sp.tl.predict(cohort[0], cohort[1:], method="ridge")
    sp.tl.cross_validate(cohort, methods=["ridge"])


# Measured slides.


def embedded(pixels, xy):
    slide = AnnData(np.zeros((len(xy), 1), np.float32), obsm={"spatial": np.asarray(xy, float)})
    sp.pp.embed(slide, encoder="efficientnet_lite0", image=pixels, mpp=0.69, context=False, key_added="X", device="cpu")
    return Look(slide.obsm["X"], slide.obsm["spatial"])


def pixels_and_centres(folder, name, n=None):
    spots = pd.read_csv(folder / f"{name}_selection.tsv", sep="\t").query("selected == 1")
    xy = spots[["pixel_x", "pixel_y"]].to_numpy(float)
    with Image.open(folder / f"{name}.jpg") as image:
        pixels = np.asarray(image)
    return pixels, xy if n is None else xy[np.random.default_rng(0).permutation(len(xy))[:n]]


@pytest.mark.data
def test_a_measured_slide_is_known_again_and_no_serial_section_is_taken_for_it(her2st):
    pixels, xy = pixels_and_centres(her2st, "C2")
    order = np.random.default_rng(0).permutation(len(xy))
    section, some = embedded(pixels, xy[order[:110]]), xy[order[:40]]
    mirrored = embedded(np.ascontiguousarray(pixels[:, ::-1]), some * [-1, 1] + [pixels.shape[1] - 1, 0])
    turned = embedded(np.ascontiguousarray(np.rot90(pixels)), some[:, ::-1] * [1, -1] + [0, pixels.shape[1] - 1])
    for changed_section in (embedded(pixels, some + [1, 0]), mirrored, turned):
        assert overlap(section, changed_section) is not None
    for other in ("C3", "C4"):
        assert overlap(section, embedded(*pixels_and_centres(her2st, other, 50))) is None


# --- embeddings with a context: on small images all wide patches reach past the image


def with_context(own: Look, around: np.ndarray, padded: np.ndarray | None) -> Look:
    """A look with more columns, those of patches around the spots."""
    return Look(np.hstack([own.z, around]).astype(np.float32), own.xy, own.padded, own.z, padded)


ALL = np.ones(144, dtype=bool)


def place_of_spots() -> np.ndarray:
    """What wide patches show that are mostly white: where the image ends."""
    return 20 * np.random.default_rng(3).normal(size=(144, 40))


def test_wide_patches_past_the_image_do_not_make_two_slides_one():
    slides = [with_context(look(seed), place_of_spots(), None) for seed in (0, 1)]
    assert overlap(*slides) is not None, "nobody knows that they are padded"
    slides = [with_context(look(seed), place_of_spots(), ALL) for seed in (0, 1)]
    for other in (slides[1], slides[1]._replace(padded_around=None)):
        assert overlap(slides[0], other) is None and overlap(other, slides[0]) is None


@pytest.mark.parametrize("change", [last_digits, moved, mirrored, turned])
def test_a_slide_whose_wide_patches_all_reach_past_the_image_is_known_by_its_own(change):
    again = with_context(changed(look(0), change), place_of_spots(), ALL)
    assert overlap(with_context(look(0), place_of_spots(), ALL), again) is not None


@pytest.mark.parametrize("change", [last_digits, moved, mirrored])
def test_a_slide_whose_own_patches_say_nothing_is_known_by_those_around(change):
    (own, seen) = (look(seed)._replace(z=np.ones((144, 8), np.float32)) for seed in (0, 0))
    around = look(5)
    again = changed(around, change)
    one, two = with_context(own, around.z, ~ALL), with_context(seen, again.z, ~ALL)
    assert overlap(one, two._replace(xy=again.xy)) is not None


def test_slides_on_small_images_are_compared_and_predicted_with_the_default_context():
    slides = sp.datasets.simulated(3, n_patients=3, n_spots=24, n_genes=20, seed=4)
    sp.pp.embed(slides, encoder="efficientnet_lite0", device="cpu")
    assert all(slide.obs["spahgc_context_padded"].all() for slide in slides)
    sp.tl.cross_validate(slides, methods=["ridge"])
    sp.tl.predict(slides[0], slides[1:], method="ridge")
    with pytest.raises(ValueError, match=TWICE):
        sp.pp.reference_bank([slides[0], again_under_another_name(slides[0])])


def again_under_another_name(slide: AnnData) -> AnnData:
    again = slide.copy()
    again.obs["slide"] = "again"
    sp.pp.embed(again, encoder="efficientnet_lite0", batch_size=7, device="cpu")
    return again


def test_a_model_predicts_a_target_of_which_spots_lie_off_the_tissue(cohort, quick):
    """What is known of padded patches is that of the spots which are compared."""
    target, *refs = cohort
    model = sp.tl.fit(refs, preset=quick)
    target.obs["in_tissue"] = np.arange(target.n_obs) >= 12
    target.obs["spahgc_patch_padded"] = np.arange(target.n_obs) < 30
    expected = sp.tl.predict(target[12:].copy(), model=model, copy=True)
    sp.tl.predict(target, model=model)
    np.testing.assert_allclose(target.layers["spahgc"][12:], expected.layers["spahgc"], atol=1e-5)
