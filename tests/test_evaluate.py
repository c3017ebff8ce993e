"""Scores: those of scipy, gene by gene; nothing invented where nothing can be said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy.sparse import csr_matrix
from scipy.stats import pearsonr, spearmanr

import spahgc as sp

SCORES = ("pearson", "spearman", "rmse", "mae", "variance_ratio", "moran_difference", "ssim")


@pytest.fixture
def slide(cohort: list[AnnData]) -> AnnData:
    """A slide with a made-up prediction of its first 20 genes, ties and all."""
    slide = cohort[0]
    rng = np.random.default_rng(0)
    predicted = np.full(slide.shape, np.nan, dtype=np.float32)
    predicted[:, :20] = np.round(log_cp10k(slide)[:, :20] + rng.normal(scale=1.0, size=(slide.n_obs, 20)), 1)
    slide.layers["spahgc"] = predicted
    slide.var["spahgc_panel"] = np.arange(slide.n_vars) < 20
    return slide


def log_cp10k(slide: AnnData) -> np.ndarray:
    other = AnnData(slide.X.astype(np.float64))
    sc.pp.normalize_total(other, target_sum=1e4)
    sc.pp.log1p(other)
    return other.X.toarray()


def gene_pairs(slide: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Correlations of every two of the first 20 genes, as predicted and as measured."""
    above = np.triu_indices(20, 1)
    sides = slide.layers["spahgc"][:, :20].astype(float), log_cp10k(slide)[:, :20]
    return tuple(np.corrcoef(side, rowvar=False)[above] for side in sides)


def without_counts(slide: AnnData, spots: list[int]) -> None:
    counts = slide.X.toarray()
    counts[spots] = 0
    slide.X = csr_matrix(counts)


def test_scores_are_those_of_scipy_gene_by_gene(slide):
    scores = sp.tl.evaluate(slide)
    measured, predicted = log_cp10k(slide), slide.layers["spahgc"].astype(float)
    assert list(scores.index) == list(slide.var_names[:20])
    for place, gene in enumerate(scores.index):
        p, m = predicted[:, place], measured[:, place]
        expected = {
            "pearson": pearsonr(p, m).statistic,
            "spearman": spearmanr(p, m).statistic,
            "rmse": np.sqrt(np.mean((p - m) ** 2)),
            "mae": np.mean(np.abs(p - m)),
            "n_spots": slide.n_obs,
        }
        assert scores.loc[gene, list(expected)].to_dict() == pytest.approx(expected, rel=1e-5), gene


def test_scores_are_written_into_var_and_are_nan_outside_the_panel(slide):
    scores = sp.tl.evaluate(slide)
    for name in SCORES:
        np.testing.assert_array_equal(slide.var[f"spahgc_{name}"][:20], scores[name])
        assert slide.var[f"spahgc_{name}"][20:].isna().all()


def test_the_summary_holds_the_means_over_genes(slide):
    scores = sp.tl.evaluate(slide)
    assert slide.uns["spahgc"]["evaluations"]["spahgc"] == pytest.approx(
        {
            "n_genes": 20,
            "n_genes_constant": 0,
            "n_spots": 70,
            "n_spots_empty": 0,
            "mean_pearson": np.mean(scores["pearson"]),
            "median_pearson": np.median(scores["pearson"]),
            "mean_spearman": np.mean(scores["spearman"]),
            "mean_rmse": np.mean(scores["rmse"]),
            "mean_mae": np.mean(scores["mae"]),
            "median_variance_ratio": np.median(scores["variance_ratio"]),
            "mean_moran_difference": np.mean(scores["moran_difference"]),
            "mean_ssim": np.mean(scores["ssim"]),
            "gene_correlation": np.corrcoef(*gene_pairs(slide))[0, 1],
            "n_genes_correlated": 20,
        }
    )


@pytest.mark.parametrize("side", ["predicted", "measured as zero", "measured"])
def test_a_constant_gene_has_no_correlation_and_is_counted(slide, side):
    if side == "predicted":
        slide.layers["spahgc"][:, 4] = 1.7
    else:
        counts = slide.X.toarray()
        counts[:, 4] = 0
        if side == "measured":
            counts[:, 4] = counts.sum(axis=1)  # half of all counts at every spot
        slide.X = csr_matrix(counts)
    scores = sp.tl.evaluate(slide)
    gene = scores.iloc[4]
    assert np.isnan(gene["pearson"]) and np.isnan(gene["spearman"])
    assert np.isfinite(gene["rmse"]) and np.isfinite(gene["mae"])
    others = scores.drop(index=scores.index[4])
    assert others["pearson"].notna().all()
    summary = slide.uns["spahgc"]["evaluations"]["spahgc"]
    assert summary["n_genes_constant"] == 1
    assert summary["n_genes"] == 20
    assert summary["mean_pearson"] == pytest.approx(others["pearson"].mean())
    assert slide.var["spahgc_pearson"].isna()[:20].sum() == 1


