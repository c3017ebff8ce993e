"""References of different platforms together: what each gene rests on, and that nothing unmeasured is ever a number."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc import cli
from spahgc._linear.low_rank import loadings_of, loadings_where_measured
from spahgc._linear.trust import Case
from spahgc._parameters import BASELINE_NAMES, Parameters
from spahgc._spots.known import mean_where_known
from spahgc._spots.rows import StandardizedRows, mean_and_std
from spahgc._spots.unmeasured import MeasuredRows, measured_genes, patterns
from spahgc._training.graphs import bank_spots
from spahgc.pp._bank.union import divided

LINEAR = Parameters(n_abundant=300, n_axes=8, n_components=4, weigh_genes=True, line=True, epochs=0)
ALONE = "MORPH001"
"""A gene that follows the tissue, and that one reference alone measured."""
MEASURED_BY = "spahgc_measured_by"


def genes_of_platforms(names: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Genes of a wide, a narrow and a third platform, of which the first alone has the gene ``ALONE``."""
    others = [name for name in names if name != ALONE]
    return list(names), others[::3], others[:50]


@pytest.fixture
def platforms(refs: list[AnnData]) -> list[AnnData]:
    """The three references as if each had been measured on a platform of its own."""
    panels = genes_of_platforms(list(refs[0].var_names))
    slides = [slide[:, panel].copy() for slide, panel in zip(refs, panels, strict=True)]
    for slide in slides:
        slide.obs = slide.obs.drop(columns="patient")
    return slides


def name_of(slide: AnnData) -> str:
    return str(slide.obs["slide"].iloc[0])


@pytest.fixture
def bank(platforms: list[AnnData]) -> AnnData:
    with pytest.warns(UserWarning, match="totals of spots rest on"):
        return sp.pp.reference_bank(platforms, genes="union")


def predicted(target: AnnData, refs: object, **arguments: object) -> AnnData:
    """A copy of the target with a prediction."""
    found = sp.tl.predict(target, refs, copy=True, device="cpu", **arguments)
    assert isinstance(found, AnnData)
    return found


def poisoned(bank: AnnData, value: float) -> AnnData:
    """The same bank with a number in every entry that was not measured."""
    bank = bank.copy()
    known = pd.DataFrame(bank.varm[MEASURED_BY].T, index=bank.uns["spahgc"]["bank"]["slides"])
    unmeasured = ~known.loc[bank.obs["slide"].astype(str)].to_numpy()
    assert unmeasured.any()
    values = bank.X.toarray()
    values[unmeasured] = value
    bank.X = csr_matrix(values)
    return bank


# What the bank holds


def test_the_bank_says_which_reference_measured_which_gene(bank: AnnData, platforms: list[AnnData]) -> None:
    known, names = bank.varm[MEASURED_BY], bank.uns["spahgc"]["bank"]["slides"]
    assert known.dtype == bool and known.shape == (bank.n_vars, 3)
    by_name = {name_of(slide): slide for slide in platforms}
    expected = np.column_stack([bank.var_names.isin(by_name[name].var_names) for name in names])
    np.testing.assert_array_equal(known, expected)
    np.testing.assert_array_equal(bank.var["spahgc_n_references"], expected.sum(axis=1))
    assert bank.var.loc[ALONE, "spahgc_n_references"] == 1
    shared = set.intersection(*(set(slide.var_names) for slide in platforms))
    assert set(bank.uns["spahgc"]["bank"]["transcriptome"]) == shared


def test_a_gene_is_taken_by_every_reference_that_measured_it(platforms: list[AnnData]) -> None:
    from spahgc._slides.measured import measured_slides
    from spahgc.pp._genes import selected_genes, union_genes

    slides = measured_slides(platforms)
    panel = set(union_genes(slides, n_top=12))
    of_each = {name: set(selected_genes({name: slide}, n_top=12)) for name, slide in slides.items()}
    every = set().union(*(slide.var_names for slide in slides.values()))
    assert panel == {
        gene for gene in every if all(gene in of_each[name] for name in slides if gene in slides[name].var_names)
    }
    assert panel - set(selected_genes(slides, n_top=60))  # more than what all of them measured


