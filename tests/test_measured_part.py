"""A target that was measured in part: its measured spots are a reference at their own place, and the others are predicted."""

from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse
from tests.conftest import add_embedding

import spahgc as sp
from spahgc._parameters import Parameters
from spahgc._slides.measured_part import MIN_MEASURED_SPOTS

KEY, COLUMN = "spahgc", "was_measured"
SEED = 0


def every_other(n: int, share: float = 0.5) -> np.ndarray:
    """Some spots, drawn with a fixed seed."""
    chosen = np.zeros(n, dtype=bool)
    chosen[np.random.default_rng(SEED).permutation(n)[: round(share * n)]] = True
    return chosen


@pytest.fixture
def partly(target: AnnData) -> AnnData:
    """The target, of whose 70 spots 35 were measured."""
    target.obs[COLUMN] = every_other(target.n_obs)
    return target


def others_of(slide: AnnData) -> np.ndarray:
    """The spots that were not measured."""
    return ~slide.obs[COLUMN].to_numpy(dtype=bool)


def poisoned(slide: AnnData) -> AnnData:
    """The slide with NaN in place of every count of a spot that was not measured, wherever it stands."""
    slide = slide.copy()
    unseen = others_of(slide)
    for name in (None, *slide.layers):
        values = slide.X if name is None else slide.layers[name]
        values = np.asarray(values.toarray() if issparse(values) else values, dtype=np.float32)
        values[unseen] = np.nan
        if name is None:
            slide.X = csr_matrix(values) if issparse(slide.X) else values
        else:
            slide.layers[name] = values
    for column in ("total_counts", "spahgc_total_counts"):
        if column in slide.obs:
            slide.obs.loc[unseen, column] = np.nan
    return slide


def arrays(slide: AnnData) -> dict[str, Any]:
    """All that a prediction wrote, as arrays."""
    names = {f"obsm {name}": slide.obsm[name] for name in slide.obsm if name.startswith(KEY)}
    names |= {f"layers {name}": slide.layers[name] for name in (KEY, f"{KEY}_std") if name in slide.layers}
    names |= {
        f"var {name}": slide.var[name].to_numpy()
        for name in slide.var
        if name.startswith(KEY) and name != "spahgc_total_counts"
    }
    names |= {f"obs {name}": slide.obs[name].to_numpy() for name in (f"{KEY}_support",) if name in slide.obs}
    return {name: values.toarray() if issparse(values) else np.asarray(values) for name, values in names.items()}


def assert_same(one: AnnData, other: AnnData) -> None:
    """Both predictions are the same bit by bit."""
    first, second = arrays(one), arrays(other)
    assert first.keys() == second.keys() and f"layers {KEY}" in first
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def predicted(slide: AnnData, refs: Any, **options: Any) -> AnnData:
    """A copy of the slide with its prediction."""
    found = sp.tl.predict(slide, refs, measured=COLUMN, copy=True, **options)
    assert isinstance(found, AnnData)
    return found


# What is predicted, and from what.


@pytest.mark.parametrize("method", ["spahgc", "mean", "nearest", "ridge", "ridge_neighbours", "ridge_components"])
def test_only_spots_that_were_not_measured_are_predicted(partly, refs, method, quick_default):
    found = predicted(partly, refs, method=method, preset=quick_default)
    unseen, panel = others_of(partly), found.var[f"{KEY}_panel"].to_numpy()
    assert np.isfinite(found.layers[KEY][np.ix_(unseen, panel)]).all()
    assert np.isnan(found.layers[KEY][~unseen]).all()
    np.testing.assert_array_equal(found.obs[f"{KEY}_measured"], ~unseen)
    assert found.obs[f"{KEY}_measured"].dtype == bool
    if method == "spahgc":
        assert np.isnan(found.layers[f"{KEY}_std"][~unseen]).all()
        assert np.isfinite(found.layers[f"{KEY}_std"][np.ix_(unseen, panel)]).all()
        assert found.obs[f"{KEY}_support"].isna().to_numpy().tolist() == (~unseen).tolist()
        for graph in (f"{KEY}_cs", f"{KEY}_attention"):
            assert found.obsm[graph][~unseen].nnz == 0
            assert (np.diff(found.obsm[graph].indptr)[unseen] > 0).all()


