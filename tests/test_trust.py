"""Which genes, values and spots of a prediction can be trusted, told from references that were held out in turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from anndata import AnnData
from safetensors.numpy import load, save
from scipy.sparse import csr_matrix
from sklearn.metrics import roc_auc_score
from tests.conftest import EMBEDDING, add_embedding

import spahgc as sp
from spahgc._keys import Layers, Obs, Var
from spahgc._linear.trust import Correlation, Spread, Trust, held_out_predictions, held_out_trust
from spahgc._parameters import Parameters
from spahgc._spots import support as _support
from spahgc._spots.rows import Spots
from spahgc._spots.support import Support
from spahgc._training.graphs import bank_spots
from spahgc.pp._bank.references import as_bank, embedding_blocks
from spahgc.tl._trusted import trusted_genes

LINEAR = Parameters(n_axes=16, n_components=4, weigh_genes=True, line=True, epochs=0)
SLIDES = np.repeat(["a", "b", "c"], [60, 80, 100])


def make_spots(slides: list[AnnData]) -> tuple[Spots, tuple[tuple[int, int], ...]]:
    """Spots and blocks of slides as a fit sees them, with all genes as the panel."""
    bank = as_bank(slides, genes="all", embedding=EMBEDDING, layer=None, parameters=LINEAR)
    return bank_spots(bank), embedding_blocks(bank)


def make_trust(spots: Spots, blocks: tuple[tuple[int, int], ...]) -> tuple[Trust, np.ndarray]:
    """Trust in these references, and what each of them got from the others."""
    return held_out_trust(spots, blocks, LINEAR), held_out_predictions(spots, blocks, LINEAR)


def noisy(n_genes: int = 50, noise: float = 1.0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Measurements and predictions of three slides, with noise of every spot and a shift of every slide and gene."""
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0, 2, size=(len(SLIDES), n_genes))
    shifts = shift * rng.normal(size=(3, n_genes))[np.searchsorted(["a", "b", "c"], SLIDES)]
    return predicted + shifts + noise * rng.normal(size=predicted.shape), predicted


