"""Kernel ridge regression with the arc-cosine kernel."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge as OfScikitLearn

from spahgc._linear import kernel as _kernel
from spahgc._linear.kernel import MAX_SLOPE, PENALTIES, arc_cosine, even_rows, fit_kernel_ridge

SLIDE = np.repeat(["a", "b", "c"], [20, 30, 40])


def some_spots(n_features: int = 6, n_responses: int = 3, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Features of three slides, and responses that follow them along a bend."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(SLIDE), n_features))
    y = np.abs(x @ rng.normal(size=(n_features, n_responses))) + noise * rng.normal(size=(len(SLIDE), n_responses))
    return x, y - y.mean(axis=0)


# The kernel.


def test_the_kernel_is_that_of_infinitely_many_rectified_units():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(4, 5)), rng.normal(size=(3, 5))
    weights = rng.normal(size=(5, 1_000_000))
    features_a, features_b = np.maximum(a @ weights, 0), np.maximum(b @ weights, 0)
    expected = 2 * features_a @ features_b.T / weights.shape[1]
    np.testing.assert_allclose(arc_cosine(a, b), expected, rtol=0.01, atol=0.01)


def test_the_kernel_of_a_spot_with_itself_is_its_squared_length_and_of_its_opposite_zero():
    x, _ = some_spots()
    np.testing.assert_allclose(np.diag(arc_cosine(x, x)), np.square(x).sum(axis=1))
    np.testing.assert_allclose(np.diag(arc_cosine(x, -x)), 0, atol=1e-6)
    np.testing.assert_allclose(arc_cosine(3 * x, 2 * x), 6 * arc_cosine(x, x), atol=1e-12)


def test_a_spot_without_length_has_a_kernel_of_zero():
    assert (arc_cosine(np.zeros((2, 4)), np.ones((3, 4))) == 0).all()


def test_the_kernel_is_symmetric_and_has_no_negative_eigenvalue():
    x, _ = some_spots()
    values = arc_cosine(x, x)
    np.testing.assert_allclose(values, values.T, atol=1e-12)
    assert np.linalg.eigvalsh(values).min() > -1e-9 * np.linalg.eigvalsh(values).max()


def test_the_kernel_of_single_precision_is_computed_in_double():
    x, _ = some_spots()
    single = x.astype(np.float32)
    np.testing.assert_array_equal(arc_cosine(single, single), arc_cosine(single.astype(float), single.astype(float)))


# The regression.


@pytest.mark.parametrize("penalty", [0.03, 1.0, 30.0])
def test_it_is_kernel_ridge_regression_times_a_slope(monkeypatch, penalty):
    monkeypatch.setattr(_kernel, "PENALTIES", (penalty,))
    x, y = some_spots()
    new = np.random.default_rng(5).normal(size=(7, x.shape[1]))
    found = fit_kernel_ridge(x, y, SLIDE)
    alpha = penalty * np.trace(arc_cosine(x, x)) / len(x)
    expected = OfScikitLearn(alpha=alpha, kernel="precomputed").fit(arc_cosine(x, x), y).predict(arc_cosine(new, x))
    np.testing.assert_allclose(found.predict(new), expected * found.slopes, rtol=1e-6, atol=1e-9)


def test_the_slope_is_that_of_the_truth_on_predictions_of_slides_left_out(monkeypatch):
    monkeypatch.setattr(_kernel, "PENALTIES", (1.0,))
    x, y = some_spots()
    left_out = np.empty_like(y)
    for name in "abc":
        known = SLIDE != name
        alpha = np.trace(arc_cosine(x[known], x[known])) / known.sum()
        ridge = OfScikitLearn(alpha=alpha, kernel="precomputed").fit(arc_cosine(x[known], x[known]), y[known])
        left_out[~known] = ridge.predict(arc_cosine(x[~known], x[known]))
    expected = np.clip((y * left_out).sum(axis=0) / np.square(left_out).sum(axis=0), 0, MAX_SLOPE)
    np.testing.assert_allclose(fit_kernel_ridge(x, y, SLIDE).slopes, expected, rtol=1e-6)


def test_every_response_gets_a_penalty_of_its_own_and_noise_the_largest():
    x, y = some_spots(noise=0.0)
    y[:, 2] = np.random.default_rng(3).normal(size=len(y))
    found = fit_kernel_ridge(x, y, SLIDE)
    assert found.penalties[2] == max(PENALTIES) > found.penalties[:2].max()
    alone = fit_kernel_ridge(x, y[:, :1], SLIDE)
    np.testing.assert_allclose(found.predict(x)[:, :1], alone.predict(x), rtol=1e-8, atol=1e-10)


def test_the_order_of_the_spots_does_not_matter():
    x, y = some_spots()
    order = np.random.default_rng(0).permutation(len(x))
    again = fit_kernel_ridge(x[order], y[order], SLIDE[order])
    np.testing.assert_allclose(again.predict(x), fit_kernel_ridge(x, y, SLIDE).predict(x), rtol=1e-6, atol=1e-8)


# Landmarks.


def test_with_all_spots_as_landmarks_it_is_exact():
    x, y = some_spots()
    exact = fit_kernel_ridge(x, y, SLIDE)
    through_landmarks = fit_kernel_ridge(x, y, SLIDE, max_exact=0, n_landmarks=len(x))
    np.testing.assert_array_equal(through_landmarks.penalties, exact.penalties)
    np.testing.assert_allclose(through_landmarks.predict(x), exact.predict(x), rtol=1e-6, atol=1e-6)


def test_with_half_of_the_spots_as_landmarks_it_is_much_the_same():
    x, y = some_spots()
    few = fit_kernel_ridge(x, y, SLIDE, max_exact=0, n_landmarks=45)
    assert len(few.landmarks) == 45
    assert np.corrcoef(few.predict(x).ravel(), fit_kernel_ridge(x, y, SLIDE).predict(x).ravel())[0, 1] > 0.9


def test_landmarks_are_spread_evenly_over_the_slides():
    chosen = even_rows(SLIDE, 45)
    assert (np.diff(chosen) > 0).all()
    assert np.unique(SLIDE[chosen], return_counts=True)[1].tolist() == [10, 15, 20]
    np.testing.assert_array_equal(chosen, even_rows(SLIDE, 45))
    np.testing.assert_array_equal(even_rows(SLIDE, 900), np.arange(len(SLIDE)))
    assert set(SLIDE[even_rows(SLIDE, 1)]) == {"a", "b", "c"}  # no slide is left out


@pytest.mark.parametrize("max_exact", [0, 1000])
def test_spots_that_all_look_the_same_are_predicted_by_zero(max_exact):
    _, y = some_spots()
    found = fit_kernel_ridge(np.zeros((len(SLIDE), 4)), y, SLIDE, max_exact=max_exact, n_landmarks=30)
    assert (found.predict(np.ones((3, 4))) == 0).all()


def test_a_prediction_in_blocks_is_that_of_all_spots_at_once(monkeypatch):
    x, y = some_spots()
    found = fit_kernel_ridge(x, y, SLIDE)
    expected = found.predict(x)
    monkeypatch.setattr("spahgc._spots.rows.ROW_BLOCK", 7)
    np.testing.assert_allclose(found.predict(x), expected, rtol=1e-10)