def test_the_record_says_what_was_measured_and_names_it_among_the_references(partly, refs, quick_default):
    record = predicted(partly, refs, preset=quick_default).uns["spahgc"]["predictions"][KEY]
    assert record["measured"] == {"column": COLUMN, "reference": "P1S1", "n_measured": 35, "n_predicted": 35}
    assert record["references"] == ["P1S1", "P1S2", "P2S1", "P2S2"]
    assert sum(str(name).startswith("P1S1:") for name in record["bank_spots"]) == 35


def test_a_prediction_from_the_measured_part_alone(partly, quick_default):
    for method in ("spahgc", "ridge"):
        found = predicted(partly, None, method=method, preset=quick_default)
        assert found.uns["spahgc"]["predictions"][KEY]["references"] == ["P1S1"]
        assert np.isfinite(found.layers[KEY][:, found.var[f"{KEY}_panel"]][others_of(partly)]).all()


def test_the_measured_part_acts_as_a_slide_of_its_own_would(partly, refs):
    """Its numbers are those of the same spots handed over as a reference: nothing else of the target reaches them."""
    found = predicted(partly, refs, method="nearest")
    own = partly[~others_of(partly)].copy()
    bank = sp.pp.reference_bank([*refs, own])
    slide = partly.copy()
    slide.obsm["spatial"] = slide.obsm["spatial"] * 1.0
    from spahgc.pp._bank.references import target_spots
    from spahgc.tl._predict import predict_baseline

    expected = predict_baseline(target_spots(slide, "X_sim"), bank, "nearest", 0)[others_of(partly)]
    genes = found.var_names.get_indexer(bank.var_names)
    np.testing.assert_array_equal(found.layers[KEY][others_of(partly)][:, genes], expected)


def test_attribution_names_spots_of_the_measured_part(partly, refs, quick_default):
    found = predicted(partly, refs, preset=quick_default)
    rows = pd.concat(sp.tl.attribution(found, spot) for spot in found.obs_names[others_of(partly)])
    own = rows[rows["slide"] == "P1S1"]
    assert len(own) and set(own["spot"]) <= set(partly.obs_names[~others_of(partly)])
    with pytest.raises(ValueError, match=r"was measured and served as a reference .*so nothing was predicted there"):
        sp.tl.attribution(found, found.obs_names[~others_of(partly)][0])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"slide": "A"}, "A"),
        ({"library_id": "L"}, "L"),
        ({"slide": "P1S2"}, "P1S2 (measured part)"),
        ({}, "target"),
    ],
)
def test_the_measured_part_has_the_name_of_its_slide_unless_another_reference_has_it(partly, refs, names, expected):
    del partly.obs["slide"]
    for column, name in names.items():
        partly.obs[column] = name
    found = predicted(partly, refs, method="mean")
    record = found.uns["spahgc"]["predictions"][KEY]
    assert record["measured"]["reference"] == expected and expected in record["references"]


def test_a_later_prediction_without_it_forgets_it(partly, refs):
    sp.tl.predict(partly, refs, measured=COLUMN, method="mean")
    sp.tl.predict(partly, refs, method="mean")
    assert f"{KEY}_measured" not in partly.obs and COLUMN in partly.obs
    assert "measured" not in partly.uns["spahgc"]["predictions"][KEY]
    assert np.isfinite(partly.layers[KEY][:, partly.var[f"{KEY}_panel"]]).all()


