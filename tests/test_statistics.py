"""Statistics of a comparison of methods: intervals hold what they promise, tests are scipy's, ceilings are known ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix
from scipy.stats import wilcoxon

from spahgc._slides.measured import MeasuredSlide, log_expression
from spahgc.tl._cross_validation import statistics as _statistics
from spahgc.tl._cross_validation.ceiling import _split_correlation, noise_ceiling, slide_ceilings
from spahgc.tl._cross_validation.statistics import (
    ceiling_share,
    compare,
    expanded_interval,
    mean_score,
    resampled_means,
    signed_rank_p,
    summarize,
)
from spahgc.tl._evaluate import correlation

SLIDE_SD, GENE_SD, NOISE_SD = 0.1, 0.1, 0.1


def normal_scores(rng: np.random.Generator, n_slides: int, n_genes: int, mean: float) -> np.ndarray:
    slide = rng.normal(scale=SLIDE_SD, size=(n_slides, 1))
    gene = rng.normal(scale=GENE_SD, size=(1, n_genes))
    return mean + slide + gene + rng.normal(scale=NOISE_SD, size=(n_slides, n_genes))


def tidy(matrices: dict[str, np.ndarray]) -> pd.DataFrame:
    parts = []
    for method, matrix in matrices.items():
        slides, genes = np.indices(matrix.shape)
        parts.append(
            pd.DataFrame(
                {
                    "method": method,
                    "slide": [f"s{place}" for place in slides.ravel()],
                    "gene": [f"g{place:03d}" for place in genes.ravel()],
                    "pearson": matrix.ravel(),
                    "spearman": matrix.ravel() / 2,
                    "rmse": 1.0,
                    "ceiling": 0.8,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("n_slides", [4, 12])
def test_the_interval_covers_the_truth_about_as_often_as_it_says_and_is_not_just_wide(n_slides):
    rng, n_genes, n_repeats = np.random.default_rng(0), 40, 150
    covered, width = 0, []
    for _ in range(n_repeats):
        samples, _ = resampled_means(normal_scores(rng, n_slides, n_genes, 0.3), n_bootstrap=300, rng=rng)
        low, high = expanded_interval(samples, n_slides)
        covered += low <= 0.3 <= high
        width.append(high - low)
    # 150 draws at 95 % fall below 0.89 once in a thousand.
    assert covered / n_repeats >= 0.89
    true_sd = np.sqrt(SLIDE_SD**2 / n_slides + GENE_SD**2 / n_genes + NOISE_SD**2 / (n_slides * n_genes))
    assert np.mean(width) < 1.5 * 2 * 1.96 * true_sd


def test_genes_alone_would_give_an_interval_that_is_too_narrow():
    rng = np.random.default_rng(1)
    scores = normal_scores(rng, 6, 200, 0.3)
    pooled, by_slide = resampled_means(scores, n_bootstrap=500, rng=rng)
    assert pooled.std() > 2 * by_slide.mean(axis=1).std()


def test_resampling_in_blocks_draws_as_many_genes_as_there_are(monkeypatch):
    monkeypatch.setattr(_statistics, "BLOCK_DRAWS", 70)
    drawn = np.concatenate(list(_statistics._draws(np.random.default_rng(0), 50, 20)))
    assert drawn.shape == (50, 20)
    assert (drawn.sum(axis=1) == 20).all()
    assert len(np.unique(drawn, axis=0)) == 50


def test_resampled_means_of_equal_scores_are_that_score_whatever_is_undefined():
    scores = np.full((4, 30), 0.25)
    scores[1, ::2] = np.nan
    scores[2] = np.nan
    pooled, by_slide = resampled_means(scores, n_bootstrap=100, rng=np.random.default_rng(0))
    assert pooled == pytest.approx(0.25)
    assert by_slide[:, [0, 1, 3]] == pytest.approx(0.25)
    assert np.isnan(by_slide[:, 2]).all()


def test_each_slide_counts_the_same_in_the_mean_however_many_genes_it_has():
    scores = np.array([[0.2, 0.4], [0.9, np.nan], [np.nan, np.nan]])
    assert mean_score(scores) == pytest.approx((0.3 + 0.9) / 2)
    assert np.isnan(mean_score(scores[2:]))


def test_one_unit_has_no_interval():
    assert np.isnan(expanded_interval(np.arange(100.0), 1)).all()
    assert np.isnan(expanded_interval(np.full(100, np.nan), 5)).all()


def test_the_signed_rank_test_is_that_of_scipy_for_paired_values():
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.1, 1, 80), rng.normal(size=80)
    with_gaps = np.append(a - b, [np.nan, np.nan])
    assert signed_rank_p(with_gaps) == pytest.approx(wilcoxon(a, b).pvalue, rel=1e-12)


def test_the_signed_rank_test_of_nothing_is_nan_and_of_equal_values_one():
    assert np.isnan(signed_rank_p(np.array([np.nan])))
    assert signed_rank_p(np.zeros(5)) == 1.0


def test_a_comparison_takes_the_pairs_where_both_methods_are_defined():
    rng = np.random.default_rng(3)
    a, b = normal_scores(rng, 3, 25, 0.4), normal_scores(rng, 3, 25, 0.3)
    a[0, :5], b[1, 10:] = np.nan, np.nan
    table = compare(tidy({"a": a, "b": b}), ["a", "b"], n_bootstrap=200, seed=0).set_index("slide")
    assert list(table.index) == ["all", "s0", "s1", "s2"]
    assert list(table["n"]) == [20 + 10 + 25, 20, 10, 25]
    differences = a - b
    assert table.loc["all", "p"] == pytest.approx(wilcoxon(differences[~np.isnan(differences)]).pvalue)
    for place in range(3):
        row = differences[place][~np.isnan(differences[place])]
        assert table.loc[f"s{place}", "difference"] == pytest.approx(row.mean())
        assert table.loc[f"s{place}", "p"] == pytest.approx(wilcoxon(row).pvalue)
    assert table.loc["all", "difference"] == pytest.approx(table["difference"].iloc[1:].mean())
    assert (table["low"] < table["difference"]).all() and (table["difference"] < table["high"]).all()


def test_every_two_methods_are_compared_once():
    scores = tidy({name: normal_scores(np.random.default_rng(0), 2, 5, 0) for name in "abc"})
    table = compare(scores, list("abc"), n_bootstrap=10, seed=0)
    assert set(zip(table["method"], table["other"], strict=True)) == {("a", "b"), ("a", "c"), ("b", "c")}


def test_the_summary_counts_what_is_undefined_and_does_not_take_it_for_zero():
    scores = np.full((3, 10), 0.4)
    scores[0, :4] = np.nan
    table = summarize(
        tidy({"a": scores, "none": np.full((3, 10), np.nan)}), {"a": 1.5, "none": 0.0}, n_bootstrap=50, seed=0
    )
    assert table.loc["a", ["pearson", "low", "high", "spearman"]].tolist() == pytest.approx([0.4, 0.4, 0.4, 0.2])
    assert table.loc["a", "ceiling_share"] == pytest.approx(0.5)
    assert table["n_undefined"].tolist() == [4, 30]
    assert table["seconds"].tolist() == [1.5, 0.0]
    assert table.loc["none", ["pearson", "low", "high"]].isna().all()


def test_the_share_of_the_ceiling_is_not_ruled_by_a_ceiling_next_to_zero():
    share = ceiling_share(np.array([0.4, 0.1, np.nan]), np.array([0.8, 1e-9, 0.5]))
    assert share == pytest.approx(0.5 / 0.8)


def poisson_slide(relative_sd: np.ndarray, mean: float, n_spots: int, rng: np.random.Generator):
    """Counts of genes whose expected value varies by so much, and one deep gene that holds the totals in place."""
    expected = mean * np.exp(rng.normal(size=(n_spots, len(relative_sd))) * relative_sd)
    counts = np.hstack([rng.poisson(expected), rng.poisson(1e5, size=(n_spots, 1))])
    return expected, counts


def test_the_ceiling_of_poisson_counts_is_the_root_of_their_known_reliability():
    rng = np.random.default_rng(4)
    mean, relative_sd = 40.0, np.array([0.0, 0.1, 0.2, 0.4])
    expected, counts = poisson_slide(relative_sd, mean, 3000, rng)
    ceiling = noise_ceiling(csr_matrix(counts.astype(float)), np.arange(4), rng=rng)
    # On the log scale the variance is relative_sd^2, that of the noise 1 / mean, as long as the latter is small.
    analytic = np.sqrt(relative_sd**2 / (relative_sd**2 + 1 / mean))
    assert ceiling[1:] == pytest.approx(analytic[1:], abs=0.04)
    assert ceiling[0] < 0.2
    reached = correlation(np.log(expected[:, 1:]), np.log1p(counts[:, 1:4]))
    assert ceiling[1:] == pytest.approx(reached, abs=0.04)


def test_halves_are_normalised_by_their_own_totals_over_all_genes():
    rng = np.random.default_rng(5)
    depth = 2.0 ** rng.integers(0, 6, size=(400, 1))
    counts = csr_matrix(rng.poisson(20.0 * depth, size=(400, 30)).astype(float))
    r = _split_correlation(counts[:, :3], np.asarray(counts[:, 3:].sum(axis=1)).ravel().astype(int), rng)
    # The genes differ in nothing but the spots' depth, so that nothing is left once it is taken out.
    assert np.abs(r).max() < 0.25
    assert correlation(counts[:, :1].toarray(), counts[:, 1:2].toarray())[0] > 0.8


def test_a_gene_never_seen_has_no_ceiling():
    counts = csr_matrix(np.column_stack([np.zeros(50), np.random.default_rng(6).poisson(50, 50)]).astype(float))
    assert np.isnan(noise_ceiling(counts, np.array([0]), rng=np.random.default_rng(0))).all()


def test_without_whole_counts_there_is_no_ceiling_and_one_warning(cohort):
    slides = {str(place): slide for place, slide in enumerate(cohort[:3])}
    genes = list(cohort[0].var_names[:4])
    scores = pd.DataFrame([{"slide": name, "gene": gene} for name in slides for gene in genes])
    for name in ("0", "2"):
        slides[name] = AnnData(log_expression(slides[name]), var=slides[name].var)
    measured = {name: MeasuredSlide(slide, name) for name, slide in slides.items()}
    with pytest.warns(UserWarning, match="Assumed: log1p of counts"):  # when they are first read
        assert all(slide.counts().nnz for slide in measured.values())
    with pytest.warns(UserWarning, match='"0", "2" do not hold whole numbers') as caught:
        ceiling = slide_ceilings(measured, scores, seed=0)
    assert len(caught) == 1
    assert ceiling[["0", "2"]].isna().all(axis=None)
    assert ceiling["1"].between(0, 1).all()