def test_the_default_bank_has_none_of_it(refs: list[AnnData]) -> None:
    bank = sp.pp.reference_bank(refs)
    assert MEASURED_BY not in bank.varm and "spahgc_n_references" not in bank.var


def test_what_was_not_measured_is_nan_where_it_is_read_and_absent_where_it_lies(bank: AnnData) -> None:
    spots = bank_spots(bank, dense=False)
    names, known = measured_genes(spots.y, spots.slide)
    np.testing.assert_array_equal(known.T, bank.varm[MEASURED_BY][:, np.argsort(bank.uns["spahgc"]["bank"]["slides"])])
    values = np.asarray(spots.y[:])
    np.testing.assert_array_equal(np.isnan(values), ~known[np.searchsorted(names, spots.slide)])
    np.testing.assert_array_equal(np.nan_to_num(values), bank.X.toarray())


def test_small_panels_come_onto_the_scale_of_the_largest(refs: list[AnnData]) -> None:
    """Of two halves of one experiment, one cut to a third of its genes: the shared genes have the same level again."""
    wide, narrow = refs[0].copy(), refs[1][:, refs[1].var_names[::3]].copy()
    whole = sp.pp.reference_bank([wide, refs[1]], genes=list(narrow.var_names))
    with pytest.warns(UserWarning, match=rf'rest on 20 genes on "{name_of(narrow)}".*divided by'):
        union = sp.pp.reference_bank([wide, narrow], genes="union")
    plain = sp.pp.reference_bank([narrow], genes=list(narrow.var_names), n_neighbors=7)

    def level(bank: AnnData) -> float:
        rows = (bank.obs["slide"] == name_of(narrow)).to_numpy()
        return float(np.expm1(bank[rows, narrow.var_names].X.toarray()).mean())

    assert level(plain) > 2 * level(whole)
    assert level(union) == pytest.approx(level(whole), rel=0.15)
    factors = union.uns["spahgc"]["bank"]["union_scale"]["factors"]
    assert sorted(factors.values())[0] == 1.0 and sorted(factors.values())[1] > 2


def test_dividing_is_done_before_the_logarithm() -> None:
    values = csr_matrix(np.log1p([[4.0, 0.0], [8.0, 2.0]]).astype(np.float32))
    np.testing.assert_allclose(divided(values, 2.0).toarray(), np.log1p([[2.0, 0.0], [4.0, 1.0]]), rtol=1e-6)
    assert divided(values, 1.0) is values


# What is predicted


def test_a_gene_of_one_reference_alone_is_predicted_and_never_trusted(target: AnnData, bank: AnnData) -> None:
    found = predicted(target, bank, preset=LINEAR)
    assert np.isfinite(found[:, list(bank.var_names)].layers["spahgc"]).all()
    rests_on = found.var.loc[bank.var_names, "spahgc_n_references"]
    pd.testing.assert_series_equal(rests_on, bank.var["spahgc_n_references"], check_names=False)
    assert (found.var.loc[~found.var["spahgc_panel"], "spahgc_n_references"] == 0).all()
    assert sp.tl.evaluate(found).loc[ALONE, "pearson"] > 0.5
    alone = found.var["spahgc_n_references"] == 1
    assert alone[ALONE] and found.var.loc[alone, "spahgc_cv_pcc"].isna().all()
    assert np.isnan(found[:, alone].layers["spahgc_std"]).all()
    assert np.isfinite(found[:, (found.var["spahgc_n_references"] > 1)].layers["spahgc_std"]).all()
    assert found.var.loc[found.var["spahgc_n_references"] > 1, "spahgc_cv_pcc"].notna().mean() > 0.9
    trusted = sp.tl.trusted_genes(found, min_pcc=-1)
    assert trusted and ALONE not in trusted and not set(trusted) & set(found.var_names[alone])


