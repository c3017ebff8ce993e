"""Predictions by place: references that lie on the target, told by images alone, and proven by references held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc import Parameters, SpaHGC
from spahgc._keys import UNS, Uns

EMBEDDING = "X_blind"


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")


@pytest.fixture(scope="module")
def preset(quick_default: Parameters) -> Parameters:
    return replace(quick_default, experts=("kernel", "graph"), place=True, epochs=2)


def section(base: AnnData, name: str, *, turns: int = 0, seed: int = 0) -> AnnData:
    """A further section of the same tissue: turned by right angles, counted anew, with an embedding that shows nothing."""
    rng = np.random.default_rng(seed)
    slide = base.copy()
    (library,) = slide.uns["spatial"]
    record = slide.uns["spatial"].pop(library)
    scale = record["scalefactors"]["tissue_hires_scalef"]
    image, xy = record["images"]["hires"], np.asarray(slide.obsm["spatial"], dtype=float)
    for _ in range(turns):
        xy = np.column_stack([xy[:, 1], image.shape[1] / scale - xy[:, 0]])
        image = np.rot90(image)
    slide.uns["spatial"] = {name: {**record, "images": {"hires": np.ascontiguousarray(image)}}}
    slide.obsm = {"spatial": xy, EMBEDDING: rng.normal(size=(slide.n_obs, 12)).astype(np.float32)}
    slide.uns.pop(UNS, None)
    slide.X = rng.poisson(np.asarray(slide.X.todense() if hasattr(slide.X, "todense") else slide.X)).astype(np.float32)
    slide.obs["slide"] = name
    return slide


@pytest.fixture(scope="module")
def _block() -> list[AnnData]:
    base = sp.datasets.simulated(1, n_patients=1, n_spots=150, n_genes=40, seed=5)[0]
    return [section(base, f"S{i}", turns=i, seed=i) for i in range(4)]


@pytest.fixture
def block(_block: list[AnnData]) -> list[AnnData]:
    return [slide.copy() for slide in _block]


@pytest.fixture(scope="module")
def model(_block, preset) -> SpaHGC:
    """Trained on all sections but the first."""
    return sp.tl.fit([slide.copy() for slide in _block[1:]], embedding=EMBEDDING, preset=preset, device="cpu")


@pytest.fixture
def stranger() -> AnnData:
    base = sp.datasets.simulated(1, n_patients=1, n_spots=150, n_genes=40, seed=77)[0]
    return section(base, "X", seed=9)


def pearson(adata: AnnData) -> float:
    return float(sp.tl.evaluate(adata)["pearson"].nlargest(15).mean())


def record(adata: AnnData) -> dict:
    return adata.uns[UNS][Uns.predictions]["spahgc"]


def test_what_lies_at_the_same_place_is_told_where_the_look_tells_nothing(block, model):
    target = block[0]
    blind = sp.tl.predict(target, model=model, place=False, copy=True)
    placed = sp.tl.predict(target, model=model, copy=True)
    assert pearson(placed) > pearson(blind) + 0.2
    place = record(placed)[Uns.place]
    assert place["known"] and all(place["used"]) and place["moving"] == ["S1", "S2", "S3"]
    assert sum(place["weights"].values()) == pytest.approx(1)
    assert place["weights"]["kernel_plus_place"] + place["weights"]["kernel_times_place"] > 0.3
    assert Uns.place not in record(blind)


def test_sections_that_lie_on_each_other_prove_nothing_of_a_new_patient(block, stranger, preset):
    references, rng = [*block[1:3], stranger], np.random.default_rng(0)
    seen = rng.normal(size=(40, 12))
    for slide, patient in zip(references, "AAB", strict=True):
        slide.obs["patient"] = patient
        slide.obsm[EMBEDDING] = (np.log1p(slide.X) @ seen + 5 * rng.normal(size=(150, 12))).astype(np.float32)
    placed = sp.tl.fit(references, embedding=EMBEDDING, preset=preset, trust=False)
    by_patient = sp.tl.fit(references, embedding=EMBEDDING, preset=replace(preset, place=False), trust=False)
    assert placed.experts.placed and placed.experts.new_patient == by_patient.experts.weights
    assert placed.experts.weights != by_patient.experts.weights


def test_place_ignores_the_targets_own_counts(block, preset):
    target, *refs = block
    expected = sp.tl.predict(target, refs, embedding=EMBEDDING, preset=preset, copy=True)
    target.X = np.full(target.shape, np.nan, dtype=np.float32)
    actual = sp.tl.predict(target, refs, embedding=EMBEDDING, preset=preset, copy=True)
    np.testing.assert_array_equal(actual.layers["spahgc"], expected.layers["spahgc"])


def test_a_slide_of_other_tissue_is_predicted_as_if_it_had_no_image(stranger, model):
    expected = sp.tl.predict(stranger, model=model, place=False, copy=True)
    actual = sp.tl.predict(stranger, model=model, copy=True)
    np.testing.assert_array_equal(actual.layers["spahgc"], expected.layers["spahgc"])
    place = record(actual)[Uns.place]
    assert not place["known"] and not any(place["used"])


def test_place_true_refuses_a_target_on_which_no_reference_lies(block, stranger, preset):
    with pytest.raises(
        ValueError, match=r"place=True, but no reference lies on the target \(S1: quality 0\.\d\d is below"
    ):
        sp.tl.predict(stranger, block[1:], embedding=EMBEDDING, preset=preset, place=True)
    target, *refs = block
    for slide in block:
        del slide.uns["spatial"]
    with pytest.raises(ValueError, match="the slides store no images to tell by"):
        sp.tl.predict(target, refs, embedding=EMBEDDING, preset=preset, place=True)


@pytest.mark.parametrize("method", ["ridge", "mean"])
def test_place_true_is_refused_for_a_method_without_places(block, method):
    target, *refs = block
    with pytest.raises(ValueError, match="place=True has no part in this prediction"):
        sp.tl.predict(target, refs, embedding=EMBEDDING, method=method, place=True)


def test_the_kernel_alone_knows_places_too(block, preset):
    target, *refs = block
    arguments = {"refs": refs, "embedding": EMBEDDING, "method": "kernel"}
    sp.tl.predict(target, **arguments)
    assert record(target)["method"] == "kernel" and record(target)["place"]["known"]
    assert set(record(target)["experts"]) == {"kernel"}
    assert "spahgc_std" not in target.layers and "spahgc_cv_pcc" not in target.var
    placed = pearson(target)
    sp.tl.predict(target, **arguments, place=False)
    assert "place" not in record(target) and placed > pearson(target) + 0.2


def test_the_kernel_without_a_place_is_the_baseline(block, stranger):
    arguments = {"embedding": EMBEDDING, "method": "kernel", "copy": True}
    without = sp.tl.predict(stranger, block[1:], **arguments)
    refused = sp.tl.predict(stranger, block[1:], **arguments, place=False)
    np.testing.assert_array_equal(without.layers["spahgc"], refused.layers["spahgc"])
    with pytest.raises(ValueError, match="place=True, but no reference lies on the target"):
        sp.tl.predict(stranger, block[1:], **arguments, place=True)


def test_another_word_for_place_is_refused(block):
    with pytest.raises(ValueError, match=r"place='yes' is not known\. Pass \"auto\", True or False"):
        sp.tl.predict(block[0], block[1:], embedding=EMBEDDING, place="yes")


def test_a_transform_that_was_given_is_taken_where_no_image_tells(block, preset, model):
    target, *refs = block
    expected = sp.tl.predict(target, model=model, copy=True)
    width = target.uns["spatial"]["S0"]["images"]["hires"].shape[1]
    width /= target.uns["spatial"]["S0"]["scalefactors"]["tissue_hires_scalef"]
    turned = np.array([[0, -1, width], [1, 0, 0], [0, 0, 1.0]])
    for slide in block:
        del slide.uns["spatial"]
    blind = sp.tl.predict(target, refs, embedding=EMBEDDING, preset=preset, copy=True)
    sp.pp.register(target, refs[:1], transforms={"S1": turned})
    given = sp.tl.predict(target, refs, embedding=EMBEDDING, preset=preset, place=True, copy=True)
    assert record(given)[Uns.place]["used"] == [True]
    assert pearson(given) > pearson(blind) + 0.1
    assert pearson(expected) > pearson(blind) + 0.1


def test_a_saved_model_lays_its_references_on_a_target(block, model, tmp_path: Path):
    target = block[0]
    model.save(tmp_path / "model")
    loaded, expected = SpaHGC.load(tmp_path / "model"), model.predict(target)
    np.testing.assert_array_equal(loaded.predict(target), expected)
    sp.tl.predict(target, model=loaded, place=True)
    np.testing.assert_array_equal(target[:, model.genes].layers["spahgc"], expected)


def test_the_experts_of_place_compute_on_the_device_of_fit_and_prediction(block, model, preset, monkeypatch):
    target, *refs = block
    expected, asked = model.predict(target, device="cpu"), set()

    def recorded(device: str) -> bool:
        asked.add(device)
        return device == "cpu:0"  # the CPU, and a name that tells that tensors are wanted

    monkeypatch.setattr("spahgc._linear.on_device.uses_tensors", recorded)
    again = sp.tl.fit(refs, embedding=EMBEDDING, preset=preset, device="cpu:0")
    assert again.experts.placed == pytest.approx(model.experts.placed, abs=1e-6)
    np.testing.assert_allclose(again.predict(target, device="cpu:0"), expected, rtol=1e-5, atol=1e-5)
    parts = again.contributions(target, spots=[0, 1], genes=again.genes[:2], device="cpu:0")
    np.testing.assert_allclose(parts.prediction, expected[:2, :2], rtol=1e-5, atol=1e-5)
    assert asked == {"cpu:0"}


def test_one_reference_proves_nothing_and_is_used_with_fixed_shares(block, preset):
    target, reference, *_ = block
    sp.tl.predict(target, [reference], embedding=EMBEDDING, preset=preset)
    weights = record(target)[Uns.place]["weights"]
    assert weights["kernel_plus_place"] == pytest.approx(0.3) and weights["kernel_times_place"] == pytest.approx(0.1)


def test_a_slide_whose_stored_image_is_broken_has_no_place_and_says_so(block, preset):
    target, *refs = block
    target.uns["spatial"]["S0"]["scalefactors"]["tissue_hires_scalef"] = -1.0
    with pytest.warns(UserWarning, match="the target is not laid on other slides: its scale factor"):
        sp.tl.predict(target, refs, embedding=EMBEDDING, preset=preset)
    assert Uns.place not in record(target)


def test_sections_of_many_references_are_registered_with_those_next_to_them():
    from spahgc.pp._register.lays import N_NEXT, lays_of_references
    from spahgc.pp._register.picture import Picture

    blank = {f"R{i:02d}": Picture(np.full((40, 40, 3), 240, dtype=np.uint8)) for i in range(12)}
    pairs = lays_of_references(blank, {}).pairs
    assert len(pairs) == N_NEXT * len(blank) - N_NEXT * (N_NEXT + 1) // 2
    assert not any(pair.used for pair in pairs.values())
    patients = {name: f"P{i // 6}" for i, name in enumerate(blank)}
    within = lays_of_references(blank, patients).pairs
    assert within and all(patients[a] == patients[b] for a, b in within)
