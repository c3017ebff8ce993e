"""The plain methods: exactly what their names say, computed here with numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

import spahgc as sp
from spahgc.tl._baselines import N_COMPONENTS, PENALTIES, predict_mean, predict_nearest, predict_ridge

EMBEDDING = "X_sim"


def data(n: int = 150, n_target: int = 40, dim: int = 12, genes: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reference embedding and expression that depends on it, and a target embedding."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n + n_target, dim)).astype(np.float32) + 1
    y = z @ rng.normal(size=(dim, genes)) + rng.normal(size=(n + n_target, genes))
    return z[:n], y[:n].astype(np.float32), z[n:]


def test_mean_is_the_mean_of_the_references_at_every_spot():
    z, y, target = data()
    np.testing.assert_allclose(predict_mean(z, y, target), np.repeat(y.mean(0)[None], len(target), axis=0))


def test_nearest_is_the_mean_of_the_fifty_most_similar_spots():
    z, y, target = data()
    expected = KNeighborsRegressor(50, metric="cosine").fit(z, y).predict(target)
    np.testing.assert_allclose(predict_nearest(z, y, target), expected, rtol=1e-4, atol=1e-5)


def test_nearest_takes_all_spots_where_there_are_fewer_than_fifty():
    z, y, target = data(n=30)
    np.testing.assert_allclose(predict_nearest(z, y, target), predict_mean(z, y, target), rtol=1e-5)


def leave_one_out_error(z: np.ndarray, y: np.ndarray, penalty: float) -> float:
    """Mean squared error over spots and genes, each spot predicted by all others."""
    errors = []
    for spot in range(len(z)):
        others = np.arange(len(z)) != spot
        errors.append(y[spot] - Ridge(penalty).fit(z[others], y[others]).predict(z[spot : spot + 1])[0])
    return float(np.mean(np.square(errors)))


def test_ridge_is_the_penalised_line_with_the_penalty_that_predicts_left_out_references_best():
    z, y, target = (part.astype(float) for part in data(n=60))
    best = min(PENALTIES, key=lambda penalty: leave_one_out_error(z, y, penalty))
    assert PENALTIES[0] <= best < PENALTIES[-1]
    # With all components kept, the rotation of the principal components does not change a ridge regression.
    expected = Ridge(best).fit(z, y).predict(target)
    np.testing.assert_allclose(predict_ridge(z, y, target), expected, rtol=1e-6)


def test_ridge_stands_on_128_principal_components():
    z, y, target = (part.astype(float) for part in data(n=300, dim=200))
    mean = z.mean(0)
    _, _, directions = np.linalg.svd(z - mean, full_matrices=False)
    project = directions[:N_COMPONENTS].T
    candidates = [Ridge(a).fit((z - mean) @ project, y).predict((target - mean) @ project) for a in PENALTIES]
    actual = predict_ridge(z, y, target)
    assert N_COMPONENTS == 128
    assert min(np.abs(actual - candidate).max() for candidate in candidates) < 1e-6


def test_ridge_works_with_fewer_spots_than_dimensions():
    z, y, target = data(n=20, dim=64)
    assert np.isfinite(predict_ridge(z, y, target)).all()


@pytest.mark.parametrize(
    ("method", "function"), [("mean", predict_mean), ("nearest", predict_nearest), ("ridge", predict_ridge)]
)
def test_predict_writes_what_the_method_computes(cohort, method, function):
    target, *refs = cohort
    panel = list(target.var_names[::3])
    sp.tl.predict(target, refs, genes=panel, method=method, key_added="baseline")
    bank = sp.pp.reference_bank(refs, genes=panel)
    expected = function(bank.obsm[EMBEDDING], bank.X.toarray(), target.obsm[EMBEDDING])
    layer = target.layers["baseline"]
    assert layer.dtype == np.float32
    np.testing.assert_allclose(layer[:, target.var_names.get_indexer(panel)], expected, rtol=1e-6)
    assert np.isnan(layer[:, ~target.var_names.isin(panel)]).all()
    record = target.uns["spahgc"]["predictions"]["baseline"]
    assert record["method"] == method
    assert record["units"] == "log1p counts per 10,000"
    assert (record["references"], record["genes"]) == (["P1S2", "P2S1", "P2S2"], panel)
    assert {"encoder", "embedding", "versions"} <= set(record)


@pytest.mark.parametrize("method", ["nearest", "ridge"])
def test_baselines_find_the_genes_that_follow_the_morphology(cohort: list[AnnData], method):
    target, *refs = cohort
    sp.tl.predict(target, refs, genes=list(target.var_names), method=method)
    scores = sp.tl.evaluate(target)["pearson"].groupby(target.var["truth_kind"].astype(str)).mean()
    assert scores["morphology"] > 0.6
    assert abs(scores["flat"]) < 0.15


def test_baselines_train_no_network(cohort, monkeypatch):
    monkeypatch.setattr("spahgc.model.train_network", lambda *a, **k: pytest.fail("trained"))
    target, *refs = cohort
    sp.tl.predict(target, refs, method="ridge")
    assert "spahgc" in target.layers