def test_a_measured_half_brings_the_values_of_the_other_half_nearer(quick_default):
    """Patients differ in what each gene has on the whole; half of the slide tells, which another patient cannot."""
    target, *refs = sp.datasets.simulated(
        n_slides=3, n_patients=3, n_spots=140, n_genes=60, n_domains=3, batch_effect=0.5, seed=7
    )
    for slide in (target, *refs):
        del slide.uns["spatial"]
        add_embedding(slide)
    target.obs[COLUMN] = every_other(target.n_obs)
    genes = list(target.var_names)
    options: dict[str, Any] = {"genes": genes, "preset": quick_default}
    without = sp.tl.predict(target, refs, copy=True, **options)
    without.obs[f"{KEY}_measured"] = target.obs[COLUMN]  # so that both are scored on the same spots
    scores = {
        name: sp.tl.evaluate(one) for name, one in (("without", without), ("with", predicted(target, refs, **options)))
    }
    assert (scores["with"]["n_spots"] == 70).all() and (scores["without"]["n_spots"] == 70).all()
    assert scores["with"]["rmse"].mean() < 0.95 * scores["without"]["rmse"].mean()
    morphology = target.var_names[target.var["truth_kind"] == "morphology"]
    worse = scores["without"]["pearson"][morphology].mean() - scores["with"]["pearson"][morphology].mean()
    assert worse < 0.02


# Nothing of any other spot is seen.


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("with_refs", [True, False])
@pytest.mark.parametrize("method", ["spahgc", "ridge_components"])
def test_counts_of_spots_that_are_not_named_change_nothing(partly, refs, method, with_refs, sparse, quick_default):
    partly.X = csr_matrix(partly.X) if sparse else csr_matrix(partly.X).toarray()
    partly.layers["raw counts"] = partly.X.copy()
    references = refs if with_refs else None
    clean = predicted(partly, references, method=method, preset=quick_default)
    assert_same(clean, predicted(poisoned(partly), references, method=method, preset=quick_default))


def test_counts_in_a_layer_of_spots_that_are_not_named_change_nothing(partly, refs, quick_default):
    for slide in (partly, *refs):
        slide.layers["counts"] = slide.X.copy()
        slide.X = np.zeros(slide.shape, dtype=np.float32)
    clean = predicted(partly, refs, layer="counts", preset=quick_default)
    assert_same(clean, predicted(poisoned(partly), refs, layer="counts", preset=quick_default))