def root_mean_square(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


# Predictions of references held out.


def test_held_out_prediction_ignores_the_references_own_expression(cohort: list[AnnData]):
    spots, blocks = make_spots(cohort)
    _, before = make_trust(spots, blocks)
    own = spots.slide == "P1S1"
    y, transcriptome = spots.y.copy(), spots.transcriptome.toarray()
    y[own], transcriptome[own] = y[own][::-1] + 1, transcriptome[own][::-1] + 1
    _, after = make_trust(replace(spots, y=y, transcriptome=csr_matrix(transcriptome)), blocks)
    np.testing.assert_array_equal(before[own], after[own])
    assert not np.allclose(before[~own], after[~own])


@pytest.mark.parametrize("n_references", [1, 2])
def test_one_or_two_references_are_enough(cohort: list[AnnData], n_references: int):
    spots, blocks = make_spots(cohort[:n_references])
    trust, predicted = make_trust(spots, blocks)
    assert np.isfinite(predicted).all()
    assert np.nanmedian(trust.correlation.pcc) > 0.1
    assert (trust.correlation.high[~np.isnan(trust.correlation.pcc)] > -1).all()
    assert np.isfinite(trust.spread(predicted)).all()
    assert np.isfinite(trust.support(spots.z, spots.z)).all()


def test_model_without_a_linear_part_is_refused(refs: list[AnnData]):
    spots, blocks = make_spots(refs)
    with pytest.raises(ValueError, match=r"n_axes=0 makes a model without a linear part"):
        held_out_trust(spots, blocks, Parameters())


# PCC of a gene.


def test_pcc_of_a_gene_is_the_random_effects_mean_of_fishers_z():
    measured, predicted = noisy(n_genes=20, noise=1.5)
    measured[SLIDES == "a"] -= 0.5 * predicted[SLIDES == "a"]  # so that the slides differ
    found = Correlation.fit(measured, predicted, SLIDES)
    n = np.array([60, 80, 100])
    for gene in range(20):
        z = np.arctanh([np.corrcoef(measured[SLIDES == s, gene], predicted[SLIDES == s, gene])[0, 1] for s in "abc"])
        w = n - 3.0
        q = np.sum(w * (z - np.sum(w * z) / np.sum(w)) ** 2)
        between = max(0.0, (q - 2) / (np.sum(w) - np.sum(w**2) / np.sum(w)))
        v = 1 / (1 / w + between)
        mean, error = np.sum(v * z) / np.sum(v), 1 / np.sqrt(np.sum(v))
        expected = np.tanh([mean, mean - 1.96 * error, mean + 1.96 * error])
        actual = [found.pcc[gene], found.low[gene], found.high[gene]]
        np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_interval_is_wider_where_slides_disagree():
    measured, predicted = noisy(n_genes=30)
    agree = Correlation.fit(measured, predicted, SLIDES)
    measured[SLIDES == "a"] = 2 - measured[SLIDES == "a"]
    differ = Correlation.fit(measured, predicted, SLIDES)
    assert (differ.high - differ.low > 1.5 * (agree.high - agree.low)).all()


def test_slide_on_which_a_gene_is_constant_says_nothing_of_it():
    measured, predicted = noisy(n_genes=3)
    measured[SLIDES == "b", 1] = 0.7
    measured[:, 2] = 0.7
    found = Correlation.fit(measured, predicted, SLIDES)
    rest = SLIDES != "b"
    alone = Correlation.fit(measured[rest], predicted[rest], SLIDES[rest])
    assert found.pcc[0] != alone.pcc[0]
    np.testing.assert_allclose([found.pcc[1], found.low[1]], [alone.pcc[1], alone.low[1]])
    assert np.isnan([found.pcc[2], found.low[2], found.high[2]]).all()


def test_genes_that_the_image_shows_have_the_higher_pcc(refs: list[AnnData]):
    spots, blocks = make_spots(refs)
    trust, _ = make_trust(spots, blocks)
    genes = as_bank(refs, genes="all", embedding=EMBEDDING, layer=None, parameters=LINEAR).var_names
    shown = refs[0].var["truth_kind"][genes].to_numpy() == "morphology"
    assert np.nanmedian(trust.correlation.low[shown]) > np.nanmedian(trust.correlation.high[~shown])


# Spread of a value.


def test_standardised_residuals_of_slides_that_are_no_reference_have_spread_one(cohort: list[AnnData]):
    spots, blocks = make_spots(cohort)
    squares = []
    for name in np.unique(spots.slide):
        new = spots.slide == name
        trust, _ = make_trust(spots[~new], blocks)
        # What the other slides say of this one.
        predicted = held_out_predictions(spots, blocks, LINEAR)[new]
        residuals = (spots.y[new] - predicted) / trust.spread(predicted)
        assert root_mean_square(residuals) == pytest.approx(1, abs=0.2), name
        squares.append(np.mean(np.square(residuals)))
    assert np.sqrt(np.mean(squares)) == pytest.approx(1, abs=0.1)


def test_standardised_residuals_of_the_references_held_out_have_spread_one(refs: list[AnnData]):
    spots, blocks = make_spots(refs)
    trust, predicted = make_trust(spots, blocks)
    residuals = (spots.y - predicted) / trust.spread(predicted)
    assert root_mean_square(residuals) == pytest.approx(1, abs=0.01)


def test_spread_is_the_noise_and_the_shift_between_slides():
    measured, predicted = noisy(n_genes=400, noise=0.5, shift=0.6)
    spread = Spread.fit(measured, predicted, SLIDES)(predicted)
    assert spread.dtype == np.float32
    assert root_mean_square(spread) == pytest.approx(np.hypot(0.5, 0.6), rel=0.05)


def test_noisy_gene_has_a_wide_spread():
    measured, predicted = noisy(n_genes=60, noise=0.3)
    measured[:, 5] += 4 * (measured[:, 5] - predicted[:, 5])
    spread = Spread.fit(measured, predicted, SLIDES)(predicted).mean(axis=0)
    assert spread[5] > 3 * np.delete(spread, 5).max()


def test_spread_follows_the_predicted_value_where_the_noise_does():
    rng = np.random.default_rng(1)
    predicted = rng.uniform(0, 2, size=(len(SLIDES), 60))
    rising = Spread.fit(predicted + rng.normal(size=predicted.shape) * np.exp(0.3 * predicted), predicted, SLIDES)
    even = Spread.fit(predicted + rng.normal(size=predicted.shape), predicted, SLIDES)
    low, high = np.full((1, 60), 0.6), np.full((1, 60), 1.4)
    assert np.median(rising(high) / rising(low)) == pytest.approx(np.exp(0.3 * 0.8), rel=0.1)
    assert np.median(even(high) / even(low)) == pytest.approx(1, rel=0.05)


def test_gene_that_was_never_seen_has_a_spread_above_zero():
    measured, predicted = noisy(n_genes=30, noise=0.3)
    measured[:, 3] = predicted[:, 3] = 0
    spread = Spread.fit(measured, predicted, SLIDES)(predicted)
    assert (spread > 0).all()
    assert (spread[:, 3] < np.median(spread)).all()
    assert np.isfinite(Spread.fit(measured[:, 3:4], predicted[:, 3:4], SLIDES)(predicted[:, 3:4])).all()


# Support of a spot.


@pytest.fixture(scope="module")
def new_tissue() -> AnnData:
    """Slide P1S1 of the cohort with a fourth domain, which none of the references has."""
    (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=70, n_genes=60, n_domains=4, seed=3)
    return add_embedding(slide)


def test_spots_of_a_tissue_that_no_reference_contains_have_low_support(refs: list[AnnData], new_tissue: AnnData):
    spots, blocks = make_spots(refs)
    support = Support.fit(spots, blocks)(new_tissue.obsm[EMBEDDING], spots.z)
    share = new_tissue.obsm["truth_domains"][:, 3]
    assert (share > 0.6).sum() >= 5
    assert (share < 0.05).sum() >= 10
    assert support[share > 0.6].max() < 0.05
    assert np.median(support[share < 0.05]) > 0.25


def test_spots_of_known_tissues_have_a_support_like_that_of_the_references(cohort: list[AnnData]):
    spots, blocks = make_spots(cohort)
    for name in np.unique(spots.slide):
        new = spots.slide == name
        known = spots[~new]
        support = Support.fit(known, blocks)(spots.z[new], known.z)
        assert ((support > 0) & (support <= 1)).all()
        assert 0.3 < support.mean() < 0.7, name
        assert (support < 0.05).mean() < 0.15, name


def test_another_stain_is_nothing_new_where_the_references_differ_in_it(cohort: list[AnnData]):
    spots, blocks = make_spots(cohort)
    names = np.unique(spots.slide)
    stains = np.random.default_rng(0).normal(scale=0.6, size=(len(names), spots.z.shape[1])).astype(np.float32)
    new = spots.slide == names[0]
    one, many = spots.z[~new], (spots.z + stains[np.searchsorted(names, spots.slide)])[~new]
    stained = spots.z[new] + stains[0]
    among_one = Support.fit(replace(spots[~new], z=one), blocks)(stained, one)
    among_many = Support.fit(replace(spots[~new], z=many), blocks)(stained, many)
    assert np.median(among_one) < 0.05
    assert np.median(among_many) > 0.25


def test_support_goes_on_falling_beyond_all_references(refs: list[AnnData]):
    spots, blocks = make_spots(refs)
    support = Support.fit(spots, blocks)
    near, far, further = (support(spots.z[:5] + shift, spots.z) for shift in (0, 50, 500))
    assert (near > far).all() and (far > further).all() and (further > 0).all()
    assert (far < 1 / (1 + len(spots))).all() and (near >= 1 / (1 + len(spots))).all()


def test_support_does_not_depend_on_the_other_spots_of_the_slide(refs: list[AnnData], new_tissue: AnnData):
    spots, blocks = make_spots(refs)
    support, z = Support.fit(spots, blocks), new_tissue.obsm[EMBEDDING]
    # A slide that consists of the new tissue alone cannot make it common.
    new = new_tissue.obsm["truth_domains"][:, 3] > 0.6
    np.testing.assert_array_equal(support(z[new], spots.z), support(z, spots.z)[new])


def test_a_tissue_that_no_reference_has_stays_below_known_tissue_on_a_slide_that_differs_as_a_whole(
    refs: list[AnnData], new_tissue: AnnData
):
    spots, _ = make_spots(refs)
    blocks = ((0, 4), (4, 14), (14, 24))
    shifted = new_tissue.obsm[EMBEDDING].copy()
    shifted[:, :4] += (
        60  # another scanner, which shows in some columns: nearly all spots are further out than the references
    )
    support = Support.fit(spots, blocks)(shifted, spots.z)
    share = new_tissue.obsm["truth_domains"][:, 3]
    assert (support < 1 / (1 + len(spots))).mean() > 0.9
    assert roc_auc_score(share[(share > 0.6) | (share < 0.05)] < 0.05, support[(share > 0.6) | (share < 0.05)]) > 0.95


def test_support_falls_without_a_jump_where_the_references_end():
    z = np.random.default_rng(0).normal(size=(len(SLIDES), 6)).astype(np.float32)
    nothing = np.empty((len(z), 0), dtype=np.float32)
    fitted = Support.fit(Spots(z, np.zeros((len(z), 2)), SLIDES, nothing, csr_matrix(nothing)), ((0, 6),))
    outwards = np.linspace(0, 40, 400)[:, None] * np.ones(6, dtype=np.float32)
    support = fitted(outwards.astype(np.float32), z)
    outside = support < 1 / (1 + len(z)) - 1e-12
    assert outside.any() and (np.diff(support[outside]) < 0).all()
    assert support[outside][0] > 0.9 / (1 + len(z))
    assert (support > 0).all()


def test_support_needs_only_some_spots_of_every_slide(refs: list[AnnData], monkeypatch: pytest.MonkeyPatch):
    spots, blocks = make_spots(refs)
    of_all = Support.fit(spots, blocks)
    monkeypatch.setattr(_support, "MAX_ANCHORS", 90)
    monkeypatch.setattr(_support, "DISTANCE_BLOCK_SPOTS", 16)
    of_some = Support.fit(spots, blocks)
    assert len(of_all.anchors) == len(spots)
    assert np.unique(spots.slide[of_some.anchors], return_counts=True)[1].tolist() == [30, 30, 30]
    far = spots.z + 5
    assert (of_some(far, spots.z) < 0.05).all()
    assert np.corrcoef(of_some(spots.z, spots.z), of_all(spots.z, spots.z))[0, 1] > 0.8


def test_support_weighs_blocks_alike_however_wide_they_are():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(len(SLIDES), 41)).astype(np.float32)
    nothing = np.empty((len(z), 0), dtype=np.float32)
    spots = Spots(z, rng.random((len(z), 2)), SLIDES, nothing, csr_matrix(nothing))
    odd = z[:20].copy()
    odd[:, 40] += 8  # the only column of a block
    apart, together = (Support.fit(spots, blocks)(odd, z) for blocks in (((0, 40), (40, 41)), ((0, 41),)))
    assert apart.max() < together.max()
    assert (apart <= 1 / len(z) + 0.02).all()