def test_experts_networks_and_intervals_work_on_a_union(
    target: AnnData, bank: AnnData, every_expert: Parameters
) -> None:
    found = predicted(target, bank, preset=every_expert, intervals=0.9)
    scores = sp.tl.evaluate(found)
    morphology = [gene for gene in scores.index if gene.startswith("MORPH")]
    assert scores.loc[morphology, "pearson"].mean() > 0.4 and scores.loc[ALONE, "pearson"] > 0.4
    several = found[:, (found.var["spahgc_n_references"] > 1)]
    assert (several.layers["spahgc_low"] <= several.layers["spahgc_high"]).all()
    assert np.isnan(found[:, [ALONE]].layers["spahgc_low"]).all()
    found.obs["side"] = np.where(found.obsm["spatial"][:, 0] > np.median(found.obsm["spatial"][:, 0]), "left", "right")
    table = sp.tl.regions(found, by="side").set_index("feature")
    assert table["mean"].notna().all()
    assert table.loc[[ALONE], ["low", "high"]].isna().all(axis=None)
    assert table.loc[several.var_names, ["low", "high"]].notna().all(axis=None)


@pytest.mark.parametrize("method", BASELINE_NAMES)
def test_a_baseline_learns_a_gene_from_the_references_that_measured_it(
    method: str, target: AnnData, bank: AnnData, platforms: list[AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("mlp", "bleep", "deepspot"):
        monkeypatch.setattr(f"spahgc.tl._baselines.{module}.MAX_EPOCHS", 2)
    arguments = {"method": method, "preset": LINEAR, "place": False}
    found = predicted(target, bank, **arguments)
    by_itself = bank[(bank.obs["slide"] == name_of(platforms[0])).to_numpy()].copy()
    rests_on_it = list(bank.var_names[bank.var["spahgc_n_references"] == 1])
    assert ALONE in rests_on_it
    del by_itself.varm[MEASURED_BY]
    alone = predicted(target, by_itself, genes=rests_on_it, **arguments)
    np.testing.assert_allclose(
        found[:, rests_on_it].layers["spahgc"], alone[:, rests_on_it].layers["spahgc"], rtol=1e-5, atol=1e-6
    )
    assert "spahgc_n_references" in found.var and "spahgc_n_references" not in alone.var


def test_the_mean_of_a_gene_is_that_of_the_references_that_measured_it(target: AnnData, bank: AnnData) -> None:
    found = predicted(target, bank, method="mean")
    rows = (bank.obs["slide"] == bank.uns["spahgc"]["bank"]["slides"][int(np.argmax(known_of(bank, ALONE)))]).to_numpy()
    assert known_of(bank, ALONE).sum() == 1
    own = bank[rows, [ALONE]].X.toarray().mean()
    assert own > 0 and found[0, ALONE].layers["spahgc"].item() == pytest.approx(own, rel=1e-5)


def known_of(bank: AnnData, gene: str) -> np.ndarray:
    return np.asarray(bank.varm[MEASURED_BY][bank.var_names.get_loc(gene)])


def test_a_later_prediction_without_a_union_says_nothing_of_references(
    target: AnnData, bank: AnnData, refs: list[AnnData]
) -> None:
    sp.tl.predict(target, bank, method="mean")
    assert "spahgc_n_references" in target.var
    sp.tl.predict(target, refs, method="mean")
    assert "spahgc_n_references" not in target.var


# Equal panels


def test_with_equal_panels_the_bank_is_that_of_the_default(refs: list[AnnData]) -> None:
    union, default = sp.pp.reference_bank(refs, genes="union"), sp.pp.reference_bank(refs)
    assert list(union.var_names) == list(default.var_names)
    assert (union.X != default.X).nnz == 0
    graph = "spahgc_rs_connectivities"
    assert (union.obsp[graph] != default.obsp[graph]).nnz == 0
    assert union.varm[MEASURED_BY].all() and (union.var["spahgc_n_references"] == 3).all()


@pytest.mark.parametrize("which", ["linear", "experts", "paper", "ridge", "kernel"])
def test_with_equal_panels_the_numbers_are_those_of_the_default(
    which: str, target: AnnData, refs: list[AnnData], quick: Parameters, quick_default: Parameters
) -> None:
    presets = {"linear": LINEAR, "experts": quick_default, "paper": quick}
    arguments = {"preset": presets[which]} if which in presets else {"method": which}
    default, union = (predicted(target, refs, genes=genes, **arguments) for genes in (None, "union"))
    assert set(default.layers) == set(union.layers)
    for layer in default.layers:
        np.testing.assert_array_equal(union.layers[layer], default.layers[layer])
    columns = default.var.columns
    pd.testing.assert_frame_equal(union.var[columns], default.var)
    assert set(union.var) - set(columns) == {"spahgc_n_references"}


# Poison


@pytest.mark.parametrize("value", [np.nan, 1e6, -3.0])
@pytest.mark.parametrize("which", ["linear", "experts", "paper", "nearest", "ridge"])
def test_what_stands_in_unmeasured_entries_changes_nothing(
    which: str, value: float, target: AnnData, bank: AnnData, quick: Parameters, quick_default: Parameters
) -> None:
    presets = {"linear": LINEAR, "experts": quick_default, "paper": quick}
    arguments = {"preset": presets[which]} if which in presets else {"method": which}
    clean, changed = (predicted(target, source, **arguments) for source in (bank, poisoned(bank, value)))
    assert np.isfinite(clean[:, list(bank.var_names)].layers["spahgc"]).all()
    for layer in clean.layers:
        np.testing.assert_array_equal(changed.layers[layer], clean.layers[layer])
    pd.testing.assert_frame_equal(changed.var, clean.var)


def test_the_paper_trains_on_what_each_reference_measured(target: AnnData, bank: AnnData, quick: Parameters) -> None:
    model = sp.tl.fit(bank, preset=quick, device="cpu")
    assert all(np.isfinite(record.total) for record in model.history)
    found = predicted(target, None, model=model)
    assert np.isfinite(found[:, model.genes].layers["spahgc"]).all()
    zeros = bank.copy()  # the same with unmeasured taken for not expressed, which is something else
    del zeros.varm[MEASURED_BY]
    other = predicted(target, zeros, preset=quick)
    level = [float(one[:, [ALONE]].layers["spahgc"].mean()) for one in (found, other)]
    assert level[0] > 1.5 * level[1]


# What is proven


def test_a_gene_is_proven_by_the_references_that_measured_it() -> None:
    rng = np.random.default_rng(0)
    slide = np.repeat(["A", "B", "C"], 40)
    measured = rng.gamma(2.0, size=(120, 30))
    said = (measured + rng.normal(scale=0.7, size=measured.shape)).astype(np.float32)
    xy, support = rng.uniform(size=(120, 2)) * 100, np.full(120, np.nan)
    partial = measured.copy()
    partial[slide == "C", 0] = np.nan  # not measured on C
    partial[slide != "A", 1] = np.nan  # measured on A alone
    held_out = said.copy()
    held_out[slide == "A", 1] = np.nan  # which nobody could predict there
    case = Case.fit(partial, held_out, xy, slide, slide, support)
    two = slide != "C"
    of_two = Case.fit(measured[two], said[two], xy[two], slide[two], slide[two], support[two])
    assert case.correlation.pcc[0] == pytest.approx(of_two.correlation.pcc[0])
    assert case.genes is not None and of_two.genes is not None
    assert case.genes.z[0] == pytest.approx(of_two.genes.z[0])
    assert case.spread.level[0] == pytest.approx(of_two.spread.level[0])
    assert np.isnan([case.correlation.pcc[1], case.spread.variance[1], case.genes.z[1]]).all()
    others = np.arange(2, 30)
    whole = Case.fit(measured[:, others], said[:, others], xy, slide, slide, support)
    np.testing.assert_allclose(case.correlation.pcc[others], whole.correlation.pcc)
    assert case.shared is not None
    assert np.isfinite(case.shared.correlation[np.append(0, others)]).all()
    assert np.isnan(case.shared.correlation[1]).all() and np.isnan(case.shared.loadings[1]).all()
    back = Case.from_arrays(case.to_arrays())
    np.testing.assert_array_equal(back.correlation.pcc, case.correlation.pcc)


def test_a_group_that_says_nothing_of_a_kind_of_genes_narrows_no_interval() -> None:
    from spahgc._linear.conformal import GroupScores

    known = [np.arange(10.0), np.arange(10.0) * 2]
    both = GroupScores.fit([[known[0]], [known[1]]], leave_out=True)
    third = GroupScores.fit([[known[0]], [known[1]], [np.full(5, np.nan)]], leave_out=True)
    np.testing.assert_array_equal(third.quantile(0.9, unseen=1.2), both.quantile(0.9, unseen=1.2))
    assert third.share_below(np.array([4.0]), unseen=1.2) == both.share_below(np.array([4.0]), unseen=1.2)


def test_a_gene_is_read_off_by_the_slides_that_measured_it() -> None:
    rng = np.random.default_rng(1)
    slide = np.repeat(["A", "B"], 30)
    scores, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 5))
    y[slide == "B", 2] = np.nan
    y[:, 4] = np.nan
    loadings = loadings_where_measured(scores, StandardizedRows.fit(y, slide), slide)
    on_a = StandardizedRows.fit(y[:30], slide[:30])
    np.testing.assert_allclose(loadings[:, [2]], loadings_of(scores[:30], on_a[:][:, [2]]))
    whole = StandardizedRows.fit(y[:, [0, 1, 3]], slide)
    np.testing.assert_allclose(loadings[:, [0, 1, 3]], loadings_of(scores, whole))
    assert not loadings[:, 4].any()
    assert sorted(tuple(pattern.genes) for pattern in patterns(y, slide)) == [(0, 1, 3), (2,)]
    np.testing.assert_allclose(mean_where_known(np.array([[1.0, np.nan], [3.0, np.nan]])), [2.0, np.nan])
    masked = MeasuredRows(np.ones((60, 2)), (slide == "B").astype(int), np.array([[True, False], [False, True]]))
    assert np.isnan(mean_and_std(masked, np.arange(30)).mean).tolist() == [False, True]


