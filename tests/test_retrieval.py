"""Prediction by retrieval: attention in a learned space with similarity as a bias, samples of the bank, and their files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import AnnData
from torch import Tensor

import spahgc as sp
from spahgc import Parameters
from spahgc._linear.node_features import LowRankFeatures
from spahgc._spots.rows import Spots, leave_one_out
from spahgc._training.graphs import SampledTask, bank_spots, training_task, training_tasks
from spahgc._training.networks import new_network
from spahgc.nn import (
    Edges,
    ExpressionRetrieval,
    HeteroGraph,
    SpaHGCNetwork,
    Task,
    expected_view,
    masked_views,
    predict_and_attend,
    train,
)
from spahgc.pp._bank.references import embedding_blocks

N_TARGET, N_REFERENCE, DIM, GENES, WIDTH, HEADS = 7, 11, 5, 3, 8, 2
EXACT = {"rtol": 1e-10, "atol": 1e-12}
"""Float error in double precision."""
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Float error in single precision."""
RETRIEVAL = Parameters(
    n_axes=8,
    n_around=3,
    n_components=3,
    line=True,
    n_retrieved=12,
    width=16,
    layers=0,
    heads=2,
    epochs=3,
    alignment=0.0,
)


@pytest.fixture(autouse=True)
def _double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sp.settings, "device", "cpu")
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def edges() -> Edges:
    """Between 1 and 6 sources for every receiver, in no order; the last receiver has none."""
    rng = np.random.default_rng(0)
    pairs = [(s, r) for r in range(N_TARGET - 1) for s in rng.permutation(N_REFERENCE)[: rng.integers(1, 7)]]
    rng.shuffle(pairs)
    source, receiver = torch.tensor(np.array(pairs).T)
    return Edges(source, receiver, N_REFERENCE, N_TARGET, torch.from_numpy(rng.random(len(pairs))))


def ends(edges: Edges) -> list[tuple[int, int]]:
    return list(zip(edges.source.tolist(), edges.receiver.tolist(), strict=True))


# Similarity along edges.


def standardised(edges: Edges) -> np.ndarray:
    """A loop over the receivers."""
    out, receiver = np.zeros(len(edges.source)), edges.receiver.numpy()
    for node in np.unique(receiver):
        own = edges.similarity.numpy()[receiver == node]
        out[receiver == node] = (own - own.mean()) / (own.std() + 1e-6)
    return out


def test_similarity_is_standardised_over_the_sources_of_each_receiver(edges):
    np.testing.assert_allclose(edges.standard_similarity, standardised(edges), **EXACT)


@pytest.mark.parametrize("value", [0.0, 0.7, -1.0])
def test_sources_that_are_equally_alike_are_told_apart_by_nothing(edges, value):
    same = replace(edges, similarity=torch.full_like(edges.similarity, value))
    np.testing.assert_allclose(same.standard_similarity, 0, atol=1e-9)


def test_edges_of_which_nobody_knows_how_alike_their_nodes_are_say_so(edges):
    with pytest.raises(ValueError, match="do not say how alike their nodes are. Pass similarity="):
        _ = replace(edges, similarity=None).standard_similarity


def test_similarity_stays_with_its_edge_however_edges_are_numbered(edges):
    known = dict(zip(ends(edges), edges.similarity.tolist(), strict=True))
    turned = edges.reversed
    assert {(r, s): x for (s, r), x in zip(ends(turned), turned.similarity.tolist(), strict=True)} == known
    joined, nodes = edges.between_joined, edges.joined_sources.tolist()
    assert {(nodes[s], r): x for (s, r), x in zip(ends(joined), joined.similarity.tolist(), strict=True)} == known
    rows = torch.tensor([4, 0, 2])
    some, which = edges.into(rows)
    torch.testing.assert_close(some.similarity, edges.similarity[which])
    torch.testing.assert_close(some.standard_similarity, edges.standard_similarity[which], **EXACT)


# Attention with a bias, and values of a width of their own.


def loop_attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, bias: np.ndarray, edges: Edges
) -> tuple[np.ndarray, np.ndarray]:
    """One head: receivers x width of ``v``, and a weight an edge."""
    out, weights = np.zeros((len(q), v.shape[1])), np.zeros(len(bias))
    for node in range(len(q)):
        own = [i for i, (_, receiver) in enumerate(ends(edges)) if receiver == node]
        scores = np.array([q[node] @ k[ends(edges)[i][0]] / np.sqrt(q.shape[1]) + bias[i] for i in own])
        for i, weight in zip(own, np.exp(scores) / np.exp(scores).sum(), strict=True):
            weights[i] = weight
            out[node] += weight * v[ends(edges)[i][0]]
    return out, weights


