"""Slides of any size: the same numbers in blocks as at once, and memory that a block takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc import Parameters, SpaHGC
from spahgc._linear.low_rank import ImageAxes
from spahgc._linear.node_features import LowRankFeatures
from spahgc._linear.trust import held_out_trust
from spahgc._spots.plane import reached, spatial_blocks, with_halo
from spahgc._spots.rows import SomeRows, Spots, leave_one_out, standardize
from spahgc._training import graphs as _graphs
from spahgc._training import networks as _networks
from spahgc._training.graphs import (
    bank_spots,
    hetero_graph,
    most_similar,
    needed_references,
    training_task,
    training_tasks,
)
from spahgc.nn import (
    Edges,
    HeteroGraph,
    SpaHGCNetwork,
    Task,
    expression_loss,
    predict_and_attend,
    predict_expression,
    train,
)
from spahgc.pp._bank import references as _bank
from spahgc.pp._bank.references import embedding_blocks
from spahgc.pp._edge_types import REFERENCE, TARGET, Nodes, build_edges

N_TARGET, N_BANK, DIM, GENES = 120, 90, 6, 4
SETTINGS = Parameters(epochs=1, n_spatial=5, target_hidden=0.6, reference_hidden=0.7, alignment=1.0)
EXACT = {"rtol": 1e-10, "atol": 1e-12}
"""Float error in double precision."""
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Float error in single precision."""


def arrays(seed: int = 0, n_bank: int = N_BANK) -> tuple[np.ndarray, ...]:
    """Features and centres of a target, features and expression of a bank."""
    rng = np.random.default_rng(seed)
    xy = 10 * rng.random((N_TARGET, 2))
    return rng.normal(size=(N_TARGET, DIM)), xy, rng.normal(size=(n_bank, DIM)), rng.normal(size=(n_bank, GENES))


def nearest(features: np.ndarray, others: np.ndarray, k: int) -> csr_matrix:
    near = np.argsort(-features @ others.T, axis=1)[:, :k]
    return csr_matrix((np.ones(near.size), near.ravel(), np.arange(0, near.size + 1, k)), (len(features), len(others)))


def matrix_of(edges: Edges) -> csr_matrix:
    """A row of the matrix receives from its columns."""
    ends = edges.receiver.numpy(), edges.source.numpy()
    return csr_matrix((np.ones(len(ends[0])), ends), (edges.n_receiver, edges.n_source))


def spot_graph(
    target: np.ndarray,
    xy: np.ndarray,
    reference: np.ndarray,
    expression: np.ndarray,
    cross: csr_matrix,
    peers: csr_matrix,
    hops: int | None = None,
) -> HeteroGraph:
    """Graph of a target and a bank; with ``hops`` without the references that so many layers cannot reach."""
    nodes = {TARGET: Nodes(target, xy), REFERENCE: Nodes(reference, expression=expression)}
    graphs = build_edges(nodes, SETTINGS, known={"cs": cross, "rs": peers})
    return hetero_graph(*((nodes, graphs) if hops is None else needed_references(nodes, graphs, hops)), "cpu")