# Scores


def test_a_cross_validation_scores_a_slide_on_what_it_measured(platforms: list[AnnData], cohort: list[AnnData]) -> None:
    slides = [cohort[0].copy(), *platforms]
    slides[0].obs = slides[0].obs.drop(columns="patient")
    with pytest.warns(UserWarning, match="totals of spots rest on"):
        result = sp.tl.cross_validate(
            slides, methods=["spahgc", "ridge", "mean"], genes="union", preset=LINEAR, n_bootstrap=20, device="cpu"
        )
    by_name = {name_of(slide): slide for slide in slides}
    for (_, name), rows in result.scores.groupby(["method", "slide"]):
        genes = set(rows["gene"])
        others = set().union(*(slide.var_names for other, slide in by_name.items() if other != name))
        assert genes and genes <= set(by_name[name].var_names) & others
        assert np.isfinite(rows["rmse"]).all()
    of_wide = set(result.scores.loc[result.scores["slide"] == name_of(slides[0]), "gene"])
    assert ALONE in of_wide  # measured there and on one other slide
    narrow = set(result.scores.loc[result.scores["slide"] == name_of(platforms[1]), "gene"])
    assert narrow == set(platforms[1].var_names) & narrow and len(narrow) < len(of_wide)
    assert result.summary.loc["spahgc", "pearson"] > 0.2
    assert result.record["methods"]["ridge"]["genes"] == "union"


