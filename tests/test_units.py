"""What the values of a slide are: counts, their logarithm, scaled counts; with all genes or with some of them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData

import spahgc as sp
from spahgc._slides.measured import log_expression
from spahgc._slides.units import find_reading

GENES = slice(0, 60, 2)


@pytest.fixture(scope="module")
def _shallow() -> AnnData:
    (slide,) = sp.datasets.simulated(n_slides=1, n_patients=1, n_spots=150, n_genes=300, depth=900.0, seed=4)
    del slide.uns["spatial"]
    return slide


@pytest.fixture
def slide(_shallow) -> AnnData:
    """A slide of few counts, as Visium has them; all of its 300 genes."""
    return _shallow.copy()


@pytest.fixture
def expected(_shallow) -> np.ndarray:
    counts = _shallow.X.toarray().astype(np.float64)
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))


def assert_reads_as(slide: AnnData, expected: np.ndarray, said: str, **options) -> None:
    with pytest.warns(UserWarning, match=said) as caught:
        found = log_expression(slide, **options)
    assert len(caught) == 1
    np.testing.assert_allclose(found.toarray(), expected, rtol=2e-4, atol=1e-5)


def without_warnings(slide: AnnData, **options) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return log_expression(slide, **options).toarray()


# Genes that were chosen after the logarithm.


@pytest.mark.parametrize("total", [1e4, None, 1e6, 3000.0])
def test_genes_chosen_after_log1p_are_not_logged_again(slide, expected, total):
    sc.pp.normalize_total(slide, target_sum=total)
    sc.pp.log1p(slide)
    assert_reads_as(slide[:, GENES].copy(), expected[:, GENES], "Assumed: some genes of log1p of counts scaled to")


def test_the_same_is_read_without_a_note_of_scanpy_and_in_double_precision(slide, expected):
    slide.X = slide.X.astype(np.float64)
    sc.pp.normalize_total(slide, target_sum=1e4)
    sc.pp.log1p(slide)
    slide.uns.clear()
    assert_reads_as(slide[:, GENES].copy(), expected[:, GENES], "scaled to 10,000 in all genes; rescaled to")


def test_genes_chosen_after_scaling_without_a_logarithm_are_scaled_by_the_same_total(slide, expected):
    sc.pp.normalize_total(slide, target_sum=1e4)
    assert_reads_as(slide[:, GENES].copy(), expected[:, GENES], "Assumed: some genes of counts scaled to 10,000 in all")


def test_a_known_library_size_tells_the_total_that_counts_were_scaled_to(slide, expected):
    slide.obs["total_counts"] = np.asarray(slide.X.sum(axis=1)).ravel()
    sc.pp.normalize_total(slide, target_sum=7654.321)
    sc.pp.log1p(slide)
    assert_reads_as(slide[:, GENES].copy(), expected[:, GENES], r"scaled to 7,654.32 in all genes")


def test_a_variable_panel_of_scanpy_is_read_in_the_bank(slide, expected):
    slide.obsm["X_mine"] = slide.obsm["truth_domains"]
    whole = sp.pp.reference_bank(slide, genes=list(slide.var_names[GENES]), embedding="X_mine")
    sc.pp.normalize_total(slide)
    sc.pp.log1p(slide)
    part = slide[:, GENES].copy()
    with pytest.warns(UserWarning, match="some genes of log1p"):
        bank = sp.pp.reference_bank(part, genes=list(part.var_names), embedding="X_mine")
    np.testing.assert_allclose(bank.X.toarray(), whole.X.toarray(), rtol=2e-4, atol=1e-5)


# Other logarithms.


def test_log1p_of_counts_is_undone(slide, expected):
    sc.pp.log1p(slide)
    assert_reads_as(slide, expected, "Assumed: log1p of counts, which were never scaled")


def test_a_gene_subset_of_log1p_of_counts_keeps_the_library_size(slide, expected):
    slide.obs["spahgc_total_counts"] = np.asarray(slide.X.sum(axis=1)).ravel()
    sc.pp.log1p(slide)
    assert_reads_as(slide[:, GENES].copy(), expected[:, GENES], "log1p of counts, which were never scaled")


def test_genes_of_log1p_of_counts_are_selected_as_of_counts(slide):
    panel = sp.pp.select_genes(slide, n_top=40)
    sc.pp.log1p(slide)
    with pytest.warns(UserWarning, match="log1p of counts"):
        assert sp.pp.select_genes(slide, n_top=40) == panel


@pytest.mark.parametrize("genes", [slice(None), GENES])
def test_the_base_of_a_logarithm_is_taken_from_scanpys_note(slide, expected, genes):
    sc.pp.normalize_total(slide, target_sum=1e4)
    sc.pp.log1p(slide, base=2)
    assert_reads_as(slide[:, genes].copy(), expected[:, genes], "log1p of counts scaled to")


def test_log2_of_counts_is_undone(slide, expected):
    sc.pp.log1p(slide, base=2)
    assert_reads_as(slide, expected, "log1p of counts, which were never scaled")


def test_a_layer_of_counts_is_taken_where_the_values_are_made_of_it(slide, expected):
    slide.layers["counts"] = slide.X.copy()
    factors = np.random.default_rng(0).lognormal(0, 0.3, slide.n_obs)[:, None]  # size factors of scran
    slide.X = np.log1p(slide.X.toarray() / factors)
    assert_reads_as(slide, expected, 'values made of the counts in layers."counts"., which are taken in their place')


def test_a_layer_of_counts_is_not_taken_for_values_that_are_not_made_of_it(slide):
    slide.layers["counts"] = slide.X.copy()
    slide.X = np.minimum(slide.X.toarray() * np.random.default_rng(0).uniform(0.5, 1, slide.shape), 20)
    with pytest.raises(ValueError, match="nothing tells what its values are"):
        log_expression(slide)


# Where nothing tells.


def corrected(slide: AnnData) -> np.ndarray:
    return np.minimum(slide.X.toarray() * np.random.default_rng(0).uniform(0.5, 1, slide.shape), 20)


def test_values_that_may_be_either_are_refused_with_both_ways_out(slide):
    slide.X = corrected(slide)
    with pytest.raises(
        ValueError, match=r'X of the slide does not hold whole numbers, .* layer= .*units="counts".*"log1p"'
    ):
        log_expression(slide)


def test_counts_scaled_to_nearly_nothing_are_no_counts_of_nothing(slide, expected):
    slide.X = slide.X * 1e-12
    with pytest.warns(UserWarning, match="does not hold whole numbers"):
        found = log_expression(slide)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-4)


def test_a_note_of_a_logarithm_without_its_total_is_refused(slide):
    slide.X = np.log1p(corrected(slide))
    slide.uns["log1p"] = {"base": None}
    with pytest.raises(ValueError, match='uns."log1p". says that a logarithm was taken, not to which total'):
        log_expression(slide)


def test_corrected_counts_are_counts_where_units_say_so(slide):
    slide.X = corrected(slide)
    counts = np.asarray(slide.X)
    expected = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(without_warnings(slide, units="counts"), expected, rtol=1e-5)


def test_corrected_counts_too_large_for_a_logarithm_need_no_units(slide):
    slide.X = slide.X.toarray() * np.random.default_rng(0).uniform(10.5, 11, slide.shape)
    counts = np.asarray(slide.X)
    expected = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    assert_reads_as(slide, expected, "Assumed: corrected counts; normalised to")


# What units= says.


def test_units_log1p_take_the_total_of_the_package_where_nothing_shows_another(slide):
    slide.X = np.log1p(corrected(slide))
    assert_reads_as(
        slide, slide.X, "nothing tells to which total its counts were scaled. Assumed: 10,000", units="log1p"
    )


def test_units_normalized_take_the_total_that_the_values_show(slide, expected):
    sc.pp.normalize_total(slide, target_sum=5000)
    np.testing.assert_allclose(
        without_warnings(slide[:, GENES].copy(), units="normalized"), expected[:, GENES], rtol=2e-4, atol=1e-5
    )


def test_units_log1p_of_all_genes_need_no_warning(slide, expected):
    sc.pp.normalize_total(slide, target_sum=5000)
    sc.pp.log1p(slide)
    np.testing.assert_allclose(without_warnings(slide, units="log1p"), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("units", "change", "message"),
    [
        ("cpm", 1, 'units="cpm" is not known. Pass "counts"'),
        ("counts", -1, "negative values, which are no counts"),
        ("log1p", 1000, "no log1p is larger than 30"),
    ],
)
def test_units_that_cannot_be_are_refused(slide, units, change, message):
    slide.X = slide.X * change
    with pytest.raises(ValueError, match=message):
        log_expression(slide, units=units)


def test_every_function_that_takes_a_layer_takes_units():
    import inspect

    rooms = (sp.pp, sp.tl, sp.pl, sp.SpaHGC)
    functions = [getattr(room, name) for room in rooms for name in dir(room) if not name.startswith("_")]
    with_layer = [f for f in functions if callable(f) and "layer" in inspect.signature(f).parameters]
    assert len(with_layer) > 8
    assert not [f.__name__ for f in with_layer if "units" not in inspect.signature(f).parameters]


def test_whole_counts_are_read_as_they_are_and_nothing_is_said(slide, expected):
    slide.uns["log1p"] = {"base": None}  # a note that stayed from another X
    np.testing.assert_allclose(without_warnings(slide), expected, rtol=1e-5)
    values, reading = find_reading(slide, None, None, "the slide")
    assert reading.units == "counts" and (values != slide.X).nnz == 0


def test_cross_validation_and_evaluation_take_units(refs):
    for slide in refs:
        slide.X = slide.X.toarray() * np.random.default_rng(0).uniform(0.01, 0.02, slide.shape)
    with pytest.raises(ValueError, match="nothing tells"):
        sp.tl.cross_validate(refs, methods=["mean"], n_bootstrap=10)
    with pytest.warns(UserWarning, match="no noise ceiling"):
        result = sp.tl.cross_validate(refs, methods=["ridge"], units="counts", n_bootstrap=10)
    assert np.isfinite(result.summary.loc["ridge", "rmse"])
    sp.tl.predict(refs[0], refs[1:], method="ridge", units="counts")
    assert np.isfinite(sp.tl.evaluate(refs[0], units="counts")["rmse"]).all()