def test_a_bias_is_added_to_the_score_of_its_edge_and_head(edges):
    q, k, v = torch.randn(N_TARGET, 6), torch.randn(N_REFERENCE, 6), torch.randn(N_REFERENCE, 2 * GENES)
    bias = torch.randn(len(edges.source), 2)
    attended = edges.attend(q, k, v, 2, bias)
    for head in range(2):
        of_head = [x.chunk(2, dim=1)[head].numpy() for x in (q, k, v)]
        out, weights = loop_attention(*of_head, bias[:, head].numpy(), edges)
        np.testing.assert_allclose(attended.out.chunk(2, dim=1)[head], out, **EXACT)
        np.testing.assert_allclose(attended.weights[:, head], weights, **EXACT)


def test_a_bias_of_zeros_changes_nothing(edges):
    q, k, v = torch.randn(N_TARGET, 6), torch.randn(N_REFERENCE, 6), torch.randn(N_REFERENCE, 6)
    without, zeros = edges.attend(q, k, v, 2), edges.attend(q, k, v, 2, torch.zeros(len(edges.source), 2))
    assert torch.equal(without.out, zeros.out) and torch.equal(without.weights, zeros.weights)


def test_gradients_of_queries_keys_values_and_bias_are_right(edges):
    inputs = [torch.randn(N_TARGET, 4), torch.randn(N_REFERENCE, 4), torch.randn(N_REFERENCE, 6)]
    inputs = [x.requires_grad_() for x in (*inputs, torch.randn(len(edges.source), 2))]
    assert torch.autograd.gradcheck(lambda q, k, v, bias: edges.attend(q, k, v, 2, bias).out, inputs)


def test_a_large_bias_takes_all_the_attention(edges):
    q, k, v = torch.randn(N_TARGET, 4), torch.randn(N_REFERENCE, 4), torch.randn(N_REFERENCE, 4)
    chosen = [
        next(i for i, (_, receiver) in enumerate(ends(edges)) if receiver == node) for node in range(N_TARGET - 1)
    ]
    bias = torch.zeros(len(edges.source), 2)
    bias[chosen] = 50.0
    np.testing.assert_allclose(edges.attend(q, k, v, 2, bias).weights[chosen], 1, rtol=1e-9)


# Retrieval.


@pytest.fixture
def retrieval() -> ExpressionRetrieval:
    module = ExpressionRetrieval(DIM, GENES, WIDTH, HEADS)
    with torch.no_grad():
        for part in module.parameters():
            part.add_(0.3 * torch.randn_like(part))
    return module


def test_retrieval_follows_its_formula(retrieval, edges):
    target, reference, y = torch.randn(N_TARGET, DIM), torch.randn(N_REFERENCE, DIM), torch.randn(N_REFERENCE, GENES)
    predicted, weights = retrieval(target, reference, y, edges)
    expected = np.tile(retrieval.offset.detach().numpy(), (N_TARGET, 1))
    matrix, shift = (x.detach().numpy() for x in (retrieval.space.weight, retrieval.space.bias))
    for head in range(HEADS):
        rows = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
        q, k = (x.numpy() @ matrix[rows].T + shift[rows] for x in (target, reference))
        q, k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
        scale, of_bias = (x[head].exp().item() for x in (retrieval.log_scale, retrieval.log_bias))
        q = q * scale * np.sqrt(q.shape[1])
        out, of_head = loop_attention(q, k, y.numpy(), of_bias * standardised(edges), edges)
        np.testing.assert_allclose(weights[:, head], of_head, **EXACT)
        expected += retrieval.weight[head].detach().numpy() * out
    np.testing.assert_allclose(predicted.detach(), expected, **EXACT)


