"""Image features for plain methods, and the low-rank view of the transcriptome: arrays in, arrays out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scanpy as sc
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from spahgc._linear.low_rank import GeneComponents
from spahgc._spots.plane import nearest_in_plane
from spahgc._spots.rows import (
    SlideScale,
    Spots,
    neighbour_mean,
    principal_axes,
    reduce,
    rescale,
    spatial_autocorrelation,
    standardize,
)

SLIDES = np.repeat(["a", "b", "c"], [30, 40, 50])
N_FACTORS = 3


def factors() -> np.ndarray:
    """What the spots have in common: on every slide of mean 0, variance 1 and uncorrelated."""
    rng = np.random.default_rng(1)
    parts = []
    for n in (30, 40, 50):
        x = rng.normal(size=(n, N_FACTORS))
        parts.append(np.linalg.qr(x - x.mean(axis=0))[0] * np.sqrt(n))
    return np.vstack(parts)


def spots(noise: float = 0.0, genes: int = 60, panel: int = 8) -> Spots:
    """References whose genes are few factors, with a depth of every slide, and noise."""
    rng = np.random.default_rng(2)
    common = factors()
    offset = np.searchsorted(["a", "b", "c"], SLIDES)[:, None]
    expression = common @ rng.normal(size=(N_FACTORS, genes + panel)) + offset
    expression = (expression + noise * rng.normal(size=expression.shape)).astype(np.float32)
    xy = rng.random((len(SLIDES), 2)) * 100
    z = rng.normal(size=(len(SLIDES), 5)).astype(np.float32)
    return Spots(z, xy, SLIDES, expression[:, :panel], csr_matrix(expression[:, panel:]))


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)])


# Features.


def test_neighbour_mean_is_that_of_the_nearest_other_spots_of_the_same_slide():
    some = spots()
    actual = neighbour_mean(some.z, some.xy, some.slide, k=4)
    assert actual.dtype == np.float32
    for spot in range(len(some)):
        others = np.flatnonzero((some.slide == some.slide[spot]) & (np.arange(len(some)) != spot))
        distance = np.linalg.norm(some.xy[others] - some.xy[spot], axis=1)
        nearest = others[np.argsort(distance)[:4]]
        np.testing.assert_allclose(actual[spot], some.z[nearest].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_neighbour_mean_takes_all_others_where_there_are_fewer():
    z, xy = np.array([[1.0], [3.0], [8.0]]), np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 0.0]])
    np.testing.assert_allclose(neighbour_mean(z, xy, np.full(3, "s"))[:, 0], [5.5, 4.5, 2.0])


def test_neighbour_mean_on_a_square_lattice_does_not_depend_on_the_order_of_the_spots():
    xy = np.array([(x, y) for x in range(7) for y in range(7)], dtype=float)  # six of eight: two of four equally far
    z, slide = np.random.default_rng(0).normal(size=(49, 3)), np.full(49, "s")
    order = np.random.default_rng(1).permutation(49)
    expected = neighbour_mean(z, xy, slide)[order]
    np.testing.assert_allclose(neighbour_mean(z[order], xy[order], slide), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(300, 20), (40, 90)])
def test_reduced_features_are_the_principal_components_of_the_references(shape):
    rng = np.random.default_rng(0)
    reference, target = rng.normal(size=shape) + 2, rng.normal(size=(25, shape[1]))
    pca = PCA(10, svd_solver="full").fit(reference)
    known, wanted = reduce(reference, target, 10)
    signs = np.sign((known * pca.transform(reference)).sum(axis=0))
    np.testing.assert_allclose(known * signs, pca.transform(reference), atol=1e-8)
    np.testing.assert_allclose(wanted * signs, pca.transform(target), atol=1e-8)


def test_reduced_features_are_the_same_however_many_spots_are_converted_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    reference, target = rng.normal(size=(60, 20)), rng.normal(size=(25, 20))
    expected = reduce(reference, target, 5)
    monkeypatch.setattr("spahgc._spots.rows.ROW_BLOCK", 7)
    for actual, known in zip(reduce(reference, target, 5), expected, strict=True):
        np.testing.assert_allclose(actual, known, atol=1e-10)


def test_no_more_components_come_back_than_there_are():
    x = np.random.default_rng(0).normal(size=(50, 2)) @ np.ones((2, 9))
    assert principal_axes(x, 5).shape == (9, 1)
    assert reduce(x[:4], x, 30)[1].shape == (50, 1)


@pytest.mark.parametrize("shape", [(50, 4), (4, 50)])
def test_constant_features_have_one_component_on_which_every_score_is_zero(shape):
    known, wanted = reduce(np.full(shape, 3.0), np.full((6, shape[1]), 3.0), 4)
    assert known.shape[1] == wanted.shape[1] == 1
    assert not known.any() and not wanted.any()


def test_the_largest_entry_of_an_axis_is_positive():
    x = np.random.default_rng(0).normal(size=(50, 8))
    for sign in (1, -1):
        axes = principal_axes(sign * x, 6)
        assert (axes[np.abs(axes).argmax(axis=0), np.arange(6)] > 0).all()


def test_rescaled_features_have_a_root_mean_square_of_one_and_the_target_follows():
    x = np.random.default_rng(0).normal(size=(50, 8)) * 1e-3
    reference, target = rescale(x, 2 * x)
    assert np.sqrt(np.mean(reference**2)) == pytest.approx(1)
    np.testing.assert_allclose(target, 2 * reference)
    assert not rescale(np.zeros((3, 2)), np.zeros((3, 2)))[1].any()


def test_slide_scale_is_that_of_a_typical_slide_whatever_its_number_of_spots():
    some = spots()
    scale = SlideScale.fit(some.y, some.slide)
    each = [some.y[some.slide == name].astype(float) for name in "abc"]
    undone = scale.inverse_transform(standardize(some.y, some.slide))
    np.testing.assert_allclose(undone.mean(axis=0), np.mean([y.mean(axis=0) for y in each], axis=0), atol=1e-5)
    np.testing.assert_allclose(undone.std(axis=0), np.mean([y.std(axis=0) for y in each], axis=0), atol=1e-5)


# Components.


def test_components_are_the_principal_components_of_genes_standardised_by_slide():
    some = spots(noise=1.0)
    genes = some.transcriptome.toarray().astype(float)
    standardised = np.vstack([StandardScaler().fit_transform(genes[SLIDES == name]) for name in "abc"])
    expected = PCA(5, svd_solver="full").fit_transform(standardised)
    scores = GeneComponents.fit(some, 5).scores
    np.testing.assert_allclose(np.abs(correlations(scores, expected)), 1, atol=1e-6)
    np.testing.assert_allclose(scores.std(axis=0), expected.std(axis=0), rtol=1e-4)


def test_depth_and_spread_of_whole_slides_make_no_component():
    some = spots(noise=1.0)
    rng = np.random.default_rng(5)
    genes = some.transcriptome.toarray()
    for name in "abc":
        rows = SLIDES == name
        genes[rows] = genes[rows] * rng.uniform(0.5, 2, genes.shape[1]) + rng.normal(size=genes.shape[1])
    other = GeneComponents.fit(replace(some, transcriptome=csr_matrix(genes)), 4)
    np.testing.assert_allclose(other.scores, GeneComponents.fit(some, 4).scores, atol=1e-3)


def test_permuting_the_spots_permutes_the_scores_and_changes_no_loading():
    some = spots(noise=1.0)
    order = np.random.default_rng(0).permutation(len(some))
    first, second = GeneComponents.fit(some, 4), GeneComponents.fit(some[order], 4)
    np.testing.assert_allclose(second.scores, first.scores[order], atol=1e-4)
    np.testing.assert_allclose(second.loadings, first.loadings, atol=1e-5)


@pytest.mark.parametrize("inside", [True, False])
def test_a_panel_of_the_same_factors_is_read_off_inside_or_outside_the_transcriptome(inside):
    some = spots()
    if inside:
        some = replace(some, y=some.transcriptome.toarray()[:, :8])
    components = GeneComponents.fit(some, N_FACTORS)
    panel = components.decode(components.scores)
    assert panel.shape == some.y.shape
    for name in "abc":
        rows = SLIDES == name
        np.testing.assert_allclose(correlations(panel[rows], some.y[rows]), 1, atol=1e-5)
    typical = SlideScale.fit(some.y, some.slide)
    np.testing.assert_allclose(panel.mean(axis=0), typical.mean, atol=1e-5)
    np.testing.assert_allclose(panel.std(axis=0), typical.spread, rtol=2e-3)  # the small penalty


def test_the_noise_of_single_genes_stays_out_of_what_is_read_off():
    clean, noisy = spots(), spots(noise=2.0)
    components = GeneComponents.fit(noisy, N_FACTORS)
    read = correlations(components.decode(components.scores)[SLIDES == "a"], clean.y[SLIDES == "a"])
    measured = correlations(noisy.y[SLIDES == "a"], clean.y[SLIDES == "a"])
    assert (read > measured).all()
    assert read.mean() > measured.mean() + 0.15


def test_scores_of_zero_decode_to_the_mean_of_the_slides_means():
    some = spots(noise=1.0)
    expected = np.mean([some.y[SLIDES == name].mean(axis=0) for name in "abc"], axis=0)
    np.testing.assert_allclose(
        GeneComponents.fit(some, 4).decode(np.zeros((2, 4))), np.tile(expected, (2, 1)), atol=1e-5
    )


def test_there_are_no_more_components_than_the_transcriptome_has():
    assert GeneComponents.fit(spots(genes=2), 20).scores.shape == (len(SLIDES), 2)


def test_constant_genes_take_no_part():
    some = spots(noise=1.0)
    constant = np.full((len(some), 3), 4.0, dtype=np.float32)
    wider = csr_matrix(np.hstack([some.transcriptome.toarray(), constant]))
    expected = GeneComponents.fit(some, 4).scores
    np.testing.assert_allclose(GeneComponents.fit(replace(some, transcriptome=wider), 4).scores, expected, atol=1e-4)


def test_nothing_but_constant_genes_decodes_to_their_means():
    some = spots()
    flat = replace(some, y=np.full_like(some.y, 2.0), transcriptome=csr_matrix(np.ones((len(some), 4))))
    components = GeneComponents.fit(flat, 3)
    np.testing.assert_array_equal(components.decode(components.scores), 2.0)


def test_spots_without_a_transcriptome_are_refused():
    some = Spots.without_expression(spots().z, spots().xy)
    with pytest.raises(ValueError, match="is 120 spots x 0 genes, so it has no components. Make the bank with"):
        GeneComponents.fit(some, 3)


# Spatial structure.

N_SMOOTH, N_ROUGH = 12, 30


def tissue() -> Spots:
    """Two slides: genes that follow the place first, then many more that follow each other without any order."""
    rng = np.random.default_rng(7)
    xy = np.array([(x, y) for x in range(9) for y in range(9)], dtype=float)
    slide = np.repeat(["a", "b"], len(xy))
    place = np.tile(xy[:, :1] - 4, (2, 1)) / 2.6
    common = rng.normal(size=(len(slide), 1))
    smooth = place + 0.5 * rng.normal(size=(len(slide), N_SMOOTH))
    rough = common + 0.5 * rng.normal(size=(len(slide), N_ROUGH))
    genes = np.hstack([smooth, rough]).astype(np.float32)
    z = np.zeros((len(slide), 1), dtype=np.float32)
    return Spots(z, np.tile(xy, (2, 1)), slide, genes[:, :3], csr_matrix(genes))


def test_spatial_autocorrelation_is_morans_i_of_every_slide_and_zero_at_least():
    some = tissue()
    genes = standardize(some.transcriptome.toarray(), some.slide)
    expected = np.zeros(genes.shape[1])
    for name in ("a", "b"):
        rows = some.slide == name
        near, _ = nearest_in_plane(some.xy[rows], 6)
        expected += sc.metrics.morans_i(csr_matrix(near / 6), np.ascontiguousarray(genes[rows].T)) / 2
    actual = spatial_autocorrelation(genes, some.xy, some.slide)
    assert expected.min() < 0 and actual.min() == 0
    np.testing.assert_allclose(actual, np.clip(expected, 0, None), atol=1e-5)


def test_weighing_makes_the_first_component_of_what_has_an_order_in_space():
    some = tissue()
    first = [GeneComponents.fit(some, 3, weigh=weigh).scores[:, 0] for weigh in (False, True)]
    plain, weighed = (abs(np.corrcoef(scores, some.xy[:, 0])[0, 1]) for scores in first)
    assert plain < 0.3
    assert weighed > 0.9


def test_genes_without_any_spatial_structure_are_not_weighed(monkeypatch):
    some = spots(noise=1.0)
    monkeypatch.setattr("spahgc._linear.low_rank.spatial_autocorrelation", lambda genes, *_: np.zeros(genes.shape[1]))
    np.testing.assert_array_equal(GeneComponents.fit(some, 3, weigh=True).scores, GeneComponents.fit(some, 3).scores)


@pytest.mark.parametrize("weigh", [True, False])
def test_a_network_is_judged_by_the_genes_of_most_spatial_structure(monkeypatch, weigh):
    monkeypatch.setattr("spahgc._linear.low_rank.N_TRAINING_GENES", N_SMOOTH)
    some = tissue()
    components = GeneComponents.fit(some, 3, weigh=weigh)
    expected = standardize(some.transcriptome.toarray(), some.slide)[:, :N_SMOOTH]
    np.testing.assert_array_equal(components.training_target, expected)
    assert components.training_loadings.shape == (3, N_SMOOTH)


def test_no_more_genes_are_judged_than_there_are():
    assert GeneComponents.fit(spots(genes=20), 3).training_target.shape == (len(SLIDES), 20)


# How many components.


def test_tapered_components_decode_to_the_mean_over_the_first_of_them():
    components = GeneComponents.fit(spots(noise=1.0), 4)
    first = [components.decode(components.scores * (np.arange(4) < count)) for count in (1, 2, 4)]
    actual = components.tapered((1, 2, 4)).decode(components.scores)
    np.testing.assert_allclose(actual, np.mean(first, axis=0), atol=1e-10)
    assert np.abs(actual - components.decode(components.scores)).max() > 0.05


def test_tapering_to_all_components_changes_nothing():
    components = GeneComponents.fit(spots(noise=1.0), 4)
    for counts in ((4,), (4, 20)):
        np.testing.assert_array_equal(components.tapered(counts).loadings, components.loadings)


def test_the_panel_itself_as_components_decodes_to_what_was_measured_on_typical_slides():
    some = spots(noise=1.0)
    components = GeneComponents.fit_panel(some)
    expected = SlideScale.fit(some.y, some.slide).inverse_transform(standardize(some.y, some.slide))
    np.testing.assert_allclose(components.decode(components.scores), expected, atol=1e-6)
    np.testing.assert_array_equal(components.training_target, standardize(some.y, some.slide))