def test_a_prediction_of_the_mean_has_no_correlation_at_all(cohort):
    target, *refs = cohort
    sp.tl.predict(target, refs, method="mean")
    scores = sp.tl.evaluate(target)
    assert scores["pearson"].isna().all() and scores["spearman"].isna().all()
    summary = target.uns["spahgc"]["evaluations"]["spahgc"]
    assert summary["n_genes_constant"] == summary["n_genes"] == len(scores)
    assert np.isnan(summary["mean_pearson"])


def test_a_perfect_prediction_scores_one_and_a_turned_one_minus_one(slide):
    measured = log_cp10k(slide)
    slide.layers["spahgc"][:, :20] = measured[:, :20]
    slide.layers["spahgc"][:, 1] = -measured[:, 1]
    scores = sp.tl.evaluate(slide)
    assert scores["pearson"].iloc[0] == pytest.approx(1)
    assert scores["spearman"].iloc[1] == pytest.approx(-1)
    assert scores["rmse"].iloc[0] < 1e-6


@pytest.mark.filterwarnings("ignore:Some cells have zero counts")  # scanpy, here in the test
def test_spots_without_counts_are_left_out_with_a_warning(slide):
    without_counts(slide, [3, 8])
    with pytest.warns(UserWarning, match="2 spots without a single count .* are left out of the evaluation"):
        scores = sp.tl.evaluate(slide)
    kept = np.delete(np.arange(slide.n_obs), [3, 8])
    measured, predicted = log_cp10k(slide)[kept], slide.layers["spahgc"][kept].astype(float)
    assert (scores["n_spots"] == 68).all()
    assert scores["pearson"].iloc[0] == pytest.approx(pearsonr(predicted[:, 0], measured[:, 0]).statistic)
    summary = slide.uns["spahgc"]["evaluations"]["spahgc"]
    assert (summary["n_spots"], summary["n_spots_empty"]) == (68, 2)


def test_genes_outside_the_panel_have_no_row(slide):
    assert not set(sp.tl.evaluate(slide).index) & set(slide.var_names[20:])


def test_a_layer_of_ones_own_without_a_panel_is_evaluated_where_it_has_numbers(slide):
    slide.layers["mine"] = slide.layers["spahgc"]
    pd.testing.assert_frame_equal(sp.tl.evaluate(slide, key="mine"), sp.tl.evaluate(slide))
    assert "mine_pearson" in slide.var
    assert set(slide.uns["spahgc"]["evaluations"]) == {"mine", "spahgc"}


def test_counts_are_read_from_a_layer(slide):
    expected = sp.tl.evaluate(slide)
    slide.layers["counts"] = slide.X.copy()
    slide.X = csr_matrix(slide.shape)
    pd.testing.assert_frame_equal(sp.tl.evaluate(slide, layer="counts"), expected)


def test_evaluating_changes_neither_counts_nor_prediction(slide):
    counts, predicted = slide.X.toarray(), slide.layers["spahgc"].copy()
    sp.tl.evaluate(slide)
    np.testing.assert_array_equal(slide.X.toarray(), counts)
    np.testing.assert_array_equal(slide.layers["spahgc"], predicted)


def test_a_missing_prediction_is_asked_for(cohort):
    with pytest.raises(KeyError, match=r'layers\["spahgc"\] not found, layers are .*Run spahgc.tl.predict'):
        sp.tl.evaluate(cohort[0])


def test_a_slide_without_counts_is_refused(slide):
    slide.X = csr_matrix(slide.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="only 0 of 70 spots have counts: there is nothing to compare with"):
        sp.tl.evaluate(slide)


def test_a_slide_that_was_not_measured_is_refused(slide):
    slide.X = None
    with pytest.raises(ValueError, match="the slide has no X. Pass layer="):
        sp.tl.evaluate(slide)


def test_a_measurement_with_nan_is_refused(slide):
    slide.X[2, 2] = np.nan
    with pytest.raises(ValueError, match="X of the slide has 1 NaN or infinite values"):
        sp.tl.evaluate(slide)