def predict_by_blocks(
    network: SpaHGCNetwork, graph: HeteroGraph, blocks: list[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Expression, and mean attention over layers and pooling."""
    predicted, attention = predict_and_attend(network, graph, SETTINGS, blocks)
    return predicted, attention.mean(0)


@pytest.fixture
def graph() -> HeteroGraph:
    target, xy, reference, expression = arrays()
    cross, peers = nearest(target, reference, 3), nearest(reference, reference, 4)
    graph = spot_graph(target, xy, reference, expression, cross, peers)
    return replace(graph, **{name: getattr(graph, name).double() for name in ("target", "reference", "expression")})


@pytest.fixture(params=[1, 2, 4])
def network(request) -> SpaHGCNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SpaHGCNetwork(DIM, GENES, width=16, layers=request.param, heads=2).double()


def in_blocks(size: int = 13) -> list[torch.Tensor]:
    return [torch.from_numpy(block) for block in spatial_blocks(arrays()[1], size)]


# Prediction.


@pytest.mark.parametrize("size", [1, 13, N_TARGET])
def test_a_prediction_in_blocks_is_that_of_the_whole_slide(network, graph, size):
    predicted, attention = predict_by_blocks(network, graph, in_blocks(size))
    expected, weights = predict_and_attend(network, graph, SETTINGS)
    torch.testing.assert_close(predicted, expected, **EXACT)
    torch.testing.assert_close(attention, weights.mean(0), **EXACT)


def test_which_spots_make_a_block_does_not_matter(network, graph):
    scattered = [torch.arange(first, N_TARGET, 7) for first in range(7)]
    predicted, attention = predict_by_blocks(network, graph, scattered)
    by_place, weights = predict_by_blocks(network, graph, in_blocks())
    torch.testing.assert_close(predicted, by_place, **EXACT)
    torch.testing.assert_close(attention, weights, **EXACT)


def without_halo(graph: HeteroGraph, blocks: list[torch.Tensor]) -> HeteroGraph:
    """The same graph without the edges in the plane that leave a block."""
    block_of = torch.empty(N_TARGET, dtype=torch.int64)
    for number, block in enumerate(blocks):
        block_of[block] = number
    inside = block_of[graph.ts.source] == block_of[graph.ts.receiver]
    assert 0 < inside.sum() < len(inside)
    ts = Edges(graph.ts.source[inside], graph.ts.receiver[inside], N_TARGET, N_TARGET)
    return replace(graph, edges={**graph.edges, "ts": ts})


def test_a_prediction_in_blocks_whose_halo_is_cut_differs(network, graph):
    predicted, _ = predict_by_blocks(network, without_halo(graph, in_blocks()), in_blocks())
    assert (predicted - predict_expression(network, graph, SETTINGS)).abs().max() > 1e-3


def test_a_halo_in_the_plane_alone_would_not_do():
    """Blocks predicted one by one, each with all spots within the network's reach, lack what references hear elsewhere."""
    target, xy, reference, expression = (part.astype(np.float32) for part in arrays())
    cross, peers = nearest(target, reference, 3), nearest(reference, reference, 4)
    torch.manual_seed(0)
    network = SpaHGCNetwork(DIM, GENES, width=16, layers=2, heads=2)
    whole = spot_graph(target, xy, reference, expression, cross, peers)
    expected = predict_expression(network, whole, SETTINGS)
    near = matrix_of(whole.ts)
    block = spatial_blocks(xy, 40)[0]
    shown = with_halo(block, near, 2)
    alone = spot_graph(target[shown], xy[shown], reference, expression, cross[shown], peers)
    difference = predict_expression(network, alone, SETTINGS)[: len(block)] - expected[block]
    assert difference.abs().max() > 1e-3


def test_a_reference_spot_that_all_target_spots_retrieve_is_heard_in_parts(network, graph):
    hub = torch.zeros_like(graph.cs.source)
    hub[1::3], hub[2::3] = graph.cs.source[1::3].clamp(min=1), N_BANK - 1  # two of three edges of a spot lead to hubs
    crowded = replace(graph, edges={**graph.edges, "cs": Edges(hub, graph.cs.receiver, N_BANK, N_TARGET)})
    predicted, _ = predict_by_blocks(network, crowded, in_blocks())
    torch.testing.assert_close(predicted, predict_expression(network, crowded, SETTINGS), **EXACT)


@pytest.fixture(scope="module")
def model(_cohort: list[AnnData], quick_default: Parameters) -> SpaHGC:
    return sp.tl.fit(_cohort[1:], preset=replace(quick_default, n_networks=2, n_retrieved=2), device="cpu")


def test_slides_beyond_the_documented_size_are_predicted_in_blocks_by_themselves(target, model, monkeypatch):
    expected = sp.tl.predict(target, model=model, copy=True, device="cpu")
    seen = []
    monkeypatch.setattr(_networks, "MAX_WHOLE_SPOTS", target.n_obs - 1)
    monkeypatch.setattr(_networks, "PREDICTION_BLOCK_SPOTS", 16)
    by_blocks = predict_and_attend
    monkeypatch.setattr(_networks, "predict_and_attend", lambda *inputs: seen.append(inputs[-1]) or by_blocks(*inputs))
    actual = sp.tl.predict(target, model=model, copy=True, device="cpu")
    assert len(seen) == 2 and max(len(block) for block in seen[0]) <= 16
    for layer in ("spahgc", "spahgc_std"):
        np.testing.assert_allclose(actual.layers[layer], expected.layers[layer], **CLOSE)
    for name in ("spahgc_cs", "spahgc_attention"):
        np.testing.assert_allclose(actual.obsm[name].toarray(), expected.obsm[name].toarray(), **CLOSE)


# References of which no target spot hears.


def test_only_references_within_the_reach_of_the_network_are_looked_at(network, graph, monkeypatch):
    monkeypatch.setattr("spahgc._training.graphs.SMALL_BANK", N_BANK - 1)
    rng = np.random.default_rng(1)
    cross = csr_matrix((np.ones(N_TARGET), (np.arange(N_TARGET), rng.integers(0, 9, N_TARGET))), (N_TARGET, N_BANK))
    chain = csr_matrix(
        (np.ones(N_BANK), (np.arange(N_BANK), (np.arange(N_BANK) + 9) % N_BANK))
    )  # each hears the 9th on
    layers = len(network.layers)
    target, xy, reference, expression = arrays()
    parts = [spot_graph(target, xy, reference, expression, cross, chain, hops) for hops in (None, layers)]
    assert len(parts[1].reference) == len(parts[1].expression) == 9 * (layers + 1)
    whole, part = (
        replace(g, **{n: getattr(g, n).double() for n in ("target", "reference", "expression")}) for g in parts
    )
    expected, weights = predict_and_attend(network, whole, SETTINGS)
    for predicted, attention in (
        predict_and_attend(network, part, SETTINGS),
        predict_by_blocks(network, part, in_blocks()),
    ):
        torch.testing.assert_close(predicted, expected, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(attention, weights if attention.ndim == 2 else weights.mean(0), rtol=1e-6, atol=1e-7)
    # In blocks nothing else is computed, even where the graph holds it.
    silent = torch.arange(N_BANK) >= 9 * (layers + 1)
    poisoned = replace(whole, reference=whole.reference.masked_fill(silent[:, None], torch.nan))
    predicted, _ = predict_by_blocks(network, poisoned, in_blocks())
    torch.testing.assert_close(predicted, expected, **EXACT)


def test_a_model_leaves_out_what_a_large_bank_cannot_tell(target, model, monkeypatch):
    expected, attention = model.predict(target), model.attention(target)
    monkeypatch.setattr("spahgc._training.graphs.SMALL_BANK", 0)
    monkeypatch.setattr(
        "spahgc._training.graphs.reached", lambda nodes, *rest: seen.append(reached(nodes, *rest)) or seen[-1]
    )
    seen: list[np.ndarray] = []
    np.testing.assert_allclose(model.predict(target), expected, **CLOSE)
    np.testing.assert_allclose(model.attention(target).toarray(), attention.toarray(), **CLOSE)
    assert seen and len(seen[0]) < model.bank.n_obs


def test_nodes_that_are_reached_are_those_at_the_end_of_so_many_edges():
    ring = csr_matrix((np.ones(10), (np.arange(10), (np.arange(10) + 1) % 10)))
    assert reached(np.array([8, 3, 3]), ring, 0).tolist() == [3, 8]
    assert reached(np.array([8, 3]), ring, 2).tolist() == [0, 3, 4, 5, 8, 9]
    assert with_halo(np.array([3, 8]), ring, 1).tolist() == [3, 8, 4, 9]


def test_blocks_are_disjoint_compact_and_nearly_of_one_size():
    xy = np.random.default_rng(0).random((1000, 2)) * (4, 1)
    blocks = spatial_blocks(xy, 150)
    assert sorted(np.concatenate(blocks)) == list(range(1000))
    assert {len(block) for block in blocks} == {125}
    assert np.mean([np.ptp(xy[block], axis=0).prod() for block in blocks]) < 4 / 8
    assert [len(block) for block in spatial_blocks(np.zeros((5, 2)), 2)] == [2, 1, 2]


# Training.


@pytest.fixture
def references(refs) -> tuple[Spots, LowRankFeatures, Parameters]:
    bank = sp.pp.reference_bank(refs)
    parameters = Parameters(n_axes=8, n_around=3, n_components=3, line=True, width=16, layers=2, heads=2, epochs=2)
    spots = bank_spots(bank)
    return spots, LowRankFeatures.fit(spots, embedding_blocks(bank), parameters), parameters


@pytest.fixture
def tiny(monkeypatch) -> None:
    """Slides of more than 40 spots are large, and blocks have 12 spots at most."""
    monkeypatch.setattr(_graphs, "MAX_TASK_SPOTS", 40)
    monkeypatch.setattr(_graphs, "TASK_BLOCK_SPOTS", 12)


def made(tasks: list) -> list[Task]:
    """The tasks of an epoch, which asks every iterator for the next one."""
    return [task if isinstance(task, Task) else next(task) for task in tasks]


def own_of(spots: Spots, node_features: LowRankFeatures, task: Task) -> list[int]:
    """Which reference spots a task is judged on, found by their features."""
    places = {features.tobytes(): number for number, features in enumerate(np.asarray(node_features.features))}
    return [places[row.tobytes()] for row in task.graph.target.numpy()[: len(task.measured)]]


def test_small_slides_are_trained_as_a_whole(references):
    spots, node_features, parameters = references
    tasks = training_tasks(spots, node_features, parameters, "cpu")
    assert len(tasks) == 3
    for task, (target, bank) in zip(tasks, leave_one_out(spots), strict=True):
        whole = training_task(spots, node_features, target, bank, parameters, "cpu")
        for name in ("target", "reference", "expression"):
            assert torch.equal(getattr(task.graph, name), getattr(whole.graph, name)), name
        for name in ("ts", "cs", "rs"):
            assert torch.equal(getattr(task.graph, name).source, getattr(whole.graph, name).source), name
        assert torch.equal(task.measured, whole.measured)


def test_a_task_of_a_large_slide_is_a_block_its_halo_and_the_references_they_retrieve(references, tiny):
    spots, node_features, parameters = references
    target, bank = leave_one_out(spots)[0]
    whole = training_task(spots, node_features, target, bank, parameters, "cpu").graph
    near, cross = matrix_of(whole.ts), matrix_of(whole.cs)
    task = next(training_tasks(spots, node_features, parameters, "cpu")[0])
    block = np.searchsorted(target, own_of(spots, node_features, task))
    shown = with_halo(block, near, parameters.layers)
    assert 6 <= len(block) <= 12 < len(shown) < len(target)
    np.testing.assert_array_equal(task.graph.target, whole.target[shown])
    np.testing.assert_array_equal(task.measured, node_features.training_target[target[block]])
    retrieved = {whole.reference[i].numpy().tobytes() for i in cross[shown].indices}
    there = {row.numpy().tobytes() for row in task.graph.reference}
    assert retrieved < there and len(there) == len(task.graph.reference)
    pairs = zip(task.graph.cs.receiver.tolist(), task.graph.cs.source.tolist(), strict=True)
    assert all(np.isin(task.graph.reference[s], whole.reference[cross[shown[r]].indices]).all() for r, s in pairs)
    # The states of the block itself are those that it has among all spots, as far as the plane goes.
    inside = np.isin(task.graph.ts.receiver, np.arange(len(block)))
    assert inside.sum() == len(block) * parameters.n_spatial


def test_no_spot_of_the_slide_that_plays_the_target_is_among_its_references(references, tiny):
    spots, node_features, parameters = references
    tasks = training_tasks(spots, node_features, parameters, "cpu")
    for _ in range(3):
        for task in made(tasks):
            own = {row.numpy().tobytes() for row in task.graph.target}
            assert not own & {row.numpy().tobytes() for row in task.graph.reference}


def test_an_epoch_takes_so_many_spots_of_a_large_slide_and_the_next_one_others(references, tiny):
    spots, node_features, parameters = references
    tasks = training_tasks(spots, node_features, parameters, "cpu", seed=1)
    sizes = [len(target) for target, _ in leave_one_out(spots)]
    epochs = [[own_of(spots, node_features, task) for task in made(tasks)] for _ in range(4)]
    for epoch in epochs:
        seen = sum(epoch, [])
        assert len(seen) == len(set(seen))
        assert abs(len(seen) - 40 * len(sizes)) <= 12 * len(sizes) / 2
    assert set(sum(epochs[0], [])) != set(sum(epochs[1], []))
    assert set(sum(sum(epochs, []), [])) == set(range(len(spots)))
    again = training_tasks(spots, node_features, parameters, "cpu", seed=1)
    assert [own_of(spots, node_features, task) for task in made(again)] == epochs[0]
    other = training_tasks(spots, node_features, parameters, "cpu", seed=2)
    assert [own_of(spots, node_features, task) for task in made(other)] != epochs[0]


def test_processes_that_share_an_epoch_train_on_the_blocks_of_one_that_has_it_all(references, tiny):
    spots, node_features, parameters = references
    alone, *shared = (training_tasks(spots, node_features, parameters, "cpu") for _ in range(3))
    for _ in range(3):
        expected = [own_of(spots, node_features, task) for task in made(alone)]
        actual = [own_of(spots, node_features, next(shared[place % 2][place])) for place in range(len(alone))]
        assert actual == expected


def test_a_large_bank_leaves_its_slides_whole_and_shows_what_they_retrieve(references, monkeypatch):
    spots, node_features, parameters = references
    monkeypatch.setattr(_graphs, "MAX_TASK_BANK", 50)
    for task, (target, bank) in zip(
        made(training_tasks(spots, node_features, parameters, "cpu")), leave_one_out(spots), strict=True
    ):
        whole = training_task(spots, node_features, target, bank, parameters, "cpu")
        assert own_of(spots, node_features, task) == target.tolist()
        assert torch.equal(task.graph.ts.source, whole.graph.ts.source)
        assert len(task.graph.reference) < len(bank)
        retrieved = task.graph.reference[task.graph.cs.source]
        assert torch.equal(retrieved, whole.graph.reference[whole.graph.cs.source])


def test_the_loss_of_a_block_is_that_of_its_own_spots(graph):
    torch.manual_seed(0)
    network = SpaHGCNetwork(DIM, GENES, width=16, layers=1, heads=2).double()
    measured = torch.randn(N_TARGET, GENES, dtype=torch.float64)
    settings = replace(SETTINGS, learning_rate=0.0, target_hidden=0.0, reference_hidden=0.0, alignment=0.0)
    (record,) = train(network, [Task(graph, measured[:30])], settings, rng=np.random.default_rng(0))
    predicted = network(graph).detach()
    assert record.terms["expression"] == pytest.approx(expression_loss(predicted[:30], measured[:30]).item(), rel=1e-5)
    assert record.terms["expression"] != pytest.approx(expression_loss(predicted, measured).item(), rel=1e-3)


def test_a_model_trained_in_blocks_is_much_like_one_trained_on_whole_slides(
    target, refs, line_and_graph, tiny, monkeypatch
):
    parameters = replace(line_and_graph, line=False, epochs=20, graph_share=1.0)
    blocks = sp.tl.fit(refs, preset=parameters, device="cpu")
    monkeypatch.undo()
    sp.settings.progress = False
    whole = sp.tl.fit(refs, preset=parameters, device="cpu")
    assert (blocks.bank.obsp["spahgc_rs_connectivities"] != whole.bank.obsp["spahgc_rs_connectivities"]).nnz == 0
    a, b = blocks.predict(target), whole.predict(target)
    morphology = target.var.loc[whole.genes, "truth_kind"] == "morphology"
    correlation = [np.corrcoef(a[:, gene], b[:, gene])[0, 1] for gene in np.flatnonzero(morphology)]
    assert np.abs(a - b).max() > 1e-3
    assert np.median(correlation) > 0.8


def test_the_most_similar_of_a_row_are_kept_in_their_order():
    graph = csr_matrix(np.array([[0.0, 0.3, 0.9, 0.5], [0.2, 0.0, 0.0, 0.0], [0.7, 0.6, 0.0, 0.8]]))
    kept = most_similar(graph, 2)
    np.testing.assert_array_equal(kept.toarray(), [[0, 0, 0.9, 0.5], [0.2, 0, 0, 0], [0.7, 0, 0, 0.8]])
    assert (most_similar(graph, 9) != graph).nnz == 0


# What is read of an embedding, and how often.


class InParts:
    """An embedding that does not let itself be read as a whole."""

    def __init__(self, z: np.ndarray, most: int) -> None:
        self.z, self.most, self.shape = z, most, z.shape

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        part = self.z[rows]
        assert len(part) <= self.most, f"{len(part)} of {len(self.z)} spots were read at once"
        return part


def test_a_fit_reads_embedding_and_transcriptome_in_blocks_and_learns_the_same(refs, quick_default, monkeypatch):
    bank = sp.pp.reference_bank(refs)
    parameters, blocks = replace(quick_default, n_around=3), embedding_blocks(bank)
    spots = bank_spots(bank)
    expected = LowRankFeatures.fit(spots, blocks, parameters)
    expected_trust = held_out_trust(spots, blocks, parameters)
    monkeypatch.setattr("spahgc._spots.rows.ROW_BLOCK", 9)
    monkeypatch.setattr("spahgc._spots.rows.HELD_NUMBERS", 0)  # as if the slides were large
    monkeypatch.setattr("spahgc._spots.support.MAX_ANCHORS", 10_000)
    most = 9 * 8  # with the neighbours of each of nine spots
    read: list[int] = []
    dense = csr_matrix.toarray
    monkeypatch.setattr(csr_matrix, "toarray", lambda self, *a, **k: read.append(self.shape[0]) or dense(self, *a, **k))
    guarded = replace(spots, z=InParts(spots.z, most))
    node_features = LowRankFeatures.fit(guarded, blocks, parameters)
    assert read and max(read) <= most < len(spots)
    for name, part in expected.to_arrays().items():
        np.testing.assert_allclose(node_features.to_arrays()[name], part, rtol=1e-3, atol=1e-4, err_msg=name)
    guarded = replace(spots, z=InParts(spots.z, len(spots)))  # the support compares with all of so few spots
    for name, part in held_out_trust(guarded, blocks, parameters).to_arrays().items():
        np.testing.assert_allclose(part, expected_trust.to_arrays()[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_an_embedding_in_a_memory_map_gives_the_node_features_of_one_in_memory(refs, quick_default, tmp_path):
    bank = sp.pp.reference_bank(refs)
    spots, blocks = bank_spots(bank), embedding_blocks(bank)
    half = spots.z.astype(np.float16)
    mapped = np.memmap(tmp_path / "z", dtype=np.float16, mode="w+", shape=half.shape)
    mapped[:] = half
    bank.obsm[bank.uns["spahgc"]["bank"]["embedding"]] = mapped
    known = replace(spots, z=half.astype(np.float32))
    features = LowRankFeatures.fit(bank_spots(bank), blocks, quick_default).features
    np.testing.assert_allclose(
        features, LowRankFeatures.fit(known, blocks, quick_default).features, rtol=1e-3, atol=1e-4
    )


def test_rows_are_read_from_the_array_when_they_are_asked_for():
    z = np.arange(20.0).reshape(10, 2)
    rows = SomeRows(InParts(z, 3), np.array([4, 5, 6, 9, 1]))
    assert rows.shape == (5, 2) and len(rows) == 5
    np.testing.assert_array_equal(rows[:3], z[4:7])
    np.testing.assert_array_equal(rows[np.array([3, 0])], z[[9, 4]])
    np.testing.assert_array_equal(standardize(SomeRows(z, np.arange(10)), np.zeros(10)), standardize(z, np.zeros(10)))
    with pytest.raises(AssertionError, match="5 of 10 spots were read at once"):
        np.asarray(rows)


def test_a_prediction_places_the_target_once(target, model, monkeypatch):
    calls: list[int | str] = []
    place, nearest_spots = ImageAxes.transform, SpaHGC._nearest
    monkeypatch.setattr(ImageAxes, "transform", lambda axes, spots: calls.append(id(axes)) or place(axes, spots))
    monkeypatch.setattr(SpaHGC, "_nearest", lambda *inputs: calls.append("search") or nearest_spots(*inputs))
    done = sp.tl.predict(target, model=model, copy=True, device="cpu")
    # On the axes by slide, and on those over all references that an expert sees.
    axes = id(model.node_features.image_axes), id(model.experts.axes)
    assert sorted(map(str, calls)) == sorted(map(str, (*axes, "search")))
    monkeypatch.undo()
    said = model.predict_in_full(target, device="cpu")
    np.testing.assert_array_equal(said.expression, model.predict(target, device="cpu"))
    np.testing.assert_array_equal(said.attention.toarray(), model.attention(target, device="cpu").toarray())
    np.testing.assert_array_equal(said.cross.toarray(), model.cross_graph(target).toarray())
    np.testing.assert_array_equal(said.support, model.support(target))
    np.testing.assert_array_equal(done[:, model.genes].layers["spahgc"], said.expression)
    np.testing.assert_array_equal(done.obs["spahgc_support"], said.support)


@pytest.mark.parametrize("layers", [0, 2])
def test_a_fit_searches_the_peers_of_its_bank_once(refs, quick_default, monkeypatch, layers):
    preset = replace(quick_default, experts=(), layers=layers)
    searched: list[int] = []
    search = _bank._search_rs_graph
    monkeypatch.setattr(_bank, "_search_rs_graph", lambda *inputs: searched.append(len(inputs[0])) or search(*inputs))
    sp.pp.reference_bank(refs)
    assert searched == [210]
    sp.tl.fit(refs, preset=preset, device="cpu")
    # Of a slide's bank in turn, where a network runs along these edges, then of all.
    assert searched == [210, *([140, 140, 140] if layers else []), 210]