# Files


def test_a_saved_model_keeps_what_each_gene_rests_on(target: AnnData, bank: AnnData, tmp_path: Path) -> None:
    model = sp.tl.fit(bank, preset=LINEAR, device="cpu")
    model.save(tmp_path / "model")
    loaded = sp.SpaHGC.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.bank.varm[MEASURED_BY], bank.varm[MEASURED_BY])
    first, second = (predicted(target, None, model=one) for one in (model, loaded))
    for layer in first.layers:
        np.testing.assert_array_equal(first.layers[layer], second.layers[layer])
    pd.testing.assert_frame_equal(first.var, second.var)


def test_a_saved_model_of_the_paper_masks_as_before(
    target: AnnData, bank: AnnData, quick: Parameters, tmp_path: Path
) -> None:
    model = sp.tl.fit(bank, preset=quick, device="cpu")
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(sp.SpaHGC.load(tmp_path / "model").predict(target), model.predict(target))


def test_a_damaged_record_of_who_measured_what_is_refused(bank: AnnData, tmp_path: Path) -> None:
    from spahgc.pp._bank.content import broken_bank

    assert broken_bank(bank) is None
    for damaged in (bank.varm[MEASURED_BY][:, :2], bank.varm[MEASURED_BY].astype(float)):
        broken = bank.copy()
        broken.varm[MEASURED_BY] = damaged
        assert "genes x references" in str(broken_bank(broken))
    broken = bank.copy()
    broken.varm[MEASURED_BY] = np.zeros_like(bank.varm[MEASURED_BY])
    assert "no reference measured them" in str(broken_bank(broken))