def test_before_training_the_prediction_is_a_mean_of_the_expression(edges):
    predicted, weights = ExpressionRetrieval(DIM, GENES, WIDTH, HEADS)(
        torch.randn(N_TARGET, DIM), torch.randn(N_REFERENCE, DIM), torch.ones(N_REFERENCE, GENES), edges
    )
    np.testing.assert_allclose(predicted[:-1].detach(), 1, **EXACT)
    assert (predicted[-1] == 0).all(), "a spot without an edge"
    totals = torch.zeros(N_TARGET, HEADS).index_add_(0, edges.receiver, weights)
    np.testing.assert_allclose(totals[:-1], 1, **EXACT)


def test_the_width_of_the_space_is_divided_among_the_heads():
    with pytest.raises(ValueError, match="width must be a multiple of heads: got width=9, heads=2"):
        ExpressionRetrieval(DIM, GENES, 9, 2)


def entropy_share(weights: Tensor) -> Tensor:
    """Entropy of each row as a share of the largest possible."""
    return -(weights * (weights + 1e-30).log()).sum(dim=1) / np.log(weights.shape[1])


def with_an_obvious_source(n: int, seed: int) -> Task:
    """Target spot ``i`` has the code and the expression of reference spot ``i``; the rest of what is seen is larger noise.

    All reference spots are candidates, and their similarity is that of code and noise together.
    """
    rng = np.random.default_rng(seed)
    code, y = rng.normal(size=(n, 6)), rng.normal(size=(n, GENES))
    target, reference = (np.hstack([code, 1.5 * rng.normal(size=(n, 6))]) for _ in range(2))
    cosine = target @ reference.T
    cosine /= np.linalg.norm(target, axis=1)[:, None] * np.linalg.norm(reference, axis=1)
    receiver, source = torch.arange(n).repeat_interleave(n), torch.arange(n).repeat(n)
    cs = Edges(source, receiver, n, n, torch.from_numpy(cosine.ravel()))
    return Task(HeteroGraph(*map(torch.from_numpy, (target, reference, y)), {"cs": cs}), torch.from_numpy(y))


def test_attention_finds_the_reference_spot_that_is_the_obvious_source():
    n, parameters = 60, replace(RETRIEVAL, epochs=60, learning_rate=1e-2, target_hidden=0.1, reference_hidden=0.1)
    network = SpaHGCNetwork(12, GENES, width=WIDTH, layers=0, heads=HEADS, retrieval=True)
    unseen = with_an_obvious_source(n, seed=9)

    def attention() -> Tensor:
        return predict_and_attend(network, unseen.graph, parameters)[1].mean(dim=0).view(n, n)

    before = attention()
    train(network, [with_an_obvious_source(n, seed) for seed in range(4)], parameters, rng=np.random.default_rng(0))
    after = attention()
    assert before.diagonal().median() < 0.5 <= after.diagonal().median()
    assert entropy_share(after).median() < 0.6


def test_states_of_the_papers_network_leave_the_same_attention_almost_uniform():
    n = 60
    network = SpaHGCNetwork(12, GENES, width=WIDTH, layers=1, heads=HEADS)
    task = with_an_obvious_source(n, seed=9)
    everything = Edges(task.graph.cs.source, task.graph.cs.receiver, n, n)
    graph = replace(task.graph, edges={"cs": everything, "ts": everything, "rs": everything})
    weights = predict_and_attend(network, graph, Parameters())[1].mean(dim=0).view(n, n)
    assert entropy_share(weights).median() > 0.98


# The network around it.


@pytest.mark.parametrize("layers", [0, 2])
def test_a_slide_in_blocks_is_predicted_as_in_one_piece(edges, layers):
    network = SpaHGCNetwork(DIM, GENES, width=WIDTH, layers=layers, heads=HEADS, retrieval=True)
    nodes = torch.randn(N_TARGET, DIM), torch.randn(N_REFERENCE, DIM), torch.randn(N_REFERENCE, GENES)
    ring = [Edges(torch.arange(n), torch.arange(n).roll(1), n, n) for n in (N_TARGET, N_REFERENCE)]
    graph = HeteroGraph(*nodes, {"cs": edges} | (dict(zip(("ts", "rs"), ring, strict=True)) if layers else {}))
    whole, weights = predict_and_attend(network, graph, RETRIEVAL)
    assert weights.shape == (1, len(edges.source)), "the weights of retrieval alone"
    by_blocks = predict_and_attend(network, graph, RETRIEVAL, [torch.tensor([5, 0, 1]), torch.tensor([2, 3, 4, 6])])
    torch.testing.assert_close(by_blocks[0], whole, **EXACT)
    torch.testing.assert_close(by_blocks[1], weights, **EXACT)


