"""What other groups compare with: the regression of the HEST benchmark, and a network on sets after DeepSpot."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import spahgc as sp
from spahgc._linear.ridge import PENALTIES
from spahgc._spots.rows import Spots
from spahgc._training import early_stopping
from spahgc.nn._deep_sets import DeepSets, SpotSets
from spahgc.tl._baselines import BASELINES, deepspot
from spahgc.tl._baselines.columns import seen_columns
from spahgc.tl._baselines.deepspot import _neighbours, predict_deepspot
from spahgc.tl._baselines.hest import hest_features, predict_hest, predict_hest_tuned

PROTOCOLS = pytest.mark.parametrize("method", ["deepspot", "hest", "hest_tuned"])
DIM, N_PARTS = 6, 4
LEVELS = "scales 1,2; levels none; rotations 1"
"""Context of an embedding of two patch sizes."""


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_EPOCHS": 8, "WIDTH": 64, "N_NETWORKS": 2}.items():
        monkeypatch.setattr(deepspot, name, value)


def square(n: int) -> np.ndarray:
    return np.argwhere(np.ones((10, n // 10))).astype(float) * 100


def data(*, dim: int = DIM, parts: int = 0, around: bool = False, seed: int = 0) -> tuple[Spots, Spots, np.ndarray]:
    """Two references and a target, 120 spots each, whose genes follow the spot, or its parts, or its neighbours alone."""
    rng = np.random.default_rng(seed)
    n, genes = 120, 5
    xy, slide = np.tile(square(n), (3, 1)), np.repeat(["a", "b", "target"], n)
    z = rng.normal(size=(3 * n, 1 + parts, dim)).astype(np.float32)
    near = _neighbours(Spots(z[:, 0], xy, slide, None, None)).numpy()
    seen = z[near, 0].max(axis=1) if around else z[:, 1:].sum(axis=1) if parts else z[:, 0]
    y = (seen @ rng.normal(size=(dim, genes)) + 0.3 * rng.normal(size=(3 * n, genes)) + 4).astype(np.float32)
    z = z if parts else z[:, 0]
    references = Spots(z[: 2 * n], xy[: 2 * n], slide[: 2 * n], y[: 2 * n], csr_matrix(y[: 2 * n]))
    return references, Spots.without_expression(z[2 * n :], xy[2 * n :]), y[2 * n :]


def gene_pcc(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)]))


# The regression of the HEST benchmark.


@pytest.mark.parametrize(("dim", "n_components"), [(40, 40), (300, 239)])
def test_hest_is_scaler_components_and_ridge_of_scikit_learn(dim, n_components):
    references, target, _ = data(dim=dim)
    n_genes = references.y.shape[1]
    steps = make_pipeline(StandardScaler(), PCA(min(256, n_components)))
    known = steps.fit_transform(references.z.astype(float))
    # As in the benchmark: without an intercept, of which the mean is all that is missing.
    line = Ridge(100 / (n_components * n_genes), fit_intercept=False, solver="lsqr", tol=1e-12, max_iter=10_000)
    line.fit(known, references.y)
    expected = line.predict(steps.transform(target.z.astype(float))) + references.y.mean(axis=0)
    np.testing.assert_allclose(predict_hest(references, target, 0), expected, atol=2e-3)


def test_hest_takes_256_components_at_most():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(700, 300)).astype(np.float32)
    references = replace(data()[0], z=z[:600], y=np.zeros((600, 3)), slide=np.repeat("a", 600), xy=rng.random((600, 2)))
    known, wanted = hest_features(references, Spots.without_expression(z[600:], rng.random((100, 2))))
    assert known.shape == (600, 256) and wanted.shape == (100, 256)


def test_tuned_is_the_same_line_with_the_penalty_that_predicts_references_held_out_best():
    references, target, _ = data(dim=60)
    known, wanted = hest_features(references, target)

    def fitted(share, rows):
        x = known[rows]
        return Ridge(share * np.square(x - x.mean(0)).sum(axis=0).mean()).fit(x, references.y[rows].astype(float))

    def error(share):
        names = np.unique(references.slide)
        parts = [(references.slide != name, references.slide == name) for name in names]
        return sum(np.square(references.y[out] - fitted(share, rows).predict(known[out])).sum() for rows, out in parts)

    best = fitted(min(PENALTIES, key=error), slice(None)).predict(wanted)
    np.testing.assert_allclose(predict_hest_tuned(references, target, 0), best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("function", [predict_hest, predict_hest_tuned])
def test_the_scale_of_the_encoder_does_not_matter_to_hest(function):
    references, target, _ = data(dim=30)
    other = [replace(spots, z=spots.z * 1000 + 7) for spots in (references, target)]
    np.testing.assert_allclose(function(*other, 0), function(references, target, 0), atol=1e-2)


# The network on sets.


def sets(n: int = 30, parts: int = N_PARTS, seed: int = 0) -> SpotSets:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, DIM, generator=generator)
    near = torch.randint(n, (n, 6), generator=generator)
    subspots = torch.randn(n, parts, DIM, generator=generator) if parts else None
    return SpotSets(z, near, subspots, torch.arange(n))


def network(parts: int = N_PARTS) -> DeepSets:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DeepSets(DIM, 3, width=16, with_subspots=bool(parts)).eval()


@torch.no_grad()
@pytest.mark.parametrize("parts", [0, N_PARTS])
def test_genes_come_from_the_spot_the_sum_over_its_parts_and_the_maximum_over_its_neighbours(parts):
    spots, net = sets(parts=parts), network(parts)
    expected = []
    for spot in range(len(spots)):
        joined = [net.spot(spots.z[spot])]
        if parts:
            joined.append(sum(net.subspot(part) for part in spots.subspots[spot]))
        joined.append(torch.stack([net.neighbour(spots.z[other]) for other in spots.near[spot]]).max(dim=0).values)
        expected.append(net.genes(torch.cat(joined)))
    torch.testing.assert_close(net(spots), torch.stack(expected))


@torch.no_grad()
def test_the_order_of_parts_and_of_neighbours_does_not_matter():
    spots, net = sets(), network()
    parts, near = torch.randperm(N_PARTS), torch.randperm(6)
    turned = replace(spots, subspots=spots.subspots[:, parts], near=spots.near[:, near])
    torch.testing.assert_close(net(turned), net(spots))


@torch.no_grad()
def test_a_neighbour_that_is_there_twice_counts_once_and_a_part_that_is_there_twice_counts_twice():
    spots, net = sets(), network()
    twice = replace(spots, near=torch.cat([spots.near, spots.near[:, :1]], dim=1))
    torch.testing.assert_close(net(twice), net(spots))
    twice = replace(spots, subspots=torch.cat([spots.subspots, spots.subspots[:, :1]], dim=1))
    assert not torch.allclose(net(twice), net(spots))


@torch.no_grad()
def test_some_spots_give_what_all_spots_give():
    spots, net = sets(), network()
    chosen = np.array([7, 3, 19])
    assert len(spots[chosen]) == 3
    torch.testing.assert_close(net(spots[chosen]), net(spots)[chosen])
    torch.testing.assert_close(torch.cat([net(part) for part in spots.split(7)]), net(spots))


def test_neighbours_are_the_six_nearest_of_the_slide_and_repeated_where_there_are_fewer():
    xy = np.vstack([square(120), square(120), [[0.0, 0.0], [5.0, 0.0], [0.0, 9.0]]])
    slide = np.repeat(["a", "b", "small"], [120, 120, 3])
    near = _neighbours(Spots(xy, xy, slide, None, None)).numpy()
    assert near.shape == (243, 6)
    assert (slide[near] == slide[:, None]).all() and (near != np.arange(243)[:, None]).all()
    distance = np.linalg.norm(xy[near[40]] - xy[40], axis=1)
    assert np.sort(distance)[:4].tolist() == [100] * 4 and len(set(near[40])) == 6
    assert set(near[240]) == {241, 242}


def test_every_network_starts_elsewhere_and_the_prediction_is_their_mean(monkeypatch):
    monkeypatch.setattr(deepspot, "N_NETWORKS", 3)
    references, target, _ = data()
    seeds, outputs = [], []
    train, read = deepspot.train_for, deepspot._outputs
    monkeypatch.setattr(deepspot, "train_for", lambda *a: seeds.append(a[-1]) or train(*a))
    monkeypatch.setattr(deepspot, "_outputs", lambda *a: outputs.append(read(*a)) or outputs[-1])
    actual = predict_deepspot(references, target, 10)
    assert seeds == [10, 11, 12]
    members = outputs[-3:]
    assert not np.allclose(members[0], members[1])
    mean, spread = references.y.mean(axis=0, dtype=float), references.y.std(axis=0, dtype=float)
    np.testing.assert_allclose(actual, mean + np.mean(members, axis=0) * spread, rtol=1e-4)


def test_epochs_are_chosen_once_on_a_reference_that_the_network_has_not_seen(monkeypatch):
    references, target, _ = data()
    trained: list[tuple[int, int]] = []
    real = early_stopping.train_in_batches

    def spy(network, x, y, settings, *, score, generator):
        trained.append((len(x), settings.epochs))
        return real(network, x, y, settings, score=score, generator=generator)

    monkeypatch.setattr(early_stopping, "train_in_batches", spy)
    predict_deepspot(references, target, 0)
    assert trained[0] == (120, 8)
    assert len(trained) == 1 + 2 and len(set(trained[1:])) == 1 and trained[1][0] == 240


# What they find.


@pytest.mark.parametrize(
    ("signal", "least"),
    [({}, 0.6), ({"parts": N_PARTS}, 0.5), ({"around": True}, 0.3)],
    ids=["spot", "parts", "around"],
)
def test_deepspot_finds_what_follows_a_spot_its_parts_or_its_neighbours(monkeypatch, signal, least):
    monkeypatch.setattr(deepspot, "MAX_EPOCHS", 60)
    references, target, measured = data(**signal)
    found = predict_deepspot(references, target, 0)
    assert gene_pcc(found, measured) > least
    assert np.square(found - measured).mean() < np.square(references.y.mean(axis=0) - measured).mean()


def test_parts_that_nobody_told_of_are_not_found(monkeypatch):
    monkeypatch.setattr(deepspot, "MAX_EPOCHS", 30)
    references, target, measured = data(parts=N_PARTS)
    without = [replace(spots, z=spots.z[:, 0]) for spots in (references, target)]
    assert abs(gene_pcc(predict_deepspot(*without, 0), measured)) < 0.2


def test_permuting_the_parts_of_a_target_hardly_changes_its_prediction():
    references, target, _ = data(parts=N_PARTS)
    order = np.random.default_rng(0).permutation(N_PARTS)
    turned = replace(target, z=target.z[:, [0, *(1 + order)]])
    expected = predict_deepspot(references, target, 0)
    np.testing.assert_allclose(predict_deepspot(references, turned, 0), expected, rtol=1e-4, atol=1e-4)


@PROTOCOLS
def test_protocols_find_the_genes_that_follow_the_morphology(cohort: list[AnnData], method, monkeypatch):
    monkeypatch.setattr(deepspot, "MAX_EPOCHS", 60)
    target, *refs = cohort
    sp.tl.predict(target, refs, genes=list(target.var_names), method=method)
    scores = sp.tl.evaluate(target)["pearson"].groupby(target.var["truth_kind"].astype(str)).mean()
    assert scores["morphology"] > 0.4
    assert abs(scores["flat"]) < 0.2


# Which columns they see.


def with_more_columns(slide: AnnData, more: np.ndarray, context: str) -> None:
    z = slide.obsm["X_sim"]
    slide.obsm["X_sim"] = np.hstack([z, more]).astype(np.float32)
    record = slide.uns["spahgc"]["embeddings"]["X_sim"] | {"dim": z.shape[1], "context": context}
    sp.pp.use_embedding(slide, "X_sim", record=record)


@PROTOCOLS
def test_a_context_is_not_seen_by_those_who_compare_encoders(cohort, method):
    expected = sp.tl.predict(cohort[0], cohort[1:], method=method, copy=True).layers["spahgc"]
    rng = np.random.default_rng(0)
    for slide in cohort:
        with_more_columns(slide, rng.normal(size=slide.obsm["X_sim"].shape), LEVELS)
    found = sp.tl.predict(cohort[0], cohort[1:], method=method, copy=True).layers["spahgc"]
    np.testing.assert_array_equal(found, expected)
    other = sp.tl.predict(cohort[0], cohort[1:], method="ridge", copy=True).layers["spahgc"]
    assert not np.array_equal(other, sp.tl.predict(cohort[0], cohort[1:], method="hest", copy=True).layers["spahgc"])


def test_parts_of_a_spot_are_columns_whose_record_says_so(cohort, tmp_path):
    expected = sp.tl.predict(cohort[0], cohort[1:], method="deepspot", copy=True).layers["spahgc"]
    hest = sp.tl.predict(cohort[0], cohort[1:], method="hest", copy=True).layers["spahgc"]
    rng = np.random.default_rng(0)
    for slide in cohort:
        n, dim = slide.obsm["X_sim"].shape
        with_more_columns(slide, rng.normal(size=(n, 9 * dim)), "subspots 9")
    cohort[0].write_h5ad(tmp_path / "slide.h5ad")
    slide = ad.read_h5ad(tmp_path / "slide.h5ad")
    found = sp.tl.predict(slide, cohort[1:], method="deepspot", copy=True).layers["spahgc"]
    assert not np.array_equal(found, expected, equal_nan=True)
    np.testing.assert_array_equal(sp.tl.predict(slide, cohort[1:], method="hest", copy=True).layers["spahgc"], hest)
    result = sp.tl.cross_validate(cohort, group_by="slide", methods=["deepspot"], n_bootstrap=50)
    sp.tl.predict(slide, cohort[1:], method="deepspot")
    rows = result.scores[result.scores["slide"] == slide.obs["slide"].iloc[0]].set_index("gene")
    np.testing.assert_allclose(rows["pearson"], sp.tl.evaluate(slide)["pearson"].loc[rows.index], atol=1e-5)


def test_columns_are_cut_by_the_record_alone():
    z = np.arange(24, dtype=np.float32).reshape(2, 12)
    parts = {"name": "e", "dim": 4, "context": "subspots 2"}
    np.testing.assert_array_equal(seen_columns("ridge", z, parts), z)
    np.testing.assert_array_equal(seen_columns("hest", z, parts), z[:, :4])
    np.testing.assert_array_equal(seen_columns("deepspot", z, parts), z.reshape(2, 3, 4))
    np.testing.assert_array_equal(seen_columns("deepspot", z, {}), z)
    np.testing.assert_array_equal(seen_columns("hest", z, {"dim": 12, "context": "patch"}), z)


def test_a_record_of_other_parts_than_there_are_columns_is_refused(cohort):
    for slide in cohort:
        with_more_columns(slide, slide.obsm["X_sim"], "subspots 9")
    with pytest.raises(
        ValueError, match=r'tells of 240 columns \(dim 24, context "subspots 9"\), but the embedding has 48'
    ):
        sp.tl.predict(cohort[0], cohort[1:], method="deepspot")


@PROTOCOLS
def test_the_protocols_are_baselines_as_all_others(method):
    assert method in BASELINES
    assert f'"{method}"' in sp.tl.predict.__doc__
