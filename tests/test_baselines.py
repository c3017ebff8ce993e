"""The plain methods: exactly what their names say, computed here with numpy and scikit-learn; and no wiser than told."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from torch.nn import functional as F

import spahgc as sp
from spahgc._linear.ridge import PENALTIES, fit_ridge
from spahgc._spots.rows import Spots
from spahgc._training.early_stopping import train_early_stopped
from spahgc._training.graphs import bank_spots
from spahgc.nn._baselines import BatchSettings, JointSpace, Perceptron, contrastive_loss, in_blocks, train_in_batches
from spahgc.tl._baselines import BASELINES
from spahgc.tl._baselines.ridge import N_COMPONENTS, tissue_features

EMBEDDING = "X_sim"
TRAINED = ["mlp", "bleep", "deepspot"]
BY_SLIDE = ["ridge_neighbours", "ridge_components", "mlp"]
"""Methods that see features standardised by slide."""
METHODS = pytest.mark.parametrize("method", list(BASELINES))


@pytest.fixture(autouse=True)
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in TRAINED:
        monkeypatch.setattr(f"spahgc.tl._baselines.{method}.MAX_EPOCHS", 8)
    monkeypatch.setattr("spahgc.tl._baselines.deepspot.N_NETWORKS", 2)


def data(*sizes: int, n_target: int = 40, dim: int = 12, genes: int = 5) -> tuple[Spots, Spots, np.ndarray]:
    """References with expression that depends on the embedding, one slide a size; a target, and its expression."""
    rng = np.random.default_rng(0)
    sizes = sizes or (60, 50, 40)
    n = sum(sizes)
    z = rng.normal(size=(n + n_target, dim)).astype(np.float32) + 1
    y = (z @ rng.normal(size=(dim, genes + 10)) + rng.normal(size=(n + n_target, genes + 10))).astype(np.float32)
    xy = rng.random((n + n_target, 2)) * 100
    slide = np.repeat([f"slide{i}" for i in range(len(sizes))], sizes)
    references = Spots(z[:n], xy[:n], slide, y[:n, :genes], csr_matrix(y[:n]))
    return references, Spots.without_expression(z[n:], xy[n:]), y[n:, :genes]


def predict(method: str, references: Spots, target: Spots, seed: int = 0) -> np.ndarray:
    return BASELINES[method](references, target, seed)


def predicted(target: AnnData, refs, **options) -> np.ndarray:
    return sp.tl.predict(target, refs, copy=True, **options).layers["spahgc"]


def gene_pcc(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)]))


# What each of them computes.


def test_mean_is_the_mean_of_the_references_at_every_spot():
    references, target, _ = data()
    expected = np.repeat(references.y.mean(0)[None], len(target), axis=0)
    np.testing.assert_allclose(predict("mean", references, target), expected, rtol=1e-5)


def test_nearest_is_the_mean_of_the_fifty_most_similar_spots():
    references, target, _ = data()
    expected = KNeighborsRegressor(50, metric="cosine").fit(references.z, references.y).predict(target.z)
    np.testing.assert_allclose(predict("nearest", references, target), expected, rtol=1e-4, atol=1e-5)


def test_nearest_takes_all_spots_where_there_are_fewer_than_fifty():
    references, target, _ = data(30)
    expected = predict("mean", references, target)
    np.testing.assert_allclose(predict("nearest", references, target), expected, rtol=1e-5)


def ridge(x: np.ndarray, y: np.ndarray, share: float) -> Ridge:
    """A ridge regression whose penalty is a share of the mean sum of squares of a feature."""
    return Ridge(share * np.square(x - x.mean(0)).sum(axis=0).mean()).fit(x, y)


def error_left_out(x: np.ndarray, y: np.ndarray, parts: np.ndarray, share: float) -> float:
    """Squared error over spots, each part predicted by all others."""
    errors = []
    for name in np.unique(parts):
        out = parts == name
        errors.append(np.square(y[out] - ridge(x[~out], y[~out], share).predict(x[out])).sum())
    return float(np.sum(errors))


def test_the_penalty_is_the_one_that_predicts_left_out_slides_best():
    references, target, _ = data(25, 20, 15)
    x, y = references.z.astype(float), references.y + 3.0 * (references.slide == "slide1")[:, None]
    best = min(PENALTIES, key=lambda share: error_left_out(x, y, references.slide, share))
    assert PENALTIES[0] < best < PENALTIES[-1]
    line = fit_ridge(x, y, references.slide)
    assert line.penalty == best
    np.testing.assert_allclose(line.predict(target.z), ridge(x, y, best).predict(target.z), rtol=1e-6)


def test_the_penalty_of_a_single_slide_is_the_one_that_predicts_left_out_spots_best():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 12))
    y = x @ rng.normal(size=(12, 3)) + 4 * rng.normal(size=(40, 3))
    # The share is of all spots' squares, as in the closed form; dropping one spot hardly changes it.
    absolute = {share: share * np.square(x - x.mean(0)).sum(axis=0).mean() for share in PENALTIES}

    def error(share: float) -> float:
        keep = ~np.eye(40, dtype=bool)
        rest = [y[i] - Ridge(absolute[share]).fit(x[keep[i]], y[keep[i]]).predict(x[i : i + 1])[0] for i in range(40)]
        return float(np.square(rest).sum())

    best = min(PENALTIES, key=error)
    assert PENALTIES[0] < best < PENALTIES[-1]
    assert fit_ridge(x, y, np.full(40, "only")).penalty == best


@pytest.mark.parametrize("sizes", [(60, 50, 40), (120,)])
def test_the_penalty_may_be_chosen_by_the_first_responses_alone(sizes):
    references, _, _ = data(*sizes)
    noise = 9 * np.random.default_rng(1).normal(size=(len(references), 30))
    x, y = references.z, np.hstack([references.y[:, :3], noise])
    chosen = fit_ridge(x, y, references.slide, n_scored=3)
    assert chosen.penalty == fit_ridge(x, y[:, :3], references.slide).penalty
    assert chosen.penalty < fit_ridge(x, y, references.slide).penalty
    np.testing.assert_allclose(chosen.predict(x), ridge(x.astype(float), y, chosen.penalty).predict(x), atol=1e-6)


def test_ridge_is_a_line_on_128_principal_components_of_the_embedding():
    references, target, _ = data(160, 140, dim=200)
    z, mean = references.z.astype(float), references.z.mean(0, dtype=float)
    _, _, directions = np.linalg.svd(z - mean, full_matrices=False)
    project = directions[:128].T
    x, wanted = (z - mean) @ project, (target.z - mean) @ project
    candidates = [ridge(x, references.y, share).predict(wanted) for share in PENALTIES]
    actual = predict("ridge", references, target)
    assert N_COMPONENTS == 128
    assert min(np.abs(actual - candidate).max() for candidate in candidates) < 1e-6


def test_ridge_predicts_the_same_whatever_the_scale_of_the_encoder():
    references, target, _ = data()
    small = [replace(spots, z=spots.z * 1e-3) for spots in (references, target)]
    np.testing.assert_allclose(predict("ridge", *small), predict("ridge", references, target), rtol=1e-3, atol=1e-3)


def test_features_of_the_tissue_are_those_of_a_spot_and_of_its_neighbours_standardised_by_slide():
    references, target, _ = data(dim=4)
    known, wanted = tissue_features(references, target)
    assert known.shape == (len(references), 8) and wanted.shape == (len(target), 8)
    own = (target.z - target.z.mean(0)) / target.z.std(0)
    distance = np.linalg.norm(target.xy[:, None] - target.xy[None], axis=2)
    around = np.stack([own[np.argsort(row)[1:7]].mean(axis=0) for row in distance])
    for block, features in ((wanted[:, :4], own), (wanted[:, 4:], around)):
        # All four components are kept, so that they are a rotation of the features, which keeps distances.
        for spot in (0, 5):
            expected = np.linalg.norm(features - features[spot], axis=1)
            np.testing.assert_allclose(np.linalg.norm(block - block[spot], axis=1), expected, atol=1e-4)


def test_ridge_components_predicts_a_panel_of_the_mean_and_spread_of_the_references():
    references, target, measured = data(150, 150, n_target=150)
    actual = predict("ridge_components", references, target)
    assert gene_pcc(actual, measured) > 0.8
    np.testing.assert_allclose(actual.mean(axis=0), references.y.mean(axis=0), atol=0.3)


@pytest.mark.parametrize("method", [name for name in BASELINES if name != "mean"])
def test_every_method_but_the_mean_finds_what_follows_the_embedding(method, monkeypatch):
    for name in TRAINED:
        monkeypatch.setattr(f"spahgc.tl._baselines.{name}.MAX_EPOCHS", 40)
    references, target, measured = data(150, 150, n_target=100)
    assert gene_pcc(predict(method, references, target), measured) > 0.4


@pytest.mark.parametrize("method", BY_SLIDE)
def test_what_a_scanner_adds_to_the_whole_target_does_not_matter(method):
    references, target, _ = data()
    shifted = replace(target, z=(3 * target.z + 5).astype(np.float32))
    expected = predict(method, references, target)
    np.testing.assert_allclose(predict(method, references, shifted), expected, atol=1e-3)


# Training.


def test_contrastive_loss_compares_similarity_across_with_similarity_within_the_modalities():
    rng = np.random.default_rng(0)
    image, expression = (rng.normal(size=(6, 4)) for _ in range(2))

    def softmax(x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    wanted = softmax((image @ image.T + expression @ expression.T) / 2)
    across = expression @ image.T
    by_expression = -(wanted * np.log(softmax(across))).sum(axis=1).mean()
    by_image = -(wanted.T * np.log(softmax(across.T))).sum(axis=1).mean()
    actual = contrastive_loss(torch.from_numpy(image), torch.from_numpy(expression))
    assert actual.item() == pytest.approx((by_expression + by_image) / 2)


def test_contrastive_loss_is_least_where_both_modalities_lie_together():
    image = 4 * F.one_hot(torch.arange(8)).float()
    together = contrastive_loss(image, image)
    assert together < 0.01
    assert contrastive_loss(image, image.roll(1, dims=0)) > 5


def test_the_joint_space_is_layer_normalised_and_has_a_head_for_each_modality():
    space = JointSpace(7, 3, width=16).eval()
    for head, inputs in ((space.image, 7), (space.expression, 3)):
        states = head(torch.randn(5, inputs)).detach()
        np.testing.assert_allclose(states.mean(dim=1), 0, atol=1e-6)
        np.testing.assert_allclose(states.std(dim=1, correction=0), 1, atol=1e-3)


def test_training_ends_when_the_score_has_not_improved_for_a_while():
    network = Perceptron(3, 2, width=4)
    script = iter([0.1, 0.3, 0.2, 0.3, 0.1, 0.9])
    settings = BatchSettings(epochs=6, batch_spots=4, learning_rate=1e-3, weight_decay=0.0, patience=3)
    scores = train_in_batches(network, torch.randn(9, 3), torch.randn(9, 2), settings, score=lambda: next(script))
    assert scores == [0.1, 0.3, 0.2, 0.3, 0.1]
    assert not network.training


def test_blocks_of_spots_give_what_all_spots_give():
    network, x = Perceptron(3, 2, width=4).eval(), torch.randn(10, 3)
    torch.testing.assert_close(in_blocks(network, x, block=3), network(x).detach())


@pytest.mark.parametrize(("sizes", "held_out"), [((20, 16, 12), 12), ((30,), 15)])
def test_epochs_are_chosen_on_a_reference_that_was_not_trained_on(monkeypatch, sizes, held_out):
    references, _, _ = data(*sizes)
    seen: list[tuple[int, int]] = []
    real = train_in_batches

    def spy(network, x, y, settings, *, score, generator):
        seen.append((len(x), settings.epochs))
        return real(network, x, y, settings, score=score, generator=generator)

    script = iter([0.1, 0.5, 0.4, 0.3, 0.2])
    monkeypatch.setattr("spahgc._training.early_stopping.train_in_batches", spy)
    monkeypatch.setattr("spahgc._training.early_stopping.gene_correlations", lambda *a: torch.tensor([next(script)]))
    asked: list[tuple[int, int]] = []

    def output(network, x, bank):
        asked.append((len(x), len(bank)))
        return np.zeros((len(x), 5))

    settings = BatchSettings(epochs=5, batch_spots=8, learning_rate=1e-3, weight_decay=0.0)
    train_early_stopped(lambda: Perceptron(12, 5, width=4), output, references, references.z, references.y, settings, 0)
    total = len(references)
    assert seen == [(total - held_out, 5), (total, 2)]
    assert set(asked) == {(held_out, total - held_out)}


@METHODS
def test_a_seed_gives_the_same_numbers_again_and_the_users_random_numbers_go_on(method):
    references, target, _ = data()
    torch.manual_seed(5)
    expected_stream = torch.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = predict(method, references, target, 3)
    assert torch.equal(torch.rand(3), expected_stream)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_array_equal(predict(method, references, target, 3), first)


@METHODS
def test_another_seed_matters_to_networks_alone(method):
    references, target, _ = data()
    same = np.array_equal(predict(method, references, target, 0), predict(method, references, target, 1))
    assert same == (method not in TRAINED)


# Whatever comes in.


@METHODS
@pytest.mark.parametrize("sizes", [(60, 50, 40), (20,), (9, 8)])
def test_many_few_and_single_references_give_numbers(method, sizes):
    references, target, _ = data(*sizes, dim=64)
    actual = predict(method, references, target)
    assert actual.shape == (len(target), references.y.shape[1])
    assert np.isfinite(actual).all()


@METHODS
@pytest.mark.parametrize("part", ["z", "y", "target"])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_constant_embeddings_and_genes_give_numbers(method, part):
    references, target, _ = data()
    if part == "z":
        references = replace(references, z=np.zeros_like(references.z))
    elif part == "y":
        flat = csr_matrix(np.ones(references.transcriptome.shape, dtype=np.float32))
        references = replace(references, y=np.full_like(references.y, 2.0), transcriptome=flat)
    else:
        target = replace(target, z=np.full_like(target.z, 3.0))
    actual = predict(method, references, target)
    assert np.isfinite(actual).all()
    if part == "y":
        np.testing.assert_allclose(actual, 2.0, atol=1e-6)


@METHODS
def test_a_single_gene_and_a_target_of_two_spots_are_predicted(method):
    references, target, _ = data(genes=1)
    assert predict(method, references, target[np.arange(2)]).shape == (2, 1)


# Through the public function.


@METHODS
def test_predict_writes_what_the_method_computes(cohort, method):
    target, *refs = cohort
    panel = list(target.var_names[::3])
    sp.tl.predict(target, refs, genes=panel, method=method, key_added="baseline", seed=4)
    bank = sp.pp.reference_bank(refs, genes=panel)
    spots = Spots.without_expression(target.obsm[EMBEDDING], target.obsm["spatial"])
    expected = predict(method, bank_spots(bank), spots, 4)
    layer = target.layers["baseline"]
    assert layer.dtype == np.float32
    np.testing.assert_allclose(layer[:, target.var_names.get_indexer(panel)], expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(layer[:, ~target.var_names.isin(panel)]).all()
    record = target.uns["spahgc"]["predictions"]["baseline"]
    assert (record["method"], record["seed"]) == (method, 4)
    assert record["units"] == "log1p counts per 10,000"
    assert (record["references"], record["genes"]) == (["P1S2", "P2S1", "P2S2"], panel)
    assert {"encoder", "embedding", "versions"} <= set(record)


@METHODS
def test_baselines_ignore_the_targets_own_counts(cohort, method):
    target, *refs = cohort
    expected = predicted(target, refs, method=method)
    assert np.isfinite(expected).any()
    target.X = np.full(target.shape, np.nan, dtype=np.float32)
    target.layers["counts"] = target.X.copy()
    target.obsm["truth_domains"][:] = np.nan
    np.testing.assert_array_equal(predicted(target, refs, method=method), expected)


@METHODS
def test_the_arrangement_of_the_references_does_not_matter(cohort, method):
    target, *refs = cohort
    expected = predicted(target, refs, method=method)
    joined = ad.concat(refs, uns_merge="same")
    rng = np.random.default_rng(7)
    joined = joined[rng.permutation(joined.n_obs), rng.permutation(joined.n_vars)].copy()
    np.testing.assert_allclose(predicted(target, joined, method=method), expected, rtol=1e-4, atol=1e-4)


@METHODS
def test_permuting_the_targets_spots_permutes_the_prediction(cohort, method):
    target, *refs = cohort
    order = np.random.default_rng(0).permutation(target.n_obs)
    expected = predicted(target, refs, method=method)[order]
    np.testing.assert_allclose(predicted(target[order].copy(), refs, method=method), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["nearest", "ridge", "ridge_neighbours", "ridge_components"])
def test_baselines_find_the_genes_that_follow_the_morphology(cohort: list[AnnData], method):
    target, *refs = cohort
    sp.tl.predict(target, refs, genes=list(target.var_names), method=method)
    scores = sp.tl.evaluate(target)["pearson"].groupby(target.var["truth_kind"].astype(str)).mean()
    assert scores["morphology"] > 0.6
    assert abs(scores["flat"]) < 0.15


def test_an_unknown_method_is_refused_and_all_known_ones_are_named(cohort):
    target, *refs = cohort
    known = ", ".join(["spahgc", *BASELINES])
    with pytest.raises(ValueError, match=f'method="lasso" is not known. Choose one of {known}'):
        sp.tl.predict(target, refs, method="lasso")


@METHODS
def test_baselines_do_not_train_the_graph_network(cohort, monkeypatch, method):
    monkeypatch.setattr("spahgc.model.train_networks", lambda *a, **k: pytest.fail("trained"))
    target, *refs = cohort
    sp.tl.predict(target, refs, method=method)
    assert "spahgc" in target.layers