def test_the_expression_that_is_read_off_is_not_hidden(edges):
    nodes = torch.randn(N_TARGET, DIM), torch.randn(N_REFERENCE, DIM), torch.randn(N_REFERENCE, GENES)
    graph = HeteroGraph(*nodes, {"cs": edges})
    assert RETRIEVAL.expression_hidden == 0 and Parameters().expression_hidden == Parameters().reference_hidden
    view = next(masked_views(graph, 0.5, 0.5, np.random.default_rng(0), RETRIEVAL.expression_hidden))
    assert torch.equal(view.expression, graph.expression) and (view.reference == 0).any()
    torch.testing.assert_close(expected_view(graph, 0.5, 0.5, 0.0).visible("expression"), graph.expression)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 0, "alignment": 0.0}, "layers=0 leaves a network that looks at no reference"),
        ({"layers": 0, "n_retrieved": 5}, "layers=0 leaves no states that could be aligned. Pass alignment=0"),
        ({"n_retrieved": -1}, "n_retrieved=-1 must be a whole number of spots"),
        ({"n_retrieved": 2.5}, "n_retrieved=2.5 must be a whole number of spots"),
        ({"step_references": -3}, "step_references=-3 must be a whole number of spots"),
        ({"step_references": 7}, "step_references=7 are too few for 8 neighbours of a spot"),
        ({"step_references": 20, "n_retrieved": 30}, "step_references=20 are too few for 30 neighbours"),
    ],
)
def test_parameters_that_cannot_be_trained_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Parameters(**changes)


# Samples of the bank.


@pytest.fixture
def references(refs: list[AnnData]) -> tuple[Spots, LowRankFeatures]:
    torch.set_default_dtype(torch.float32)
    bank = sp.pp.reference_bank(refs)
    spots = bank_spots(bank)
    return spots, LowRankFeatures.fit(spots, embedding_blocks(bank), RETRIEVAL)


def loss_of(task: Task, parameters: Parameters) -> dict[str, float]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = new_network(task.graph.target.shape[1], task.graph.expression.shape[1], parameters)
    (record,) = train(network, [task], replace(parameters, epochs=1), rng=np.random.default_rng(3))
    return record.to_dict()


@pytest.mark.parametrize("layers", [0, 2])
def test_a_sample_of_everything_has_the_loss_of_the_whole_bank(references, layers):
    spots, node_features = references
    target, bank = leave_one_out(spots)[0]
    parameters = replace(RETRIEVAL, layers=layers, step_references=len(bank))
    whole = training_task(spots, node_features, target, bank, parameters, "cpu")
    sampled = SampledTask.of(spots, node_features, target, bank, parameters, "cpu")
    task = next(sampled.tasks([np.arange(len(target))], [0, 0]))
    for name in ("target", "reference", "expression"):
        assert torch.equal(getattr(task.graph, name), getattr(whole.graph, name)), name
    assert loss_of(task, parameters) == loss_of(whole, parameters)


def test_a_bank_no_larger_than_the_sample_is_used_whole(references):
    spots, node_features = references
    largest = max(len(bank) for _, bank in leave_one_out(spots))
    tasks = training_tasks(spots, node_features, replace(RETRIEVAL, step_references=largest), "cpu")
    assert all(isinstance(task, Task) for task in tasks)


