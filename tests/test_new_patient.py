"""Weights of the experts for a target of a patient whom no reference is of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc import Parameters, SpaHGC

EXPERTS = ("kernel", "kernel_overall", "perceptron")


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")


@pytest.fixture(scope="module")
def preset(quick_default: Parameters) -> Parameters:
    return replace(quick_default, experts=EXPERTS)


def of_patients(slides: list[AnnData], *patients: str) -> list[AnnData]:
    """Copies of slides that name their patients."""
    named = [slide.copy() for slide, _ in zip(slides, patients, strict=False)]
    for slide, patient in zip(named, patients, strict=True):
        slide.obs["patient"] = patient
    return named


@pytest.fixture(scope="module")
def model(_cohort: list[AnnData], preset: Parameters) -> SpaHGC:
    """A model of two sections of one patient, which no test may change."""
    return sp.tl.fit(of_patients(_cohort[1:3], "A", "A"), preset=preset, trust=False, device="cpu")


def test_sections_of_one_patient_leave_half_of_the_weight_to_what_sees_all_references(model):
    proven, new = model.experts.weights, model.experts.new_patient
    for name in EXPERTS:
        assert new[name] == pytest.approx(0.5 * proven[name] + 0.5 * (name == "kernel_overall"))
    assert sum(new.values()) == pytest.approx(1)


def test_a_named_other_patient_is_predicted_with_these_weights(cohort, model):
    (known,) = of_patients(cohort[:1], "A")
    (new,) = of_patients(cohort[:1], "B")
    unnamed = known.copy()
    del unnamed.obs["patient"]
    assert np.array_equal(model.predict(known), model.predict(unnamed))  # who names nobody is nobody new
    apart = np.abs(model.predict(new) - model.predict(known)).max()
    assert apart > 1e-3
    sp.tl.predict(new, model=model)
    record = new.uns["spahgc"]["predictions"]["spahgc"]
    assert record["experts"] == model.experts.new_patient and record["experts_proven"] is False
    assert np.array_equal(new[:, model.genes].layers["spahgc"], model.predict(new))


def test_another_column_tells_whose_the_target_is(cohort, model):
    (target,) = of_patients(cohort[:1], "A")
    target.obs["donor"] = "B"
    sp.tl.predict(target, model=model, group="donor")
    assert target.uns["spahgc"]["predictions"]["spahgc"]["experts"] == model.experts.new_patient


def test_a_slide_of_a_known_and_a_new_patient_is_no_new_patient(cohort, model):
    (target,) = of_patients(cohort[:1], "A")
    target.obs["patient"] = np.where(np.arange(target.n_obs) < 5, "A", "B")
    sp.tl.predict(target, model=model)
    assert target.uns["spahgc"]["predictions"]["spahgc"]["experts"] == model.experts.weights


def test_two_patients_prove_the_weights_for_a_third(_cohort, preset):
    model = sp.tl.fit(of_patients(_cohort[:3], "A", "A", "B"), preset=preset, trust=False, device="cpu")
    assert model.experts.new_patient == model.experts.weights
    (target,) = of_patients(_cohort[3:4], "C")
    sp.tl.predict(target, model=model)
    assert target.uns["spahgc"]["predictions"]["spahgc"]["experts_proven"] is True


def test_a_saved_model_keeps_them(cohort, model, tmp_path):
    model.save(tmp_path / "model")
    loaded = SpaHGC.load(tmp_path / "model")
    (new,) = of_patients(cohort[:1], "B")
    assert loaded.experts.new_patient == model.experts.new_patient
    assert np.array_equal(loaded.predict(new), model.predict(new))


def test_contributions_add_up_to_the_prediction_of_a_new_patient(cohort, model):
    (new,) = of_patients(cohort[:1], "B")
    parts = model.contributions(new, spots=[0, 1], genes=model.genes[:2])
    np.testing.assert_allclose(parts.mean + parts.total.sum(axis=1) + parts.remainder, parts.prediction, atol=1e-4)
    np.testing.assert_allclose(parts.prediction, model.predict(new)[:2, :2], atol=1e-5)
    assert dict(parts.weights) == {name: weight for name, weight in model.experts.new_patient.items() if weight}


def test_a_patient_held_out_is_new_in_a_cross_validation(_cohort, preset):
    slides = of_patients(_cohort[:3], "A", "A", "B")
    result = sp.tl.cross_validate(slides, group_by="patient", methods=["spahgc"], preset=preset, genes=None)
    (target,) = of_patients(_cohort[2:3], "B")
    sp.tl.predict(target, slides[:2], preset=preset, trust=False)
    scores = sp.tl.evaluate(target)["pearson"].mean()
    found = result.per_slide.loc["spahgc", str(_cohort[2].obs["slide"].iloc[0])]
    assert found == pytest.approx(scores, abs=1e-6)
