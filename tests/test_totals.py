"""The library size of a spot is that of the whole measurement, whatever genes are left in the object."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from scipy.sparse import csr_matrix
from tests.slide_files import write_visium

import spahgc as sp
from spahgc._slides.measured import log_expression, measured_slides
from spahgc._slides.totals import remember_library_sizes

TOTAL = "spahgc_total_counts"


def without_warnings(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return function(*args, **options)


def log_cp10k(slide: AnnData) -> np.ndarray:
    counts = slide.X.toarray().astype(np.float64)
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))


@pytest.fixture
def slide(target: AnnData) -> AnnData:
    """A slide with a prediction of a third of its genes, as noisy truth."""
    panel = np.arange(target.n_vars) % 3 == 0
    noise = np.random.default_rng(0).normal(0, 0.2, target.shape)
    target.layers["spahgc"] = np.where(panel, target.layers["truth"] + noise, np.nan).astype(np.float32)
    target.var["spahgc_panel"] = panel
    return target


def panel_of(slide: AnnData) -> AnnData:
    return slide[:, slide.var["spahgc_panel"]].copy()


# Where totals are remembered.


def test_evaluation_of_a_gene_subset_is_that_of_the_whole_slide(slide):
    expected = sp.tl.evaluate(slide.copy())
    remember_library_sizes(slide)
    found = without_warnings(sp.tl.evaluate, panel_of(slide))
    np.testing.assert_array_equal(found.to_numpy(), expected.to_numpy())


def test_a_gene_subset_keeps_the_library_size_through_a_file(slide, tmp_path):
    remember_library_sizes(slide)
    panel_of(slide).write_h5ad(tmp_path / "a.h5ad")
    panel_of(slide).write_zarr(tmp_path / "a.zarr")
    for read in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        expected = log_cp10k(slide)[:, slide.var["spahgc_panel"]]
        np.testing.assert_allclose(without_warnings(log_expression, read).toarray(), expected, rtol=1e-5)


def test_a_prediction_remembers_the_library_size(target, refs, quick):
    whole = np.asarray(target.X.sum(axis=1)).ravel()
    sp.tl.predict(target, refs, method="ridge")
    np.testing.assert_array_equal(target.obs[TOTAL], whole)
    assert target.uns["spahgc"]["library_size"]["n_genes"] == target.n_vars


def test_the_remembered_library_size_has_no_part_in_a_prediction(target, refs):
    other = target.copy()
    other.obs[TOTAL] = np.arange(1.0, target.n_obs + 1)
    predicted = [sp.tl.predict(each, refs, method="ridge", copy=True).layers["spahgc"] for each in (target, other)]
    np.testing.assert_array_equal(*predicted)


def test_an_embedding_remembers_the_library_size_and_a_subset_does_not_change_it(target):
    target.obsm["X_mine"] = target.obsm["truth_domains"]
    sp.pp.use_embedding(target, "X_mine", record={"name": "mine"})
    expected = target.obs[TOTAL].to_numpy()
    part = target[:, :10].copy()
    sp.pp.use_embedding(part, "X_mine", record={"name": "mine"})
    np.testing.assert_array_equal(part.obs[TOTAL], expected)


def test_nothing_is_remembered_of_what_is_no_count(target):
    for values in (target.X * 0.5, target.X.toarray() - 1, np.full(target.shape, np.nan)):
        target.X = values
        remember_library_sizes(target)
        assert TOTAL not in target.obs


def test_nothing_is_remembered_where_genes_are_missing_already(target):
    target.obs["total_counts"] = np.asarray(target.X.sum(axis=1)).ravel()
    part = target[:, :10].copy()
    remember_library_sizes(part)
    assert TOTAL not in part.obs


def test_nothing_is_remembered_of_the_panel_of_a_prediction(target, refs):
    sp.tl.predict(target, refs, method="ridge", genes=list(refs[0].var_names[:12]))
    del target.obs[TOTAL]
    part = target[:, target.var["spahgc_panel"]].copy()
    remember_library_sizes(part)
    assert TOTAL not in part.obs


def test_a_bank_of_subsets_is_that_of_whole_references(refs):
    genes = list(refs[0].var_names[:12])
    expected = sp.pp.reference_bank(refs, genes=genes)
    for slide in refs:
        remember_library_sizes(slide)
    parts = [refs[0][:, genes].copy(), refs[1][:, refs[1].var_names[:30]].copy(), refs[2]]
    found = without_warnings(sp.pp.reference_bank, parts, genes=genes)
    np.testing.assert_array_equal(found.X.toarray(), expected.X.toarray())


def test_cross_validation_of_subsets_compares_with_the_whole_measurement(refs):
    genes = list(refs[0].var_names[:12])
    options = {"methods": ["ridge"], "genes": genes, "n_bootstrap": 10}
    expected = sp.tl.cross_validate(refs, **options)
    for slide in refs:
        remember_library_sizes(slide)
    found = sp.tl.cross_validate([slide[:, genes].copy() for slide in refs], **options)
    # Components of fewer genes differ in the prediction, so only what is compared with is the same.
    np.testing.assert_array_equal(found.scores["n"], expected.scores["n"])
    np.testing.assert_allclose(found.ceiling, expected.ceiling, atol=0.05)


def test_a_null_model_moves_the_library_size_with_the_counts(refs):
    from spahgc.tl._cross_validation.shuffle import shuffled

    slide = refs[0]
    remember_library_sizes(slide)
    part = next(iter(measured_slides(slide[:, :12].copy()).values()))
    moved = shuffled([part], "shuffle", 0, "a")[0]
    rows = {tuple(row): total for row, total in zip(part.counts().toarray(), part.totals, strict=True)}
    assert [rows[tuple(row)] for row in moved.counts().toarray()] == moved.totals.tolist()


def test_figures_and_report_scale_a_subset_as_the_whole_slide(slide):
    from spahgc.pl._gene_values import measured_expression

    genes = list(slide.var_names[slide.var["spahgc_panel"]][:3])
    expected = measured_expression(slide, genes, None, key="spahgc")
    remember_library_sizes(slide)
    found = without_warnings(measured_expression, panel_of(slide), genes, None, key="spahgc")
    np.testing.assert_array_equal(found, expected)


def test_readers_remember_the_library_size(tmp_path):
    (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=40, n_genes=20)
    image = write_visium(tmp_path / "run", slide)
    read = sp.io.visium(tmp_path / "run", image=image)
    np.testing.assert_array_equal(read.obs[TOTAL], np.asarray(read.X.sum(axis=1)).ravel())
    np.testing.assert_array_equal(read.var[TOTAL], np.asarray(read.X.sum(axis=0)).ravel())


# Totals that do not belong to the counts.


def test_a_total_smaller_than_the_counts_is_not_used(slide):
    slide.obs[TOTAL] = np.ones(slide.n_obs)
    with pytest.warns(UserWarning, match="does not belong to its counts: 70 of 70 spots have more counts than that"):
        found = log_expression(slide)
    np.testing.assert_allclose(found.toarray(), log_cp10k(slide), rtol=1e-5)


def test_a_total_is_not_used_after_counts_were_replaced(slide):
    remember_library_sizes(slide)
    slide.X = csr_matrix(np.floor(slide.X.toarray() / 2))
    with pytest.warns(UserWarning, match="no gene was taken away, and yet there are fewer counts"):
        found = log_expression(slide)
    np.testing.assert_allclose(found.toarray(), log_cp10k(slide), rtol=1e-5)


def test_a_total_is_not_used_after_counts_were_replaced_and_genes_taken_away(slide):
    remember_library_sizes(slide)
    slide.X = csr_matrix(np.floor(slide.X.toarray() / 2))
    with pytest.warns(UserWarning, match='the counts of genes differ from var."spahgc_total_counts"'):
        log_expression(panel_of(slide))


def test_corrected_counts_of_all_genes_have_totals_of_their_own(slide):
    remember_library_sizes(slide)
    slide.X = slide.X * 0.9
    found = without_warnings(log_expression, slide, units="counts")
    np.testing.assert_allclose(found.toarray(), log_cp10k(slide), rtol=1e-5)


def test_a_subset_of_corrected_counts_is_said_to_have_lost_its_total(slide):
    remember_library_sizes(slide)
    slide.X = slide.X * 0.9
    with pytest.warns(UserWarning, match="these are no whole numbers, so something was done to them since"):
        log_expression(panel_of(slide), units="counts")


# Totals that others wrote.


@pytest.mark.parametrize("column", ["total_counts", "n_counts", "nCount_Spatial"])
def test_a_total_of_scanpy_or_seurat_is_taken_and_said(slide, column):
    expected = log_cp10k(slide)[:, slide.var["spahgc_panel"]]
    slide.obs[column] = np.asarray(slide.X.sum(axis=1)).ravel()
    with pytest.warns(UserWarning, match=f'of the counts that obs."{column}". names. Assumed: genes were taken away'):
        found = log_expression(panel_of(slide))
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-5)


def test_a_total_of_scanpy_that_fits_changes_nothing(slide):
    expected = log_expression(slide)
    sc.pp.calculate_qc_metrics(slide, percent_top=None, inplace=True)
    found = without_warnings(log_expression, slide)
    np.testing.assert_array_equal(found.toarray(), expected.toarray())


def test_a_column_that_is_no_total_is_not_taken(slide):
    slide.obs["total_counts"] = 3.0
    slide.obs["n_counts"] = "many"
    found = without_warnings(log_expression, slide)
    np.testing.assert_allclose(found.toarray(), log_cp10k(slide), rtol=1e-5)


def test_raw_counts_of_more_genes_give_the_total(slide):
    expected = log_cp10k(slide)[:, slide.var["spahgc_panel"]]
    slide.raw = slide
    found = without_warnings(log_expression, panel_of(slide))
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-5)


# Totals that nobody knows.


def test_a_panel_of_a_prediction_without_totals_is_said(target, refs):
    sp.tl.predict(target, refs, method="ridge", genes=list(refs[0].var_names[:12]))
    for holder in (target.obs, target.var):
        del holder[TOTAL]
    part = target[:, target.var["spahgc_panel"]].copy()
    with pytest.warns(
        UserWarning, match="the slide holds 12 genes, all of the panel, and its references .* in 60 or more"
    ):
        sp.tl.evaluate(part)


def test_a_targeted_panel_of_references_and_target_is_nothing_to_warn_of(target, refs):
    genes = list(refs[0].var_names[:12])
    target, *refs = (slide[:, genes].copy() for slide in (target, *refs))
    sp.tl.predict(target, refs, method="ridge", genes=genes)
    without_warnings(sp.tl.evaluate, target)


def test_references_of_different_genes_are_said_to_have_different_totals(refs):
    genes = list(refs[0].var_names[:12])
    with pytest.warns(
        UserWarning, match=r'"P2S1" holds 12 genes and ".*" 60; .* of the counts .*about .* times as high'
    ):
        sp.pp.reference_bank([refs[0][:, genes].copy(), *refs[1:]], genes=genes)


def test_references_that_lack_genes_of_hardly_any_count_are_nothing_to_warn_of(refs):
    rare = np.argsort(np.asarray(refs[0].X.sum(axis=0)).ravel())[:6]
    refs[0] = refs[0][:, np.setdiff1d(np.arange(60), rare)].copy()
    without_warnings(sp.pp.reference_bank, refs, genes=list(refs[0].var_names[:12]))


def test_an_inner_join_keeps_the_library_size(refs):
    genes = list(refs[0].var_names[:12])
    expected = sp.pp.reference_bank(refs[:2], genes=genes)
    for slide in refs:
        remember_library_sizes(slide)
    joined = ad.concat([refs[0][:, genes].copy(), refs[1]], uns_merge="same")
    found = without_warnings(sp.pp.reference_bank, joined, genes=genes)
    np.testing.assert_array_equal(found.X.toarray(), expected.X.toarray())


def test_the_way_out_of_a_layer_too_large_keeps_the_evaluation(target, refs, monkeypatch):
    genes = list(refs[0].var_names[:12])
    whole = target.copy()
    sp.tl.predict(whole, refs, method="ridge", genes=genes)
    expected = sp.tl.evaluate(whole)
    monkeypatch.setattr(sp.settings, "max_dense_gb", 70 * 30 * 4 / 1e9)
    with pytest.raises(ValueError, match=r'write target.obs\["spahgc_total_counts"\] = target.X.sum\(axis=1\) first'):
        sp.tl.predict(target, refs, method="ridge", genes=genes)
    target.obs["spahgc_total_counts"] = target.X.sum(axis=1)
    small = target[:, genes].copy()
    sp.tl.predict(small, refs, method="ridge", genes=genes)
    np.testing.assert_array_equal(without_warnings(sp.tl.evaluate, small).to_numpy(), expected.to_numpy())