# All of it.


def test_trust_survives_its_file(refs: list[AnnData], target: AnnData):
    spots, blocks = make_spots(refs)
    trust, predicted = make_trust(spots, blocks)
    again = Trust.from_arrays(load(save(trust.to_arrays())))
    np.testing.assert_array_equal(again.correlation.low, trust.correlation.low)
    np.testing.assert_array_equal(again.spread(predicted), trust.spread(predicted))
    z = target.obsm[EMBEDDING]
    np.testing.assert_array_equal(again.support(z, spots.z), trust.support(z, spots.z))


# Genes to be trusted.


@pytest.fixture
def predicted() -> AnnData:
    """A slide with a prediction of four genes out of five."""
    slide = AnnData(np.zeros((3, 5), dtype=np.float32))
    slide.var_names = ["out", "flat", "good", "fair", "best"]
    slide.layers["spahgc"] = np.ones((3, 5), dtype=np.float32)
    slide.var["spahgc_cv_pcc"] = [np.nan, np.nan, 0.5, 0.2, 0.7]
    slide.var["spahgc_cv_pcc_low"] = [np.nan, np.nan, 0.4, 0.1, 0.3]
    return slide


def test_trusted_genes_are_those_of_enough_pcc_the_best_first(predicted: AnnData):
    assert trusted_genes(predicted) == ["best", "good", "fair"]
    assert trusted_genes(predicted, min_pcc=0.5) == ["best", "good"]
    assert trusted_genes(predicted, min_pcc=0.71) == []
    assert trusted_genes(predicted, min_pcc=-1) == ["best", "good", "fair"]


def test_bound_asks_the_lower_end_of_the_interval(predicted: AnnData):
    assert trusted_genes(predicted, min_pcc=0.3, bound=True) == ["good", "best"]


def test_trusted_genes_refuses_a_prediction_without_trust(predicted: AnnData):
    predicted.layers["ridge"] = predicted.layers["spahgc"]
    with pytest.raises(KeyError, match=r'var\["ridge_cv_pcc"\] not found.*baseline.*preset="paper"'):
        trusted_genes(predicted, key="ridge")
    with pytest.raises(KeyError, match=r'layers\["other"\].*Run spahgc\.tl\.predict'):
        trusted_genes(predicted, key="other")
    with pytest.raises(ValueError, match=r"min_pcc=2 is no correlation"):
        trusted_genes(predicted, min_pcc=2)


def test_names_of_the_keys():
    assert (Layers.spread("spahgc"), Obs.support("spahgc")) == ("spahgc_std", "spahgc_support")
    found = Var.cv_pcc("spahgc"), Var.cv_pcc_low("spahgc"), Var.cv_pcc_high("spahgc")
    assert found == ("spahgc_cv_pcc", "spahgc_cv_pcc_low", "spahgc_cv_pcc_high")
