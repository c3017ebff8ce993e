"""Cross-validation: nothing of the group held out is learned from, and what is finished is kept."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc._slides.measured import measured_slides
from spahgc._spots.rows import Spots
from spahgc.tl._cross_validation import folds as _folds
from spahgc.tl._cross_validation.checkpoint import FOLD_SCORES, Checkpoint
from spahgc.tl._cross_validation.cross_validate import _without_the_rest
from spahgc.tl._cross_validation.folds import Fold, make_folds, run_fold
from spahgc.tl._cross_validation.methods import find_methods, resolved
from spahgc.tl._cross_validation.shuffle import shuffled
from spahgc.tl._cross_validation.splits import groups_by, splits_of_groups

BASELINES = ("ridge", "nearest")
N_BOOTSTRAP = 200
COLUMNS = ["method", "group", "slide", "gene", "pearson", "spearman", "rmse", "n", "ceiling"]
STRUCTURE = ["variance_ratio", "moran_difference", "ssim", "gene_correlation", "pathway_correlation", "pearson_pooled"]


def cross_validate(slides, **arguments):
    arguments = {"methods": BASELINES, "n_bootstrap": N_BOOTSTRAP, "group_by": "slide"} | arguments
    return sp.tl.cross_validate(slides, **arguments)


def folds_of(slides, *, method="ridge", preset="default", poison=None, group_by="slide"):
    """The folds of one method, where the counts of one slide may have been spoilt once all checks are passed."""
    named = measured_slides(slides, role="slide")
    specs = find_methods([method], {"genes": None, "embedding": None, "preset": preset, "seed": 0})
    specs = {label: resolved(spec, named, "cpu") for label, spec in specs.items()}
    splits = splits_of_groups(groups_by({name: slide.adata for name, slide in named.items()}, group_by))
    measured = {name: _without_the_rest(slide) for name, slide in named.items()}
    if poison is not None:
        measured[poison].counts().data[:] = np.nan
        measured[poison].expression().data[:] = np.nan
    return {fold.group: fold for fold in make_folds(measured, splits, specs, None)}


@pytest.fixture(scope="module")
def result(_cohort):
    return cross_validate([slide.copy() for slide in _cohort])


def test_scores_are_those_of_predicting_each_slide_from_all_others(cohort, result):
    assert list(result.scores.columns) == COLUMNS + STRUCTURE
    assert list(result.scores["method"].unique()) == list(BASELINES)
    for method in BASELINES:
        for slide in cohort:
            name = slide.obs["slide"].iloc[0]
            others = [other for other in cohort if other is not slide]
            predicted = sp.tl.predict(slide, others, method=method, copy=True)
            expected = sp.tl.evaluate(predicted)
            rows = result.scores.query("method == @method and slide == @name").set_index("gene")
            for column in ("pearson", "spearman", "rmse"):
                assert rows[column].to_dict() == pytest.approx(expected[column].to_dict(), rel=1e-6), (method, name)


@pytest.mark.parametrize("method", ["ridge", "spahgc"])
def test_poisoned_counts_of_the_slide_held_out_change_neither_panel_nor_prediction(cohort, quick, method):
    clean = run_fold(folds_of(cohort, method=method, preset=quick)["P1S1"])
    poisoned = folds_of(cohort, method=method, preset=quick, poison="P1S1")
    pd.testing.assert_frame_equal(run_fold(poisoned["P1S1"]).predicted["P1S1"], clean.predicted["P1S1"])
    with pytest.raises(ValueError, match="no gene"):  # the poison works where the slide is a reference
        run_fold(poisoned["P2S1"])


def test_slides_to_predict_carry_neither_counts_nor_what_was_derived_from_them(cohort):
    cohort[0].obs["total_counts"] = np.asarray(cohort[0].X.sum(axis=1)).ravel()
    cohort[0].layers["copy"] = cohort[0].X.copy()
    fold = folds_of(cohort)["P1S1"]
    target = fold.targets["P1S1"]
    assert type(target) is Spots and {field.name for field in fields(target)} == {
        "z",
        "xy",
        "slide",
        "y",
        "transcriptome",
        "picture",
        "own_reference",
        "registration",
        "patients",
        "mpp",
        "steps",
    }
    assert target.y.shape == target.transcriptome.shape == (cohort[0].n_obs, 0)
    np.testing.assert_array_equal(target.z, cohort[0].obsm["X_sim"])
    np.testing.assert_array_equal(target.xy, cohort[0].obsm["spatial"])
    assert target.own_reference is None and target.registration is None
    assert target.patients == {"P1"}
    assert "P1S1" not in fold.references.slides


def test_a_fold_refuses_targets_that_carry_genes(cohort):
    fold = folds_of(cohort)["P1S1"]
    measured = replace(fold.targets["P1S1"], y=cohort[0].X.toarray())
    with pytest.raises(ValueError, match="still carry genes"):
        replace(fold, targets={"P1S1": measured})


def test_a_patient_is_held_out_with_all_slides(cohort):
    folds = folds_of(cohort, group_by="patient")
    assert set(folds) == {"P1", "P2"}
    assert set(folds["P1"].targets) == {"P1S1", "P1S2"}
    assert set(folds["P1"].references.slides) == {"P2S1", "P2S2"}
    scores = cross_validate(cohort, group_by="patient", methods=["nearest"]).scores
    assert scores.groupby("slide")["group"].unique().str[0].to_dict() == {
        "P1S1": "P1",
        "P1S2": "P1",
        "P2S1": "P2",
        "P2S2": "P2",
    }


def test_a_network_is_trained_once_a_group_and_predicts_each_of_its_slides(cohort, quick, monkeypatch):
    trained, fit_bank = [], _folds.fit_bank

    def counted(bank, **arguments):
        trained.append(list(bank.obs["slide"].unique()))
        return fit_bank(bank, **arguments)

    monkeypatch.setattr(_folds, "fit_bank", counted)
    found = cross_validate(cohort, methods=["spahgc"], preset=quick, group_by="patient")
    assert sorted(trained) == [["P1S1", "P1S2"], ["P2S1", "P2S2"]]
    model = sp.tl.fit(cohort[1::2], preset=quick)
    predicted = sp.tl.predict(cohort[0], model=model, copy=True)
    rows = found.scores.query("slide == 'P1S1'").set_index("gene")["pearson"]
    assert rows.to_dict() == pytest.approx(sp.tl.evaluate(predicted)["pearson"].to_dict(), abs=1e-5)


def test_slides_may_come_in_any_order_or_as_one_object(cohort, result):
    reversed_ = cross_validate(cohort[::-1])
    pd.testing.assert_frame_equal(reversed_.scores, result.scores)
    joined = ad.concat(cohort, index_unique="-", uns_merge="same")
    pd.testing.assert_frame_equal(cross_validate(joined).scores, result.scores)


def test_slides_are_not_changed(cohort):
    before = [slide.copy() for slide in cohort]
    cross_validate(cohort, null="shuffle")
    for slide, old in zip(cohort, before, strict=True):
        assert (slide.X != old.X).nnz == 0
        assert set(slide.layers) == set(old.layers) and set(slide.obsm) == set(old.obsm)
        assert list(slide.var) == list(old.var) and list(slide.obs) == list(old.obs)


def test_counts_in_a_layer_give_the_same_scores(cohort, result):
    for slide in cohort:
        slide.layers["counts"] = slide.X
        slide.X = csr_matrix(slide.shape, dtype=np.float32)
    pd.testing.assert_frame_equal(cross_validate(cohort, layer="counts").scores, result.scores)


def test_a_method_that_predicts_the_mean_has_no_score_and_all_are_counted(cohort):
    found = cross_validate(cohort, methods=["mean", "nearest"], genes=list(cohort[0].var_names[:7]))
    assert found.scores.query("method == 'mean'")["pearson"].isna().all()
    assert found.summary.loc["mean", "n_undefined"] == 4 * 7
    assert np.isnan(found.summary.loc["mean", "pearson"])
    assert found.comparisons["n"].eq(0).all()


def test_empty_spots_of_the_slide_held_out_are_left_out(cohort):
    counts = cohort[0].X.toarray()
    counts[:6] = 0
    cohort[0].X = csr_matrix(counts)
    with pytest.warns(UserWarning, match="6 spots without a single count") as caught:
        found = cross_validate(cohort)
    assert sum("without a single count" in str(entry.message) for entry in caught) == 1
    assert found.scores.groupby("slide")["n"].unique().str[0].to_dict() == {
        "P1S1": 64,
        "P1S2": 70,
        "P2S1": 70,
        "P2S2": 70,
    }


def test_methods_bring_their_own_preset_or_arguments(cohort):
    by_name = cross_validate(cohort, methods=["ridge:paper", "ridge"]).record["methods"]
    assert by_name["ridge:paper"]["preset"] == sp.Parameters().to_dict()
    assert by_name["ridge"]["preset"]["n_abundant"] != by_name["ridge:paper"]["preset"]["n_abundant"]
    for slide in cohort:
        slide.obsm["X_other"] = slide.obsm["X_sim"][:, :2]
    own = {"wide": {"method": "ridge"}, "narrow": {"method": "ridge", "embedding": "X_other"}}
    summary = cross_validate(cohort, methods=own, embedding="X_sim").summary
    assert list(summary.index) == ["wide", "narrow"]
    assert summary.loc["wide", "pearson"] != summary.loc["narrow", "pearson"]


def test_tables_agree_with_each_other(result):
    per_slide = result.per_slide
    assert per_slide.shape == (2, 4)
    assert per_slide.mean(axis=1).to_dict() == pytest.approx(result.summary["pearson"].to_dict())
    pooled = result.comparisons.query("slide == 'all'").iloc[0]
    assert pooled["difference"] == pytest.approx(result.summary["pearson"].diff().iloc[1] * -1)
    assert (result.summary["low"] < result.summary["pearson"]).all()
    assert (result.summary["pearson"] < result.summary["high"]).all()
    first = result.scores.iloc[17]
    assert first["ceiling"] == result.ceiling.loc[first["gene"], first["slide"]]
    assert result.ceiling.stack().between(0, 1).all()
    assert "ridge" in repr(result) and "<table" in result._repr_html_()


def share_of_intervals_with_zero(slides, n_seeds, **arguments):
    tables = [cross_validate(slides, seed=seed, **arguments).summary for seed in range(n_seeds)]
    summary = pd.concat(tables)
    return ((summary["low"] <= 0) & (summary["high"] >= 0)).mean(), summary["pearson"].mean()


def test_references_shuffled_together_leave_intervals_that_contain_zero(cohort, quick):
    share, _ = share_of_intervals_with_zero(cohort, 6, null="shuffle_all")
    assert share >= 0.8  # 95 % is what an interval promises, and six seeds are few
    share, _ = share_of_intervals_with_zero(cohort, 2, null="shuffle_all", methods=["spahgc"], preset=quick)
    assert share > 0


def test_references_shuffled_one_by_one_leave_intervals_that_contain_zero_where_slides_are_alike():
    (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=320, n_genes=60, n_domains=3, seed=3)
    del slide.uns["spatial"]
    rng = np.random.default_rng(0)
    slide.obsm["X_own"] = slide.obsm["truth_domains"] + rng.normal(scale=0.1, size=slide.obsm["truth_domains"].shape)
    part = rng.permutation(slide.n_obs) % 4
    quarters = [slide[part == place].copy() for place in range(4)]
    for place, quarter in enumerate(quarters):
        quarter.obs["slide"] = f"quarter {place}"
    share, _ = share_of_intervals_with_zero(quarters, 6, null="shuffle", embedding="X_own")
    assert share >= 0.8
    assert (cross_validate(quarters, embedding="X_own").summary["low"] > 0).all()


def test_references_shuffled_one_by_one_lose_most_of_the_score_and_keep_what_slides_differ_in(cohort, result):
    _, pearson = share_of_intervals_with_zero(cohort, 4, null="shuffle")
    assert abs(pearson) < result.summary["pearson"].min() / 3


def test_references_in_place_leave_an_interval_above_zero(result):
    assert (result.summary["low"] > 0).all()


def test_a_shuffle_moves_whole_rows_within_their_slides(cohort):
    references = list(folds_of(cohort)["P1S1"].references.slides.values())
    for slide, original in zip(shuffled(references, "shuffle", 0, "P1S1"), references, strict=True):
        rows, before = slide.counts().toarray(), original.counts().toarray()
        assert not np.array_equal(rows, before)
        assert np.array_equal(rows[np.lexsort(rows.T)], before[np.lexsort(before.T)])
        np.testing.assert_array_equal(slide.embedding("X_sim"), original.embedding("X_sim"))
    other = shuffled(references, "shuffle", 0, "P1S2")
    assert (other[0].counts() != shuffled(references, "shuffle", 0, "P1S1")[0].counts()).nnz > 0


def test_a_shuffle_of_all_moves_rows_between_slides_over_the_genes_they_share(cohort):
    references = list(measured_slides([cohort[0], cohort[1][:, 5:].copy()]).values())
    moved = shuffled(references, "shuffle_all", 0, "g")
    assert [len(slide.obs_names) for slide in moved] == [len(slide.obs_names) for slide in references]
    shared = sorted(cohort[1].var_names[5:])
    rows, before = (
        np.vstack([s.counts()[:, s.var_names.get_indexer(shared)].toarray() for s in slides])
        for slides in (moved, references)
    )
    assert np.array_equal(rows[np.lexsort(rows.T)], before[np.lexsort(before.T)])
    first = references[0].counts()[:, references[0].var_names.get_indexer(shared)]
    assert not np.array_equal(moved[0].counts().sum(axis=0), first.sum(axis=0))


def test_two_processes_give_the_numbers_of_one(cohort, result):
    parallel = cross_validate(cohort, n_jobs=2)
    pd.testing.assert_frame_equal(parallel.scores, result.scores, check_exact=True)
    columns = result.summary.columns.drop("seconds")
    pd.testing.assert_frame_equal(parallel.summary[columns], result.summary[columns], check_exact=True)


def test_an_interrupted_run_goes_on_where_it_stopped(cohort, result, tmp_path, monkeypatch):
    ran: list[Fold] = []
    stop_after = 3

    def interrupted(fold):
        if len(ran) == stop_after:
            raise KeyboardInterrupt
        ran.append(fold)
        return run_fold(fold)

    monkeypatch.setattr(_folds, "run_fold", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(cohort, checkpoint=tmp_path)
    stop_after = -1
    resumed = cross_validate(cohort, checkpoint=tmp_path)
    assert len({fold.key for fold in ran}) == len(ran) == 8
    pd.testing.assert_frame_equal(resumed.scores, result.scores, check_exact=True)
    ran.clear()
    again = cross_validate(cohort, checkpoint=tmp_path)
    assert not ran
    pd.testing.assert_frame_equal(again.scores, result.scores, check_exact=True)
    pd.testing.assert_frame_equal(again.summary, resumed.summary, check_exact=True)
    assert not list(tmp_path.glob(".*"))


def test_a_method_may_be_added_to_a_checkpoint(cohort, result, tmp_path, monkeypatch):
    cross_validate(cohort, methods=["ridge"], checkpoint=tmp_path)
    labels = []
    monkeypatch.setattr(_folds, "run_fold", lambda fold: labels.append(fold.label) or run_fold(fold))
    both = cross_validate(cohort, checkpoint=tmp_path)
    assert labels == ["nearest"] * 4
    pd.testing.assert_frame_equal(both.scores, result.scores, check_exact=True)


def one_more_count(cohort):
    cohort[2].X = cohort[2].X + csr_matrix(([1.0], ([0], [0])), shape=cohort[2].shape)


def moved_embedding(cohort):
    cohort[1].obsm["X_sim"] = cohort[1].obsm["X_sim"] + np.float32(1e-3)


@pytest.mark.parametrize(
    ("change", "arguments", "field"),
    [
        (one_more_count, {}, "slides.P1S2.counts"),
        (moved_embedding, {}, "embeddings.P2S1"),
        (None, {"seed": 1}, "seed"),
        (None, {"group_by": "patient"}, "group_by"),
        (None, {"null": "shuffle"}, "null"),
        (None, {"preset": "paper"}, "preset.alignment"),
        (None, {"genes": ["MORPH001"]}, "genes"),
    ],
)
def test_a_checkpoint_of_other_inputs_is_refused_and_the_field_is_named(cohort, tmp_path, change, arguments, field):
    cross_validate(cohort, methods=["nearest"], checkpoint=tmp_path)
    if change:
        change(cohort)
    with pytest.raises(ValueError, match=rf"other inputs.*{field}"):
        cross_validate(cohort, methods=["nearest"], checkpoint=tmp_path, **arguments)


def test_a_changed_file_of_a_checkpoint_is_noticed(cohort, tmp_path):
    cross_validate(cohort, methods=["nearest"], checkpoint=tmp_path)
    table = next(tmp_path.glob("*.csv"))
    table.write_text(table.read_text().replace("0.", "0.9", 1))
    with pytest.raises(ValueError, match="is not the file that"):
        cross_validate(cohort, methods=["nearest"], checkpoint=tmp_path)


def test_a_checkpoint_keeps_names_that_look_like_something_else(tmp_path):
    slides = {"001": {"group": "nan"}, "NA": {"group": "nan"}}
    store = Checkpoint(tmp_path, {"slides": slides}, {"a:b/c": {}, "a-b-c": {}})
    scores = pd.DataFrame(
        {
            "slide": ["001", "NA"],
            "gene": ["NA", "1e5"],
            "pearson": [np.nan, 1 / 3],
            "spearman": [np.nan, 0.1 + 0.2],
            "rmse": [1e-17, 2.0],
            **dict.fromkeys(FOLD_SCORES[3:], 0.1 + 0.2),
            "n": [3, 4],
        }
    )
    store.write("a:b/c", "nan", scores, 1.25, None)
    read, seconds = store.read("a:b/c", "nan", {"001": {"NA"}, "NA": {"1e5"}})
    pd.testing.assert_frame_equal(read, scores, check_exact=True)
    assert seconds == 1.25
    assert store.read("a-b-c", "nan", {}) is None
    assert all(json.loads(path.read_text()) is not None for path in tmp_path.glob("*.json"))


def drop_patient(cohort):
    del cohort[3].obs["patient"]


def two_patients(cohort):
    cohort[2].obs["patient"] = ["P1", "P2"] * (cohort[2].n_obs // 2)


def one_patient(cohort):
    for slide in cohort:
        slide.obs["patient"] = "P1"


def no_patient_for_some(cohort):
    cohort[1].obs["patient"] = cohort[1].obs["patient"].astype(object).where(np.arange(cohort[1].n_obs) > 2)


def no_embedding(cohort):
    del cohort[2].obsm["X_sim"]


def same_slide_twice(cohort):
    cohort[1] = cohort[0].copy()
    cohort[1].obs["slide"] = "again"


def few_spots(cohort):
    cohort[3] = cohort[3][:6].copy()


def broken_counts(cohort):
    cohort[1].X.data[0] = np.nan


@pytest.mark.parametrize(
    ("spoil", "arguments", "error", "message"),
    [
        (drop_patient, {"group_by": "patient"}, KeyError, 'not found in slide "P2S2"'),
        (two_patients, {"group_by": "patient"}, ValueError, 'slide "P1S2" has 2 values'),
        (one_patient, {"group_by": "patient"}, ValueError, "one group of all slides"),
        (no_patient_for_some, {"group_by": "patient"}, ValueError, 'slide "P2S1" is empty for 3 spots'),
        (no_embedding, {}, KeyError, 'not found in slide "P1S2"'),
        (same_slide_twice, {}, ValueError, "share spots"),
        (few_spots, {}, ValueError, '"P2S2" has 6 spots with counts'),
        (broken_counts, {}, ValueError, 'slide "P2S1" has 1 NaN'),
        (None, {"methods": "ridge"}, TypeError, "sequence of names"),
        (None, {"methods": []}, ValueError, "methods= is empty"),
        (None, {"methods": ["ridge", "lasso"]}, ValueError, '"lasso" is not known.*ridge'),
        (None, {"methods": ["ridge", "ridge"]}, ValueError, "more than once"),
        (None, {"methods": ["ridge:quick"]}, ValueError, '"quick" is not known'),
        (None, {"methods": {"own": {"layer": "counts"}}}, ValueError, 'arguments "layer"'),
        (None, {"genes": ["MORPH001", "BRCA9"]}, KeyError, "BRCA9"),
        (None, {"null": "noise"}, ValueError, "null='noise'"),
        (None, {"n_jobs": 0}, ValueError, "n_jobs=0"),
        (None, {"methods": ["spahgc"], "device": "cuda:99"}, ValueError, "not available"),
    ],
)
def test_what_is_wrong_is_said_before_any_fold_runs(cohort, monkeypatch, spoil, arguments, error, message):
    monkeypatch.setattr(_folds, "run_fold", lambda fold: pytest.fail(f"fold {fold.key} ran"))
    if spoil:
        spoil(cohort)
    with pytest.raises(error, match=message):
        cross_validate(cohort, **arguments)


def test_folds_in_processes_are_refused_where_torchrun_started_this_one(cohort, monkeypatch):
    for name, value in {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "WORLD_SIZE": 2,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match="n_jobs=2 starts processes, and torchrun has done so already"):
        cross_validate(cohort, n_jobs=2)
