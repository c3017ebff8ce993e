"""Intervals of values and correlations, and genes trusted at a rate of false discoveries."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc._linear.conformal import GRID, GroupScores
from spahgc._linear.expected import SHARES
from spahgc._linear.forecast import GeneForecast, ValueForecast
from spahgc._linear.spread import Spread
from spahgc._parameters import Parameters

LINEAR = Parameters(n_axes=8, n_components=4, weigh_genes=True, line=True, epochs=0)
SLIDES = np.repeat(["a", "b", "c", "d"], 200)
SUPPORT = np.full(len(SLIDES), np.nan)


# Split conformal prediction over groups.


def test_many_groups_give_the_quantile_of_their_scores():
    rng = np.random.default_rng(0)
    scores = GroupScores.fit([[rng.uniform(size=2_000)] for _ in range(200)])
    assert scores.quantile(0.9, unseen=1.5)[0] == pytest.approx(0.9, abs=0.02)


def test_few_groups_widen_an_interval_by_the_group_that_is_not_known():
    rng = np.random.default_rng(0)
    few, many = (GroupScores.fit([[rng.uniform(size=2_000)] for _ in range(n)]) for n in (2, 40))
    assert (
        few.quantile(0.9, unseen=1.5)[0] > many.quantile(0.9, unseen=1.5)[0] > few.quantile(0.9, unseen=1.0)[0] - 0.02
    )
    # A third of the mixture lies one and a half times as far.
    found = few.quantile(0.9, unseen=1.5)[0]
    assert 2 / 3 * min(found, 1) + 1 / 3 * found / 1.5 == pytest.approx(0.9, abs=0.02)


def test_a_quantile_and_the_share_below_it_are_inverse():
    rng = np.random.default_rng(1)
    scores = GroupScores.fit([[rng.normal(size=900)], [rng.normal(1, 2, size=900)]])
    for share in (0.05, 0.5, 0.9):
        value = scores.quantile(share, unseen=1.3, factor=2.0)[0]
        assert scores.share_below(np.array(value), unseen=1.3, factor=2.0) == pytest.approx(share, abs=0.01)


def test_every_group_weighs_the_same_however_large_it_is():
    small, large = np.full(10, 1.0), np.full(10_000, 3.0)
    scores = GroupScores.fit([[small], [large]])
    assert 1 <= scores.quantile(0.4, unseen=1.0)[0] <= 1.1
    assert 2.9 <= scores.quantile(0.6, unseen=1.0)[0] <= 3


def test_scores_that_are_all_alike_or_missing_have_a_quantile():
    scores = GroupScores.fit([[np.zeros(5), np.full(3, np.nan)]])
    assert np.isfinite(scores.quantile(0.9, unseen=1.2)).all()
    assert scores.quantiles.shape == (1, 2, len(GRID))


# Values.


def noisy(sizes: dict[str, float], n_genes: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Measurements and predictions of four slides, off by so much each."""
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0, 2, size=(len(SLIDES), n_genes))
    size = np.array([sizes[name] for name in SLIDES])[:, None]
    return predicted + size * rng.standard_t(4, size=predicted.shape), predicted


def test_an_interval_holds_its_share_of_a_slide_like_the_references():
    measured, predicted = noisy(dict.fromkeys("abcd", 0.5))
    known, new = SLIDES != "d", SLIDES == "d"
    spread = Spread.fit(measured[known], predicted[known], SLIDES[known])
    of_known = (x[known] for x in (SLIDES, SLIDES, SUPPORT))
    forecast = ValueForecast.fit(measured[known], predicted[known], spread, *of_known)
    for level in (0.5, 0.8, 0.9):
        half = spread(predicted[new]) * forecast.widths(level, unseen=1.0, factor=1.0)
        assert np.mean(np.abs(measured[new] - predicted[new]) <= half) == pytest.approx(level, abs=0.02)