def test_every_step_sees_another_sample_of_the_bank_and_a_seed_repeats_them(references):
    spots, node_features = references
    parameters = replace(RETRIEVAL, step_references=20)

    def epochs(seed: int) -> list[list[Tensor]]:
        tasks = training_tasks(spots, node_features, parameters, "cpu", seed=seed)
        return [[next(task).graph.reference for task in tasks] for _ in range(2)]

    first, second = epochs(0)
    assert all(len(part) == 20 for part in (*first, *second))
    assert not any(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert all(torch.equal(*pair) for pair in zip(first, epochs(0)[0], strict=True))
    assert not any(torch.equal(*pair) for pair in zip(first, epochs(1)[0], strict=True))


def test_a_sample_holds_no_spot_of_the_slide_that_plays_the_target(references):
    spots, node_features = references
    tasks = training_tasks(spots, node_features, replace(RETRIEVAL, step_references=20), "cpu")
    rows = [tuple(row) for row in node_features.features.tolist()]
    for (target, _), task in zip(leave_one_out(spots), tasks, strict=True):
        own = {rows[spot] for spot in target}
        for _ in range(5):
            graph = next(task).graph
            assert [tuple(row) for row in graph.target.tolist()] == [rows[spot] for spot in target]
            assert not own & {tuple(row) for row in graph.reference.tolist()}


def test_blocks_of_a_large_slide_are_sampled_for_as_well(references, monkeypatch):
    spots, node_features = references
    monkeypatch.setattr("spahgc._training.graphs.MAX_TASK_SPOTS", 20)
    monkeypatch.setattr("spahgc._training.graphs.TASK_BLOCK_SPOTS", 12)
    parameters = replace(RETRIEVAL, step_references=20, layers=1)
    for task in training_tasks(spots, node_features, parameters, "cpu"):
        made = next(task)
        assert len(made.measured) <= 12 and len(made.graph.reference) == 20
        assert len(made.graph.target) > len(made.measured), "a halo, on which the states depend"
        assert set(made.graph.edges) == {"ts", "cs", "rs"}
    assert all(
        set(next(task).graph.edges) == {"cs"}
        for task in training_tasks(spots, node_features, replace(parameters, layers=0), "cpu")
    )


# Models.


@pytest.fixture
def slides(cohort: list[AnnData]) -> list[AnnData]:
    torch.set_default_dtype(torch.float32)
    return cohort


def test_a_spot_retrieves_from_all_references_where_they_are_few(slides):
    model = sp.tl.fit(slides[1:], preset=replace(RETRIEVAL, n_retrieved=10_000))
    attention = model.attention(slides[0])
    assert (np.diff(attention.indptr) == model.bank.n_obs).all()
    np.testing.assert_allclose(attention.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"layers": 1}, {"n_networks": 2, "step_references": 20}])
def test_a_model_that_retrieves_is_read_as_it_was_saved(slides, changes, tmp_path):
    model = sp.tl.fit(slides[1:], preset=replace(RETRIEVAL, **changes))
    model.save(tmp_path / "model")
    again = sp.SpaHGC.load(tmp_path / "model")
    assert again.parameters == model.parameters
    np.testing.assert_array_equal(again.predict(slides[0]), model.predict(slides[0]))
    np.testing.assert_array_equal(again.attention(slides[0]).toarray(), model.attention(slides[0]).toarray())


def as_format_3(folder: Path) -> None:
    """A model without retrieval, as the format before described it."""
    path = folder / "model.json"
    description = json.loads(path.read_text())
    assert description["parameters"].pop("experts") == []
    for name in ("n_retrieved", "step_references"):
        assert description["parameters"].pop(name) == 0
    path.write_text(json.dumps(description | {"format": 3}))


@pytest.mark.parametrize("axes", [0, 8])
def test_a_model_of_the_format_before_is_read(slides, quick, axes, tmp_path):
    parameters = replace(quick, n_axes=axes, line=axes > 0, n_components=3 * (axes > 0))
    model = sp.tl.fit(slides[1:], preset=parameters)
    model.save(tmp_path / "model")
    as_format_3(tmp_path / "model")
    again = sp.SpaHGC.load(tmp_path / "model")
    assert again.parameters == parameters
    np.testing.assert_array_equal(again.predict(slides[0]), model.predict(slides[0]))


def test_slides_that_are_trained_in_blocks_need_no_graph_among_references(slides, monkeypatch):
    expected = sp.tl.fit(slides[1:], preset=replace(RETRIEVAL, epochs=1)).predict(slides[0])
    monkeypatch.setattr("spahgc._training.graphs.MAX_TASK_BANK", 10)
    monkeypatch.setattr("spahgc.model.spare_rs_graph", None)
    by_blocks = sp.tl.fit(slides[1:], preset=replace(RETRIEVAL, epochs=1)).predict(slides[0])
    # Masks are drawn for the retrieved spots alone, which are other masks.
    assert np.corrcoef(expected.ravel(), by_blocks.ravel())[0, 1] > 0.9


def test_nothing_of_the_default_looks_at_the_papers_states(slides):
    default, paper = Parameters.preset("default"), Parameters.preset("paper")
    assert default.n_retrieved and not default.layers
    assert (paper.n_retrieved, paper.step_references, paper.layers, paper.n_sources) == (0, 0, 4, 7)