@pytest.mark.filterwarnings("ignore:totals of spots rest on")
def test_a_bank_on_disk_keeps_it_and_takes_slides_that_lack_genes(
    target: AnnData, platforms: list[AnnData], tmp_path: Path
) -> None:
    path = tmp_path / "bank.zarr"
    first, last = [platforms[0], platforms[2]], platforms[1]
    sp.pp.reference_bank(first, genes="union", n_transcriptome=10, path=path)
    shared = sp.pp.open_bank(path).uns["spahgc"]["bank"]["transcriptome"]
    kept = list(dict.fromkeys([*shared, *last.var_names]))
    further = AnnData(
        csr_matrix(np.random.default_rng(0).poisson(2.0, size=(last.n_obs, len(kept)))).astype(np.float32),
        obs=last.obs.copy(),
        var=pd.DataFrame(index=kept),
        obsm=dict(last.obsm),
        uns=last.uns,
    )
    bank = sp.pp.reference_bank(further, path=path, append=True)
    names = bank.uns["spahgc"]["bank"]["slides"]
    assert names == [*sorted(map(name_of, first)), name_of(last)]
    expected = np.isin(bank.var_names, kept)
    assert not expected.all()
    np.testing.assert_array_equal(np.asarray(bank.varm[MEASURED_BY])[:, 2], expected)
    assert list(bank.var["spahgc_n_references"]) == list(np.asarray(bank.varm[MEASURED_BY]).sum(axis=1))
    found = predicted(target, path, preset=LINEAR)
    assert np.isfinite(found[:, list(bank.var_names)].layers["spahgc"]).all()
    some = [ALONE, str(shared[0])]
    of_some = predicted(target, path, preset=LINEAR, genes=some)
    assert of_some.var.loc[some, "spahgc_n_references"].tolist() == bank.var.loc[some, "spahgc_n_references"].tolist()


def test_the_graph_for_networks_of_ones_own_says_nan(bank: AnnData, target: AnnData) -> None:
    pytest.importorskip("torch_geometric")
    sp.pp.spatial_graph(target)
    sp.pp.cross_graph(target, bank)
    y = sp.pp.hetero_data(target, bank)["reference"].y.numpy()
    np.testing.assert_array_equal(np.isnan(y), np.isnan(np.asarray(bank_spots(bank).y)))
    assert np.isnan(y).any()


# The shell