def test_the_width_grows_where_support_is_low():
    measured, predicted = noisy(dict.fromkeys("abcd", 0.5))
    support = np.tile(np.linspace(0.005, 1, 200), 4)
    measured += (measured - predicted) * (support < 0.1)[:, None]
    spread = Spread.fit(measured, predicted, SLIDES)
    growth = ValueForecast.fit(measured, predicted, spread, SLIDES, SLIDES, support).growth(np.array([0.001, 0.1, 1.0]))
    assert growth[0] > growth[1] > growth[2] > 0
    # Some growth is assumed where references show none.
    even = ValueForecast.fit(*noisy(dict.fromkeys("abcd", 0.5)), spread, SLIDES, SLIDES, support)
    assert even.growth(np.array([0.001]))[0] > even.growth(np.array([1.0]))[0]


def test_spots_whose_support_is_not_known_have_the_spread_of_their_gene():
    measured, predicted = noisy(dict.fromkeys("abcd", 0.5))
    spread = Spread.fit(measured, predicted, SLIDES)
    forecast = ValueForecast.fit(measured, predicted, spread, SLIDES, SLIDES, SUPPORT)
    np.testing.assert_array_equal(forecast.growth(np.array([np.nan, np.nan])), 1)


# Correlations.


def test_a_gene_s_correlation_follows_what_is_predicted_of_it_on_the_slide():
    rng = np.random.default_rng(0)
    true, amount = rng.normal(size=(len(SLIDES), 200)), rng.uniform(0.1, 0.9, size=(4, 200))
    on_slide = amount[np.searchsorted(["a", "b", "c", "d"], SLIDES)]
    measured = on_slide * true + np.sqrt(1 - on_slide**2) * rng.normal(size=true.shape)
    forecast = GeneForecast.fit(measured, on_slide * true, SLIDES, SLIDES)
    expected = np.tanh(forecast.expected(np.linspace(0.1, 0.9, 200)))
    assert np.corrcoef(expected, np.linspace(0.1, 0.9, 200))[0, 1] > 0.95


def test_a_small_slide_has_a_wider_interval():
    measured, predicted = noisy(dict.fromkeys("abcd", 0.5))
    forecast = GeneForecast.fit(measured, predicted, SLIDES, SLIDES)
    assert forecast.deviation(40) > forecast.deviation(4_000) > 0


# In a prediction.


@pytest.fixture(scope="module")
def predicted() -> AnnData:
    slide, *refs = sp.datasets.simulated(n_slides=5, n_patients=2, n_spots=100, n_genes=60, n_domains=3, seed=5)
    for one in (slide, *refs):
        one.obsm["X_domains"] = one.obsm["truth_domains"]
    sp.tl.predict(slide, refs, genes="all", embedding="X_domains", preset=LINEAR, intervals=0.9)
    sp.tl.evaluate(slide)
    return slide


def test_intervals_hold_their_share_of_what_was_measured(predicted):
    counts = predicted.X.toarray() if hasattr(predicted.X, "toarray") else predicted.X
    measured = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    low, high = predicted.layers["spahgc_low"], predicted.layers["spahgc_high"]
    panel = predicted.var["spahgc_panel"].to_numpy()
    assert 0.8 < np.mean((measured >= low)[:, panel] & (measured <= high)[:, panel]) < 0.99
    assert (low[:, panel] >= 0).all() and low.dtype == np.float32
    assert np.isnan(low[:, ~panel]).all()
    assert predicted.uns["spahgc"]["predictions"]["spahgc"]["trust"]["intervals"] == 0.9


def test_a_higher_level_is_wider(predicted):
    slide, *refs = sp.datasets.simulated(n_slides=3, n_spots=60, n_genes=30, n_domains=3)
    for one in (slide, *refs):
        one.obsm["X_domains"] = one.obsm["truth_domains"]
    model = sp.tl.fit(refs, genes="all", embedding="X_domains", preset=LINEAR)
    narrow, wide = (sp.tl.predict(slide, model=model, intervals=level, copy=True) for level in (0.6, 0.95))
    assert (narrow.layers["spahgc_high"] <= wide.layers["spahgc_high"]).all()
    assert (narrow.layers["spahgc_low"] >= wide.layers["spahgc_low"]).all()


