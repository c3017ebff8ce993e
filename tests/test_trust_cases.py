"""For whom trust holds: a further section of a known patient, or a new one; and that all of the prediction is held out."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc._linear.expected import ESTIMATED, FOR_WHOM, Expected
from spahgc._linear.held_out import NEVER, folds_of, folds_of_sections
from spahgc._linear.trust import PATIENT, SECTION
from spahgc._parameters import Parameters
from spahgc.tl._case import target_case

LINEAR = Parameters(n_axes=8, n_components=4, weigh_genes=True, line=True, epochs=0)


@pytest.fixture(scope="module")
def _slides() -> list[AnnData]:
    slides = sp.datasets.simulated(n_slides=5, n_patients=2, n_spots=60, n_genes=40, n_domains=3, seed=3)
    for slide in slides:
        del slide.uns["spatial"]  # no reference is to be laid over another by its image
        slide.obsm["X_domains"] = slide.obsm["truth_domains"]
    return slides


@pytest.fixture
def slides(_slides: list[AnnData]) -> list[AnnData]:
    """Five simulated slides of two patients; a fresh copy for each test."""
    return [slide.copy() for slide in _slides]


def told(slide: AnnData, refs: list[AnnData], **arguments) -> dict:
    """What the record says of the trust of a prediction."""
    sp.tl.predict(slide, refs, genes="all", embedding="X_domains", **{"preset": LINEAR, **arguments})
    return slide.uns["spahgc"]["predictions"]["spahgc"]["trust"]


def rename(slides: list[AnnData], patient: str | None) -> list[AnnData]:
    for slide in slides:
        if patient is None:
            slide.obs.pop("patient")
        else:
            slide.obs["patient"] = patient
    return slides


# What is held out.


def test_a_section_is_held_out_while_another_one_of_its_patient_stays():
    slide = np.repeat(["a1", "a2", "b1", "b2", "b3", "c1"], 2)
    patients = np.array([name[0] for name in slide])
    folds = folds_of_sections(slide, patients)
    assert set(folds[patients == "c"]) == {NEVER}
    for fold in range(folds.max() + 1):
        inside = folds == fold
        assert set(patients[inside]) <= set(patients[~inside])
        assert all(len(set(slide[inside & (patients == name)])) <= 1 for name in "abc")
    assert (folds[patients != "c"] != NEVER).all()


def test_many_sections_of_a_patient_are_held_out_in_five_folds():
    slide = np.array([f"s{i:02d}" for i in range(12)])
    assert set(folds_of_sections(slide, np.full(12, "a"))) == set(range(5))


def test_patients_are_held_out_in_five_folds_at_most_and_each_once():
    folds = folds_of(np.array([f"p{i}" for i in range(8)]))
    assert sorted(set(folds)) == list(range(5))
    assert (np.diff(folds) >= 0).all()


def test_references_of_several_patients_play_both_cases(slides):
    model = sp.tl.fit(slides, genes="all", embedding="X_domains", preset=LINEAR)
    assert set(model.trust.cases) == {SECTION, PATIENT}
    assert model.trust.cases[PATIENT].genes.residuals.n_groups == 2
    assert model.trust.cases[SECTION].genes.residuals.n_groups == 5


def test_experts_play_both_cases_whatever_proved_their_weights(slides, quick_default):
    model = sp.tl.fit(slides, genes="all", embedding="X_domains", preset=quick_default)
    assert {SECTION, PATIENT} <= set(model.trust.cases)
    patient, section = (model.trust.cases[case].correlation.pcc for case in (PATIENT, SECTION))
    assert not np.allclose(patient, section, equal_nan=True)


def test_patients_with_one_section_each_tell_of_new_patients_alone(slides):
    refs = [
        slides[0],
        next(slide for slide in slides if slide.obs["patient"].iloc[0] != slides[0].obs["patient"].iloc[0]),
    ]
    model = sp.tl.fit(refs, genes="all", embedding="X_domains", preset=LINEAR)
    assert set(model.trust.cases) == {PATIENT}
    target = next(slide for slide in slides if all(slide is not ref for ref in refs))
    sp.tl.predict(target, model=model)
    record = target.uns["spahgc"]["predictions"]["spahgc"]["trust"]
    assert (record["case"], record["held_out"], record["for"]) == (SECTION, PATIENT, FOR_WHOM[PATIENT])
    assert target.var["spahgc_cv_pcc_section"].isna().all()
    np.testing.assert_array_equal(target.var["spahgc_cv_pcc"], target.var["spahgc_cv_pcc_patient"])


def test_trust_takes_no_part_in_what_is_predicted(slides, quick_default):
    target, *refs = slides
    arguments = {"genes": "all", "embedding": "X_domains", "preset": quick_default, "copy": True}
    with_trust = sp.tl.predict(target, refs, **arguments)
    without = sp.tl.predict(target, refs, trust=False, **arguments)
    np.testing.assert_array_equal(with_trust.layers["spahgc"], without.layers["spahgc"])
    assert not {"spahgc_cv_pcc", "spahgc_cv_pcc_patient"} & set(without.var)
    assert not {"spahgc_std", "spahgc_low"} & set(without.layers) and "spahgc_support" not in without.obs
    assert "trust" not in without.uns["spahgc"]["predictions"]["spahgc"]


def test_a_model_fitted_without_trust_is_saved_without_it(slides, tmp_path):
    sp.tl.fit(slides[1:], genes="all", embedding="X_domains", preset=LINEAR, trust=False).save(tmp_path / "model")
    model = sp.SpaHGC.load(tmp_path / "model")
    assert model.trust is None
    with pytest.raises(ValueError, match="says nothing of trust: it is of"):
        sp.tl.predict(slides[0], model=model, intervals=0.9)


def test_both_cases_survive_their_file(slides, tmp_path):
    target, *refs = slides
    model = sp.tl.fit(refs, genes="all", embedding="X_domains", preset=LINEAR)
    model.save(tmp_path / "model")
    before, after = (
        sp.tl.predict(target, model=each, intervals=0.8, copy=True)
        for each in (model, sp.SpaHGC.load(tmp_path / "model"))
    )
    for name in ("spahgc_std", "spahgc_low", "spahgc_high"):
        np.testing.assert_array_equal(before.layers[name], after.layers[name])
    np.testing.assert_array_equal(before.var["spahgc_cv_pcc_patient"], after.var["spahgc_cv_pcc_patient"])


# What else is told of each case.


def test_regions_rest_on_the_errors_of_the_case_that_the_target_is(slides):
    target, *refs = slides
    model = sp.tl.fit(refs, genes="all", embedding="X_domains", preset=LINEAR)
    patient, section = (model.trust.cases[case].shared for case in (PATIENT, SECTION))
    assert patient.freedom.item() >= 2 and not np.array_equal(patient.correlation, section.correlation)
    for name, shared in ((target.obs["patient"].iloc[0], section), ("somebody else", patient)):
        sp.tl.predict(rename([target], name)[0], model=model)
        found = target[:, model.genes].varm["spahgc_error_correlation"]
        np.testing.assert_allclose(found, shared.correlation, rtol=1e-6)
        record = target.uns["spahgc"]["predictions"]["spahgc"]
        sp.tl.regions(target, by="slide")
        assert target.uns["spahgc"]["regions"]["spahgc"]["for_whom"] == record["trust"]["for"]


def test_what_errors_share_is_saved_for_each_case(slides, tmp_path):
    model = sp.tl.fit(slides, genes="all", embedding="X_domains", preset=LINEAR)
    model.save(tmp_path / "model")
    again = sp.SpaHGC.load(tmp_path / "model").trust
    for case in (SECTION, PATIENT):
        for name, array in model.trust.cases[case].shared.to_arrays().items():
            np.testing.assert_array_equal(getattr(again.cases[case].shared, name), array)


def test_a_prediction_without_trust_has_no_regions_and_says_why(slides):
    target, *refs = slides
    sp.tl.predict(target, refs, genes="all", embedding="X_domains", preset=LINEAR, trust=False)
    with pytest.raises(KeyError, match="trust=False or an earlier version made it"):
        sp.tl.regions(target, by="slide")
    assert sp.get.summary(target).loc["spahgc", ["n_trusted", "for_whom", "n_unknown"]].isna().all()


def test_the_summary_says_for_whom_trust_holds(slides):
    target, *refs = slides
    told(target, refs)
    assert sp.get.summary(target)["for_whom"].item() == "a further section of a known patient"
    told(rename([target], None)[0], rename(refs, None))
    assert sp.get.summary(target)["for_whom"].item() == ESTIMATED


# For whom it holds.


def test_the_target_s_patient_decides_for_whom_it_holds(slides):
    target, *refs = slides
    known = target.obs["patient"].iloc[0]
    assert told(target, refs)["for"] == "a further section of a known patient"
    section = target.var["spahgc_cv_pcc"].copy()
    np.testing.assert_array_equal(section, target.var["spahgc_cv_pcc_section"])
    rename([target], "somebody else")
    assert told(target, refs)["for"] == "a new patient"
    np.testing.assert_array_equal(target.var["spahgc_cv_pcc"], target.var["spahgc_cv_pcc_patient"])
    np.testing.assert_array_equal(target.var["spahgc_cv_pcc_section"], section)
    assert known != "somebody else"


@pytest.mark.parametrize("name", [None, "unknown", "nan", ""])
def test_a_patient_who_is_not_named_is_taken_for_a_new_one(slides, name):
    target, *refs = slides
    rename([target], name)
    record = told(target, refs)
    assert (record["case"], record["estimated"]) == (PATIENT, False)


def test_references_of_one_patient_tell_of_a_new_one_by_other_cohorts(slides):
    target, *refs = slides
    rename(refs, "one")
    section = told(rename([target], "one")[0], refs)
    of_section = target.copy()
    record = told(rename([target], "other")[0], refs)
    assert record["for"] == ESTIMATED == "new patient, estimated from other cohorts"
    assert record["estimated"] and not section["estimated"]
    assert (target.layers["spahgc_std"] > of_section.layers["spahgc_std"]).all()
    width = target.var["spahgc_cv_pcc_high"] - target.var["spahgc_cv_pcc_low"]
    assert width.median() > (of_section.var["spahgc_cv_pcc_high"] - of_section.var["spahgc_cv_pcc_low"]).median()


def test_references_that_name_no_patient_tell_of_a_new_one_by_other_cohorts(slides):
    target, *refs = rename(slides, None)
    assert told(target, refs)["for"] == ESTIMATED


def test_a_single_reference_tells_of_a_new_patient_by_other_cohorts(slides):
    record = told(rename([slides[0]], "other")[0], slides[1:2])
    assert record["for"] == ESTIMATED and record["n_groups"] == 2


def test_a_reference_that_lies_on_the_target_is_of_its_patient_unless_both_are_named_otherwise(slides):
    target, *refs = slides
    bank = sp.pp.reference_bank(refs, embedding="X_domains")
    assert target_case(target, bank, placed=True, measured=False) == "placed"
    assert target_case(rename([target], None)[0], bank, placed=True, measured=False) == "placed"
    assert target_case(rename([target], "other")[0], bank, placed=True, measured=False) == PATIENT
    assert target_case(target, bank, placed=False, measured=True) == SECTION


def test_a_new_prediction_forgets_for_whom_the_last_one_held(slides):
    target, *refs = slides
    told(target, refs, intervals=0.9)
    sp.tl.predict(target, refs, method="ridge", genes="all", embedding="X_domains")
    assert not [name for name in target.var if "cv_pcc" in name]
    assert not {"spahgc_low", "spahgc_high", "spahgc_std"} & set(target.layers)


def test_the_nearest_case_that_references_can_play_is_taken(slides):
    model = sp.tl.fit(slides, genes="all", embedding="X_domains", preset=LINEAR)
    assert Expected.of(model.trust, "placed").played == SECTION
    assert not Expected.of(model.trust, PATIENT).estimated


# A column of one's own.


def test_another_column_names_what_is_held_out_together(slides):
    target, *refs = slides
    by_patient = told(target, refs)
    expected = target.var["spahgc_cv_pcc_patient"].copy()
    for slide in slides:
        slide.obs["donor"] = slide.obs.pop("patient")
    record = told(target, refs, group="donor")
    assert record["for"] == by_patient["for"] == "a further section of a known patient"
    np.testing.assert_array_equal(target.var["spahgc_cv_pcc_patient"], expected)
    assert all("patient" not in slide.obs for slide in slides)
    target.obs["donor"] = "somebody else"
    assert told(target, refs, group="donor")["for"] == "a new patient"
    assert told(target, refs)["for"] == ESTIMATED


def test_a_plain_target_without_the_column_is_of_a_new_patient(slides):
    target, *refs = slides
    for slide in refs:
        slide.obs["donor"] = slide.obs["patient"]
    assert told(target, refs, group="donor")["for"] == "a new patient"


def test_a_model_keeps_what_its_references_were_grouped_by(slides):
    target, *refs = slides
    for slide in slides:
        slide.obs["donor"] = slide.obs.pop("patient")
    model = sp.tl.fit(refs, genes="all", embedding="X_domains", preset=LINEAR, group="donor")
    sp.tl.predict(target, model=model, group="donor")
    assert target.uns["spahgc"]["predictions"]["spahgc"]["trust"]["case"] == SECTION


def test_a_group_that_a_reference_does_not_name_is_refused(slides):
    target, *refs = slides
    with pytest.raises(KeyError, match='group="donor" is no column of obs of reference 1'):
        sp.tl.predict(target, refs, group="donor", embedding="X_domains")
    bank = sp.pp.reference_bank(refs, embedding="X_domains")
    with pytest.raises(ValueError, match='group="patient" names a column of the slides, and refs= is a bank'):
        sp.tl.predict(target, bank, group="patient")