def test_totals_and_raw_of_spots_that_are_not_named_change_nothing(partly, refs):
    """Genes are gone from X, so that library sizes come from where they are remembered."""
    partly.obs["total_counts"] = np.asarray(partly.X.sum(axis=1)).ravel()
    few = partly[:, :40].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clean = predicted(few, refs, method="ridge", genes=list(few.var_names[:20]))
    with_raw = partly.copy()
    with_raw.raw = partly.copy()
    with_raw = with_raw[:, :40].copy()
    from_raw = predicted(with_raw, refs, method="ridge", genes=list(few.var_names[:20]))
    np.testing.assert_array_equal(from_raw.layers[KEY], clean.layers[KEY])
    bad = poisoned(few)
    bad.obs["total_counts"] = few.obs["total_counts"].where(few.obs[COLUMN], 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(clean, predicted(bad, refs, method="ridge", genes=list(few.var_names[:20])))


def test_without_the_column_being_named_no_count_of_the_target_is_seen(partly, refs, quick_default):
    clean = sp.tl.predict(partly, refs, preset=quick_default, copy=True)
    blind = partly.copy()
    blind.X = np.full(partly.shape, np.nan, dtype=np.float32)
    assert_same(clean, sp.tl.predict(blind, refs, preset=quick_default, copy=True))


def test_a_second_prediction_sees_no_more_than_the_first(partly, refs):
    """The totals that the first one remembers for later are those of all spots."""
    first = predicted(partly, refs, method="ridge")
    assert "spahgc_total_counts" in first.obs
    second = predicted(first, refs, method="ridge")
    assert_same(first, second)
    assert_same(first, predicted(poisoned(first), refs, method="ridge"))


def test_a_target_without_counts_elsewhere_keeps_its_object_as_it_was(partly, refs):
    bad = poisoned(partly)
    before = csr_matrix(bad.X).copy()
    found = predicted(bad, refs, method="ridge")
    np.testing.assert_array_equal(csr_matrix(found.X).toarray(), before.toarray())
    assert "spahgc_total_counts" not in found.obs


# Spots off the tissue and without counts.


def test_measured_spots_off_the_tissue_are_left_out_of_the_reference(partly, refs):
    glass = np.zeros(partly.n_obs, dtype=bool)
    glass[np.flatnonzero(partly.obs[COLUMN])[:5]] = True
    glass[np.flatnonzero(~partly.obs[COLUMN])[:3]] = True
    partly.obs["in_tissue"] = (~glass).astype(int)
    with pytest.warns(UserWarning, match="8 of 70 spots of the target lie off the tissue"):
        found = predicted(partly, refs, method="ridge")
    record = found.uns["spahgc"]["predictions"][KEY]["measured"]
    assert (record["n_measured"], record["n_predicted"]) == (30, 32)
    np.testing.assert_array_equal(found.obs[f"{KEY}_measured"], partly.obs[COLUMN] & ~glass)
    assert np.isnan(found.layers[KEY][glass]).all()


def test_measured_spots_without_a_count_are_left_out_of_the_reference_and_that_is_said(partly, refs):
    empty = np.flatnonzero(partly.obs[COLUMN])[:4]
    counts = csr_matrix(partly.X).toarray()
    counts[empty] = 0
    partly.X = csr_matrix(counts)
    with pytest.warns(UserWarning, match='the measured part of "P1S1" has 4 spots without a single count'):
        found = predicted(partly, refs, method="ridge")
    assert found.uns["spahgc"]["predictions"][KEY]["measured"]["n_measured"] == 31
    assert np.isnan(found.layers[KEY][empty]).all()


# What is refused, before any long work.


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bank or a fit would be long work."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("work began before the error")

    import spahgc.tl._predict as module

    for name in ("as_bank", "fit_bank", "predict_baseline"):
        monkeypatch.setattr(module, name, refuse)


COLUMNS = {
    "numbers": (lambda m: m.astype(int), r"must be boolean, True where a spot was measured, found int64"),
    "text": (lambda m: np.where(m, "yes", "no"), r'must be boolean.*found (object|str|string).*"(yes|no)"'),
    "category": (lambda m: pd.Categorical(np.where(m, "yes", "no")), "must be boolean.*found category"),
    "category of booleans": (lambda m: pd.Categorical(m), "must be boolean.*found category"),
    "missing": (lambda m: pd.array([None, *m[1:]], dtype="boolean"), "is missing in 1 of 70 spots"),
    "all": (lambda m: np.ones_like(m), "is True in all 70 spots of the target, so that nothing is left to predict"),
    "none": (lambda m: np.zeros_like(m), "names 0 spots of the target on the tissue as measured, at least 20"),
    "few": (lambda m: np.arange(len(m)) < 19, "names 19 spots of the target on the tissue as measured, at least 20"),
}


@pytest.mark.parametrize("case", COLUMNS)
@pytest.mark.usefixtures("no_work")
def test_a_column_that_names_no_measured_part_is_refused(partly, refs, case):
    change, message = COLUMNS[case]
    partly.obs[COLUMN] = change(partly.obs[COLUMN].to_numpy())
    with pytest.raises(ValueError, match=message):
        sp.tl.predict(partly, refs, measured=COLUMN)


def test_a_nullable_column_without_gaps_is_boolean(partly, refs):
    expected = predicted(partly, refs, method="ridge")
    partly.obs[COLUMN] = partly.obs[COLUMN].astype("boolean")
    assert_same(expected, predicted(partly, refs, method="ridge"))


@pytest.mark.usefixtures("no_work")
def test_a_column_that_is_not_there_is_refused(partly, refs):
    with pytest.raises(KeyError, match=r'obs\["measured"\] not found in the target, obs has .*True where a spot was'):
        sp.tl.predict(partly, refs, measured="measured")
    with pytest.raises(TypeError, match="must be the name of a boolean column of obs, found ndarray"):
        sp.tl.predict(partly, refs, measured=partly.obs[COLUMN].to_numpy())  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.usefixtures("no_work")
def test_a_measured_spot_without_a_number_is_refused(partly, refs, value):
    counts = csr_matrix(partly.X).toarray().astype(np.float32)
    counts[np.flatnonzero(partly.obs[COLUMN])[0], 0] = value
    partly.X = counts
    with pytest.raises(ValueError, match='the measured part of "P1S1"'):
        sp.tl.predict(partly, refs, measured=COLUMN)


@pytest.mark.usefixtures("no_work")
def test_measured_spots_without_counts_are_refused(partly, refs):
    empty = partly.copy()
    empty.X = csr_matrix(partly.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="names 0 spots of the target with counts as measured, at least 20"):
        sp.tl.predict(empty, refs, measured=COLUMN)
    nothing = AnnData(obs=partly.obs, var=partly.var, obsm=dict(partly.obsm), uns=dict(partly.uns))
    with pytest.raises(ValueError, match="names measured spots, and the target has no counts"):
        sp.tl.predict(nothing, refs, measured=COLUMN)
    without_genes = AnnData(obs=partly.obs, obsm=dict(partly.obsm), uns=dict(partly.uns))
    with pytest.raises(ValueError, match="names measured spots, and the target has no genes"):
        sp.tl.predict(without_genes, refs, measured=COLUMN)


@pytest.mark.usefixtures("no_work")
def test_glass_alone_is_no_measured_part(partly, refs):
    partly.obs["in_tissue"] = others_of(partly).astype(int)
    with (
        pytest.warns(UserWarning, match="off the tissue"),
        pytest.raises(ValueError, match="names 0 spots of the target"),
    ):
        sp.tl.predict(partly, refs, measured=COLUMN)


def test_a_model_and_a_bank_are_refused_with_advice(partly, refs, quick_default):
    model = sp.tl.fit(refs, preset=Parameters.preset("default", experts=("line",)))
    with pytest.raises(ValueError, match="model= was trained without it. Pass refs="):
        sp.tl.predict(partly, model=model, measured=COLUMN)
    with pytest.raises(ValueError, match="refs= is a bank, whose genes were chosen without it"):
        sp.tl.predict(partly, sp.pp.reference_bank(refs), measured=COLUMN)


@pytest.mark.parametrize("change", ["as it is", "embedded again", "another name"])
@pytest.mark.usefixtures("no_work")
def test_the_slide_itself_is_still_no_reference(partly, refs, change):
    same = partly.copy()
    if change == "embedded again":
        same.obsm["X_sim"] = same.obsm["X_sim"] * (1 + 1e-6)
    if change == "another name":
        same.obs["slide"] = "another"
    with pytest.raises(ValueError, match="the target is also among the references.*Leave that slide out"):
        sp.tl.predict(partly, [*refs, same], measured=COLUMN)


def test_the_least_measured_part_is_enough(partly, refs, quick_default):
    partly.obs[COLUMN] = every_other(70, MIN_MEASURED_SPOTS / 70)
    for references in (refs, None):
        predicted(partly, references, preset=quick_default, genes=list(partly.var_names))


# Afterwards.


def test_an_evaluation_scores_predicted_spots_alone_and_says_so(partly, refs):
    found = predicted(partly, refs, method="ridge")
    scores = sp.tl.evaluate(found)
    assert (scores["n_spots"] == 35).all() and scores.attrs["n_spots_reference"] == 35
    summary = found.uns["spahgc"]["evaluations"][KEY]
    assert (summary["n_spots"], summary["n_spots_reference"]) == (35, 35)
    alone = found[others_of(partly)].copy()
    pd.testing.assert_frame_equal(scores, sp.tl.evaluate(alone))


def test_an_evaluation_never_scores_a_measured_spot_whatever_stands_there(partly, refs):
    found = predicted(partly, refs, method="ridge")
    expected = sp.tl.evaluate(found.copy())
    found.layers[KEY][~others_of(partly)] = 7.0
    pd.testing.assert_frame_equal(sp.tl.evaluate(found), expected)
    only = found[~others_of(partly)].copy()
    with pytest.raises(ValueError, match="only 0 of 0 spots that were predicted, beside 35 measured ones, have counts"):
        sp.tl.evaluate(only)


def test_an_evaluation_of_a_whole_prediction_says_nothing_of_it(target, refs):
    sp.tl.predict(target, refs, method="ridge")
    assert "n_spots_reference" not in sp.tl.evaluate(target).attrs
    assert "n_spots_reference" not in target.uns["spahgc"]["evaluations"][KEY]


def test_domains_and_pathways_are_those_of_predicted_spots(partly, refs):
    found = predicted(partly, refs, method="ridge")
    sp.tl.domains(found, n_domains=3)
    domains = found.obs["spahgc_domain"]
    np.testing.assert_array_equal(domains.isna(), ~others_of(partly))
    alone = found[others_of(partly)].copy()
    sp.tl.domains(alone, n_domains=3)
    assert list(alone.obs["spahgc_domain"]) == list(domains.dropna())
    genes = found.var_names[found.var[f"{KEY}_panel"]]
    net = pd.DataFrame({"source": "A", "target": genes[: len(genes) // 2]})
    sp.tl.enrich(found, net, n_permutations=10, min_genes=2)
    scores = found.obsm["spahgc_enrichment"]
    np.testing.assert_array_equal(scores["A"].isna(), ~others_of(partly))


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_prediction_of_the_others_survives_a_file(partly, refs, tmp_path, ending, quick_default):
    found = predicted(partly, refs, preset=quick_default)
    path = tmp_path / f"found.{ending}"
    getattr(found, f"write_{ending}")(path)
    again = getattr(ad, f"read_{ending}")(path)
    record = again.uns["spahgc"]["predictions"][KEY]["measured"]
    assert {name: str(value) for name, value in record.items()} == {
        "column": COLUMN,
        "reference": "P1S1",
        "n_measured": "35",
        "n_predicted": "35",
    }
    assert again.obs[f"{KEY}_measured"].dtype == bool
    assert_same(found, again)
    assert (sp.tl.evaluate(again)["n_spots"] == 35).all()


def test_a_table_of_spatialdata_is_measured_in_part_as_well(partly, refs):
    spatialdata = pytest.importorskip("spatialdata")
    expected = predicted(partly, refs, method="ridge")
    sdata = spatialdata.SpatialData(tables={"table": partly})
    sp.tl.predict(sdata, refs, measured=COLUMN, method="ridge")
    assert_same(expected, sdata["table"])


# The command line, the page, and figures.


def test_the_command_line_takes_the_column(partly, refs, tmp_path, capsys, monkeypatch):
    from tests.test_cli_commands import result_of, run

    monkeypatch.setattr(sp.settings, "progress", False)
    partly.write_h5ad(tmp_path / "target.h5ad")
    refs[0].write_h5ad(tmp_path / "ref.h5ad")
    arguments = ["predict", "--target", tmp_path / "target.h5ad", "--measured", COLUMN, "--method", "ridge"]
    expected = predicted(partly, refs[:1], method="ridge")
    printed = result_of(capsys, *arguments, "--reference", tmp_path / "ref.h5ad", "--output", tmp_path / "with.h5ad")
    assert (printed["spots"], printed["measured"]) == (35, 35)
    assert_same(expected, ad.read_h5ad(tmp_path / "with.h5ad"))
    code, out, _ = run(capsys, *arguments, "--output", tmp_path / "alone.h5ad")
    assert code == 0 and "at 35 spots" in out and "35 measured ones used as reference" in out
    assert_same(predicted(partly, None, method="ridge"), ad.read_h5ad(tmp_path / "alone.h5ad"))
    code, _, err = run(capsys, *arguments[:4], "no such column", "--output", tmp_path / "none.h5ad")
    assert code != 0 and "no such column" in err and "not found in the target" in err


@pytest.fixture
def shown(refs: list[AnnData], partly: AnnData, quick_default: Parameters) -> AnnData:
    """The prediction of the others, scored."""
    found = predicted(partly, refs, preset=quick_default)
    sp.tl.evaluate(found)
    sp.tl.domains(found, n_domains=2)
    return found


def test_the_page_says_which_spots_were_measured(shown, tmp_path):
    from tests.report_slides import Page

    page = Page(sp.pl.report(shown, tmp_path / "report.html"))
    assert "35 spots measured, used as reference" in page.content["subtitle"]
    rows = {title: value for section in page.content["provenance"] for title, value in section["rows"]}
    assert rows["Measured part"] == (
        '35 spots measured, used as reference "P1S1" (obs["was_measured"]); 35 others predicted'
    )
    assert "35 predicted spots" in rows["On this slide"] and "P1S1" in rows["References (4)"]
    notes = " ".join(page.content["notes"])
    assert "no measurement of the spots that it compares is used for their prediction" in notes
    assert "blank under \u201cPredicted\u201d were measured and used as a reference" in notes
    assert "no measurement of this slide" not in notes


def test_the_page_of_a_whole_prediction_says_nothing_of_it(target, refs, tmp_path):
    from tests.report_slides import Page

    sp.tl.predict(target, refs, method="ridge")
    sp.tl.evaluate(target)
    page = Page(sp.pl.report(target, tmp_path / "report.html"))
    assert "measured, used" not in page.content["subtitle"]
    assert any("no measurement of this slide is used for its prediction" in note for note in page.content["notes"])


def texts(figure: Any) -> str:
    """All that is written in a figure."""
    import matplotlib.text

    return " ".join(text.get_text().replace("\n", " ") for text in figure.findobj(matplotlib.text.Text))


NOTE = "35 spots measured, used as reference"


def test_every_figure_of_predicted_values_says_how_many_spots_were_measured(shown):
    gene = shown.var_names[shown.var[f"{KEY}_panel"]][0]
    figures = {
        "genes": sp.pl.spatial_genes(shown, gene, spread=True, return_fig=True),
        "support": sp.pl.support(shown, threshold=0.2, return_fig=True),
        "domains": sp.pl.domains(shown, return_fig=True),
        "trust": sp.pl.trust(shown, return_fig=True),
        "scores": sp.pl.gene_scores(shown, return_fig=True),
        "scores of a table": sp.pl.gene_scores(sp.tl.evaluate(shown), return_fig=True),
        "abundance": sp.pl.score_vs_abundance(shown, return_fig=True),
    }
    for name, figure in figures.items():
        assert texts(figure).count(NOTE) == 1, name
        figure.savefig("/dev/null", format="png")
    assert "of 35 spots below 0.2" in texts(figures["support"])
    assert "0 1" in texts(figures["domains"]), "the legend of the domains is still there"


def test_figures_of_scores_refuse_a_slide_of_measured_spots_alone(shown):
    only = shown[shown.obs[f"{KEY}_measured"]].copy()
    for draw in (sp.pl.trust, sp.pl.score_vs_abundance):
        with pytest.raises(ValueError, match="no spot of the slide was both measured and predicted"):
            draw(only)


def test_a_figure_of_a_whole_prediction_says_nothing_of_it(target, refs):
    sp.tl.predict(target, refs, method="ridge")
    figure = sp.pl.spatial_genes(target, target.var_names[target.var[f"{KEY}_panel"]][0], return_fig=True)
    assert "used as reference" not in texts(figure)


def test_a_figure_shows_the_measured_part_beside_the_prediction_of_the_rest(partly, refs):
    found = predicted(poisoned(partly), refs, method="ridge")
    gene = found.var_names[found.var[f"{KEY}_panel"]][0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = sp.pl.spatial_genes(found, gene, return_fig=True)
    written = texts(figure)
    assert f"{gene}, measured" in written and f"{gene}, predicted" in written and "PCC" not in written
    measured, predicted_spots = (axes.collections[0].get_array() for axes in figure.axes[:2])
    np.testing.assert_array_equal(np.ma.getmaskarray(measured), others_of(partly))
    np.testing.assert_array_equal(np.ma.getmaskarray(predicted_spots), ~others_of(partly))


def test_a_figure_compares_predicted_spots_alone(shown):
    """The correlation in the title is that of spots that have both."""
    gene = shown.var_names[shown.var[f"{KEY}_panel"]][0]
    expected = float(shown.var[f"{KEY}_pearson"][gene])
    del shown.var[f"{KEY}_pearson"]
    assert f"PCC {expected + 0.0:.2f}" in texts(sp.pl.spatial_genes(shown, gene, return_fig=True))


def test_domains_are_compared_with_labels_of_predicted_spots(shown):
    sp.tl.domains(shown, n_domains=2, label="domain")
    record = shown.uns["spahgc"]["domains"][KEY]
    assert record["n_spots_labelled"] == 35
    shown.obs["few"] = np.where(shown.obs[f"{KEY}_measured"], "a", "")
    with pytest.raises(ValueError, match="is NaN or empty in all 35 spots"):
        sp.tl.domains(shown, n_domains=2, label="few")