def test_interval_of_a_correlation_holds_what_is_expected(predicted):
    columns = predicted.var[["spahgc_cv_pcc_low", "spahgc_cv_pcc", "spahgc_cv_pcc_high"]].dropna().to_numpy()
    assert len(columns) and (np.diff(columns, axis=1) >= 0).all()
    reached = predicted.var["spahgc_pearson"].loc[predicted.var["spahgc_cv_pcc"].notna()].to_numpy()
    inside = (reached >= columns[:, 0]) & (reached <= columns[:, 2])
    assert inside[np.isfinite(reached)].mean() > 0.8


@pytest.mark.parametrize("level", [0.4, 1.0, 90, True, -0.1])
def test_a_level_that_is_none_is_refused_before_anything_is_fitted(level):
    with pytest.raises(ValueError, match=rf"intervals={level} is no level. Pass a number between 0\.5 and 0\.99"):
        sp.tl.predict(AnnData(np.zeros((3, 2))), [AnnData(np.zeros((3, 2)))], intervals=level)


@pytest.mark.parametrize("arguments", [{"trust": False}, {"method": "ridge"}, {"preset": "paper"}])
def test_intervals_of_what_tells_no_trust_are_refused(arguments):
    with pytest.raises(ValueError, match="intervals= come from references held out in turn"):
        sp.tl.predict(AnnData(np.zeros((3, 2))), [AnnData(np.zeros((3, 2)))], intervals=0.9, **arguments)


# Genes at a rate of false discoveries.


def with_residuals(pcc: list[float], deviation: float) -> AnnData:
    """A slide of which so much is expected, off by normal residuals."""
    from scipy.special import ndtri

    slide = AnnData(np.zeros((3, len(pcc)), dtype=np.float32))
    slide.layers["spahgc"] = slide.X.copy()
    slide.var["spahgc_cv_pcc"] = pcc
    slide.uns["spahgc"] = {"predictions": {"spahgc": {"trust": {"z_residuals": deviation * ndtri(SHARES)}}}}
    return slide


def test_as_many_genes_are_returned_as_keep_the_rate():
    slide = with_residuals([0.8, 0.4, 0.3, 0.2, 0.1, np.nan], deviation=0.1)
    assert sp.tl.trusted_genes(slide, fdr=0.01) == ["0", "1"]
    # Of the third gene 14 % miss, of the fourth a half: in the mean over four 16 %.
    assert sp.tl.trusted_genes(slide, fdr=0.1) == ["0", "1", "2"]
    assert sp.tl.trusted_genes(slide, fdr=0.2) == ["0", "1", "2", "3"]


def test_the_less_is_known_the_fewer_genes_are_trusted():
    sure, unsure = (with_residuals([0.5, 0.4, 0.3], deviation) for deviation in (0.02, 0.5))
    assert len(sp.tl.trusted_genes(sure, fdr=0.1)) == 3
    assert sp.tl.trusted_genes(unsure, fdr=0.1) == []


def test_trusted_genes_keep_what_they_promise(predicted):
    trusted = sp.tl.trusted_genes(predicted, fdr=0.1, min_pcc=0.2)
    reached = predicted.var["spahgc_pearson"]
    assert len(trusted) >= (reached >= 0.2).sum() / 3
    assert (reached.loc[trusted] < 0.2).mean() <= 0.2


@pytest.mark.parametrize("fdr", [0, 1, 1.5, -0.1])
def test_a_rate_that_is_none_is_refused(predicted, fdr):
    with pytest.raises(ValueError, match="is no share of false discoveries"):
        sp.tl.trusted_genes(predicted, fdr=fdr)


def test_a_rate_and_a_bound_are_not_both_asked_for(predicted):
    with pytest.raises(ValueError, match="two ways to be careful"):
        sp.tl.trusted_genes(predicted, fdr=0.1, bound=True)


def test_a_rate_needs_probabilities(predicted):
    slide = predicted.copy()
    slide.uns["spahgc"]["predictions"]["spahgc"].pop("trust")
    with pytest.raises(ValueError, match="fdr= needs probabilities"):
        sp.tl.trusted_genes(slide, fdr=0.1)