@pytest.mark.parametrize("option", ["--genes", "--gene"])
def test_the_shell_takes_a_union(
    option: str, target: AnnData, platforms: list[AnnData], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target.write_h5ad(tmp_path / "target.h5ad")
    references = []
    for slide in platforms:
        path = tmp_path / f"{name_of(slide)}.h5ad"
        slide.write_h5ad(path)
        references += ["--reference", str(path)]
    output = tmp_path / "out.h5ad"
    with pytest.raises(SystemExit) as stopped:
        cli.main(
            ["predict", "--target", str(tmp_path / "target.h5ad"), *references, "--output", str(output)]
            + ["--method", "nearest", option, "union", "--json"]
        )
    out, err = capsys.readouterr()
    assert not stopped.value.code, err
    assert json.loads(out)["genes"] == 60
    assert "totals of spots rest on" in err
    written = ad.read_h5ad(output)
    assert written.var.loc[ALONE, "spahgc_n_references"] == 1 and written.var["spahgc_panel"].all()


# Refusals


def test_parameters_under_which_unmeasured_would_be_zero_are_refused(
    bank: AnnData, platforms: list[AnnData], quick: Parameters
) -> None:
    every_gene = Parameters(n_axes=8, line=True, epochs=0)
    with pytest.raises(ValueError, match="n_components=0 and n_axes=8"):
        sp.tl.fit(bank, preset=every_gene, device="cpu")
    with pytest.raises(ValueError, match="n_components=0 and n_retrieved=10"):
        sp.tl.fit(bank, preset=replace(quick, n_retrieved=10), device="cpu")
    with pytest.raises(ValueError, match="n_components=0 and n_axes=8"):
        sp.tl.cross_validate(platforms, methods=["ridge", "spahgc"], genes="union", preset=every_gene, device="cpu")


def test_references_that_share_too_little_are_refused(platforms: list[AnnData]) -> None:
    names = list(platforms[0].var_names)
    few = [platforms[0][:, names[:30]].copy(), platforms[2][:, [n for n in names[25:50] if n != ALONE]].copy()]
    with pytest.raises(ValueError, match="these share [45] .*10 are needed"):
        sp.pp.reference_bank(few, genes="union")
    with pytest.raises(ValueError, match="10 are needed"):
        sp.tl.cross_validate([*few, platforms[1]], methods=["mean"], genes="union")


def test_a_reference_without_a_gene_of_the_panel_is_refused(platforms: list[AnnData]) -> None:
    wide, narrow, _ = platforms
    silent = narrow.copy()
    silent.X = csr_matrix(silent.X)
    dense = np.zeros(silent.shape, dtype=np.float32)
    dense[:2] = 1  # seen at two spots, where three are needed
    silent.X = csr_matrix(dense)
    with pytest.raises(ValueError, match=f'no gene that "{name_of(silent)}" measured'):
        sp.pp.reference_bank([wide, silent], genes="union")


def test_words_that_mean_nothing_and_banks_of_shared_genes_are_refused(target: AnnData, refs: list[AnnData]) -> None:
    with pytest.raises(ValueError, match='genes="unio" is not known.*"union" for references of different'):
        sp.tl.predict(target, refs, genes="unio", method="mean")
    bank = sp.pp.reference_bank(refs)
    with pytest.raises(ValueError, match=r'Make it with spahgc.pp.reference_bank\(refs, genes="union"\)'):
        sp.tl.predict(target, bank, genes="union", method="mean")


@pytest.mark.filterwarnings("ignore:totals of spots rest on")
def test_where_no_gene_is_of_two_references_nothing_is_told_of_trust(target: AnnData, platforms: list[AnnData]) -> None:
    wide, narrow, _ = platforms
    bank = sp.pp.reference_bank([wide, narrow], genes="union")
    only = [name for name, n in bank.var["spahgc_n_references"].items() if n == 1]
    # Each of the two measured other genes of this panel, as far as the bank says.
    bank = bank[:, only].copy()
    known = np.zeros((len(only), 2), dtype=bool)
    known[::2, 0], known[1::2, 1] = True, True
    bank.varm[MEASURED_BY] = known
    with pytest.warns(UserWarning, match="nothing is told of trust"):
        model = sp.tl.fit(bank, preset=LINEAR, device="cpu")
    assert model.trust is None
    with pytest.warns(UserWarning, match="nothing is told of trust"), pytest.raises(ValueError, match="by two of its"):
        sp.tl.predict(target, bank, preset=LINEAR, intervals=0.9, device="cpu")
