"""Edges by place: which spots they join and how far apart, what they add to attention, and networks that know them."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

import spahgc as sp
from spahgc import Parameters, SpaHGC
from spahgc._keys import UNS, Uns
from spahgc._spots.pitch import PITCH_UM
from spahgc._spots.rows import Spots
from spahgc._spots.same_place import nearest_on_each
from spahgc._spots.scale import Microns
from spahgc._training import graphs
from spahgc._training.experts import GRAPH_BY_PLACE
from spahgc._training.graphs import bank_spots, hetero_graph, retrieved_edges, training_tasks, without_place
from spahgc._training.placed import PLACE_REACH, Laid, learns_places
from spahgc.nn import RETRIEVED_EDGES, ExpressionRetrieval, SpaHGCNetwork, Task, predict_and_attend
from spahgc.nn._retrieval import FIRST_HEIGHT, FIRST_RANGE, HASTE
from spahgc.nn._train import _add_up_gradients
from spahgc.pp._bank.scale import microns_of_references
from spahgc.pp._edge_types import REFERENCE, TARGET, Nodes, build_edges
from spahgc.pp._register.lays import Lays, lays_of_references
from spahgc.pp._register.pairs import PairRegistration

from .test_place import EMBEDDING, section

TOLERANCE = 1e-4
EXACT = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "cpu")


# Which spots are joined.


def test_the_nearest_spots_of_each_slide_within_reach_are_joined():
    rng = np.random.default_rng(0)
    xy, others = rng.random((20, 2)) * 10, rng.random((60, 2)) * 10
    others[:3] = xy[:3]
    others[50:] = np.nan
    slide = np.repeat(["A", "B", "C"], 20)
    found = nearest_on_each(xy, others, slide, 4, 2.0)
    assert found.has_sorted_indices and found.dtype == np.float32
    for row in range(len(xy)):
        expected = {}
        for name in "ABC":
            distances = {i: np.linalg.norm(xy[row] - others[i]) for i in range(50) if slide[i] == name}
            near = sorted((i for i, d in distances.items() if d <= 2.0), key=distances.get)[:4]
            expected |= {i: distances[i] for i in near}
        inside = slice(found.indptr[row], found.indptr[row + 1])
        actual = dict(zip(found.indices[inside].tolist(), found.data[inside].tolist(), strict=True))
        assert actual == pytest.approx(expected)
    assert all(found.indptr[i + 1] > found.indptr[i] for i in range(3)) and (found.data[found.data < 1e-9] == 0).any()


@pytest.fixture
def nodes() -> dict[str, Nodes]:
    """12 target and 30 reference nodes, of which the last 10 have no place."""
    rng = np.random.default_rng(1)
    place = rng.random((30, 2)) * 400
    place[20:] = np.nan
    features = [rng.normal(size=(n, 6)).astype(np.float32) for n in (12, 30)]
    target = Nodes(features[0], place=rng.random((12, 2)) * 400, reach=150.0)
    expression = rng.normal(size=(30, 3)).astype(np.float32)
    return {TARGET: target, REFERENCE: Nodes(features[1], expression=expression, place=place, slide=np.repeat("A", 30))}


PARAMETERS = Parameters(n_axes=4, n_around=0, line=True, n_retrieved=5, n_placed=6, layers=0, alignment=0.0, heads=2)


def test_an_edge_of_both_kinds_is_one_and_every_edge_knows_what_is_known_of_it(nodes):
    built = build_edges(nodes, PARAMETERS)
    assert list(built) == ["cs", "ps"]
    graph = hetero_graph(nodes, built, "cpu")
    edges = graph.retrieved
    pairs = list(zip(edges.receiver.tolist(), edges.source.tolist(), strict=True))
    of_cross, of_place = (set(zip(*built[name].nonzero(), strict=True)) for name in ("cs", "ps"))
    assert of_cross & of_place and of_place - of_cross
    assert len(set(pairs)) == len(pairs) and set(pairs) == of_cross | of_place
    z, r = (
        nodes[kind].features / np.linalg.norm(nodes[kind].features, axis=1)[:, None] for kind in (TARGET, REFERENCE)
    )
    for i, pair in enumerate(pairs):
        assert bool(edges.alike[i]) == (pair in of_cross)
        assert edges.distance[i].item() == pytest.approx(built["ps"][pair] if pair in of_place else np.inf)
        assert edges.similarity[i].item() == pytest.approx(z[pair[0]] @ r[pair[1]], abs=1e-5)
    assert pairs == list(zip(*retrieved_edges(built["cs"], built["ps"]).nonzero(), strict=True))


def test_what_is_alike_is_standardised_as_without_place(nodes):
    graph = hetero_graph(nodes, build_edges(nodes, PARAMETERS), "cpu")
    edges, cross = graph.retrieved, graph.cs
    torch.testing.assert_close(edges.standard_similarity[edges.alike], cross.standard_similarity)
    rows = torch.tensor([4, 0, 7])
    some, which = edges.into(rows)
    for name in ("similarity", "distance", "alike", "standard_similarity"):
        torch.testing.assert_close(getattr(some, name), getattr(edges, name)[which])
        torch.testing.assert_close(getattr(edges.between_joined, name), getattr(edges, name))


# What they add.


def test_an_edge_of_known_place_counts_by_nearness_and_another_one_by_likeness(nodes):
    graph = hetero_graph(nodes, build_edges(nodes, PARAMETERS), "cpu")
    edges = graph.retrieved
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = ExpressionRetrieval(6, 3, 8, 2, pitch_um=100.0)
    with torch.no_grad():
        module.place.log_height.copy_(torch.tensor([2.0, 5.0]).log() / HASTE)
        module.place.log_range.copy_(torch.tensor([80.0, 200.0]).log() / HASTE)
    _, weights = module(graph.target, graph.reference, graph.expression, edges)
    _, without = module(graph.target, graph.reference, graph.expression, replace(edges, distance=None))
    distance, likeness = edges.distance.numpy(), edges.standard_similarity.numpy()
    for head, (height, reach) in enumerate([(2.0, 80.0), (5.0, 200.0)]):
        by_look = module.log_bias[head].exp().item() * likeness
        by_place = height * np.exp(-np.square(distance) / (2 * reach**2)) - by_look
        raised = without[:, head].detach().numpy() * np.exp(np.where(np.isfinite(distance), by_place, 0.0))
        total = np.zeros(len(graph.target))
        np.add.at(total, edges.receiver.numpy(), raised)
        np.testing.assert_allclose(weights[:, head].detach(), raised / total[edges.receiver.numpy()], rtol=1e-4)


def test_training_moves_height_and_range_and_an_unknown_place_breaks_no_gradient(nodes):
    graph = hetero_graph(nodes, build_edges(nodes, PARAMETERS), "cpu")
    module = ExpressionRetrieval(6, 3, 8, 2, pitch_um=100.0)
    torch.testing.assert_close(module.place.range_um, torch.full((2,), FIRST_RANGE * 100.0))
    torch.testing.assert_close(module.place.height, torch.full((2,), FIRST_HEIGHT))
    assert not graph.retrieved.distance.isfinite().all()
    module(graph.target, graph.reference, graph.expression, graph.retrieved)[0].square().sum().backward()
    for part in (module.place.log_height, module.place.log_range):
        assert part.grad.isfinite().all() and (part.grad != 0).all()


def test_distances_are_refused_by_a_network_that_was_made_without_place(nodes):
    graph = hetero_graph(nodes, build_edges(nodes, PARAMETERS), "cpu")
    network = SpaHGCNetwork(6, 3, width=8, layers=0, heads=2, retrieval=True)
    with pytest.raises(ValueError, match="the edges know distances, and the network was made without place"):
        network(graph)
    with pytest.raises(ValueError, match="place is known to retrieval alone"):
        SpaHGCNetwork(6, 3, width=8, layers=1, heads=2, pitch_um=100.0)


def test_a_slide_in_blocks_is_predicted_as_in_one_piece_with_place(nodes):
    graph = hetero_graph(nodes, build_edges(nodes, PARAMETERS), "cpu")
    network = SpaHGCNetwork(6, 3, width=8, layers=0, heads=2, retrieval=True, pitch_um=100.0)
    whole, weights = predict_and_attend(network, graph, PARAMETERS)
    assert weights.shape == (1, len(graph.retrieved.source))
    torch.testing.assert_close(torch.zeros(12).index_add(0, graph.retrieved.receiver, weights[0]), torch.ones(12))
    blocks = [torch.tensor([5, 0, 1, 11, 7]), torch.tensor([2, 3, 4, 6, 8, 9, 10])]
    for actual, expected in zip(predict_and_attend(network, graph, PARAMETERS, blocks), (whole, weights), strict=True):
        torch.testing.assert_close(actual, expected, **EXACT)


def test_a_network_that_knows_place_predicts_without_it_as_if_it_knew_none(nodes):
    graph = without_place(hetero_graph(nodes, build_edges(nodes, PARAMETERS), "cpu"))
    assert list(graph.edges) == ["cs"] and graph.retrieved is graph.cs
    found = []
    for pitch_um in (None, 100.0):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            network = SpaHGCNetwork(6, 3, width=8, layers=0, heads=2, retrieval=True, pitch_um=pitch_um)
        found.append(predict_and_attend(network, graph, PARAMETERS)[0])
    assert torch.equal(*found)


# Microns.


def grid(pitch: float, n: int = 6) -> np.ndarray:
    y, x = np.divmod(np.arange(n * n), n)
    return np.column_stack([x, y]) * pitch


def test_a_pixel_of_unknown_length_is_taken_from_how_far_spots_lie_apart():
    xy, slide = np.vstack([grid(40.0), grid(50.0), grid(25.0)]), np.repeat(["A", "B", "C"], 36)
    found = Microns.of(xy, slide, {"A": 2.5, "C": 4.0}, 100.0)
    assert found.mpp == pytest.approx({"A": 2.5, "B": 2.0, "C": 4.0})
    assert found.assumed == {"B"} and found.pitch_um == 100.0


def test_where_no_reference_knows_its_resolution_all_are_reckoned_by_their_spacing():
    xy, slide = np.vstack([grid(40.0), grid(50.0)]), np.repeat(["A", "B"], 36)
    found = Microns.of(xy, slide, {"A": 5.0}, None)
    assert found.mpp == pytest.approx({"A": PITCH_UM / 40, "B": PITCH_UM / 50})
    assert found.assumed == {"A", "B"}


def moved(x: float) -> PairRegistration:
    return PairRegistration(np.array([[1.0, 0, x], [0, 1, 0], [0, 0, 1]]), 1.0, True, "given")


def spots_of(**slides: np.ndarray) -> Spots:
    xy, names = np.vstack(list(slides.values())), np.repeat(list(slides), [len(part) for part in slides.values()])
    nothing = np.zeros((len(xy), 2), dtype=np.float32)
    return Spots(nothing, xy, names, nothing, csr_matrix(nothing))


def test_places_are_in_microns_of_the_target_and_unknown_where_a_slide_lies_on_no_other():
    spots = spots_of(A=grid(40.0), B=grid(50.0), C=grid(10.0))
    lays = Lays({("A", "B"): moved(20.0)}, Microns.of(spots.xy, spots.slide, {"A": 2.5}, 100.0))
    laid = Laid.of(spots[:36], spots[36:], lays)
    np.testing.assert_allclose(laid.target, grid(40.0) * 2.5)
    np.testing.assert_allclose(laid.references[:36], (grid(50.0) + [20.0, 0]) * 2.5)
    assert np.isnan(laid.references[36:]).all() and laid.reach == PLACE_REACH * 100.0
    assert Laid.of(spots[72:], spots[:72], lays) is None
    assert Laid.of(spots[:36], spots[36:], replace(lays, microns=None)) is None


def test_the_measured_part_of_a_target_lies_where_it_is():
    spots = spots_of(A=grid(40.0), B=grid(50.0))
    target = replace(spots[:18], slide=np.repeat("target", 18), own_reference="A")
    lays = Lays({}, Microns.of(target.xy, target.slide, {"target": 2.5}, 100.0))
    laid = Laid.of(target, spots, lays)
    np.testing.assert_allclose(laid.references[:36], grid(40.0) * 2.5)
    assert np.isnan(laid.references[36:]).all()


def test_places_are_learned_only_where_what_is_left_of_every_fold_lies_on_each_other():
    slides, microns = np.repeat(["A", "B", "C", "D"], 3), Microns({}, 100.0, frozenset())
    folds = np.repeat([0, 1, 2, 3], 3)
    triple = Lays({pair: moved(0) for pair in (("A", "B"), ("A", "C"), ("B", "C"))}, microns)
    assert learns_places(slides, folds, triple), "D lies on none, and is not asked"
    assert not learns_places(slides, folds, Lays({("A", "B"): moved(0)}, microns)), "without A nothing lies on B"
    assert learns_places(slides, folds, Lays({("A", "B"): moved(0), ("C", "D"): moved(0)}, microns))
    assert not learns_places(slides, folds, Lays({("A", "B"): replace(moved(0), used=False)}, microns))
    assert not learns_places(slides, folds, replace(triple, microns=None))


# Training.


@pytest.fixture(scope="module")
def preset(quick_default: Parameters) -> Parameters:
    return replace(quick_default, experts=("graph",), epochs=4, n_placed=7)


@pytest.fixture(scope="module")
def _block() -> list[AnnData]:
    base = sp.datasets.simulated(1, n_patients=1, n_spots=150, n_genes=40, seed=5)[0]
    return [section(base, f"S{i}", turns=i, seed=i) for i in range(4)]


@pytest.fixture
def block(_block: list[AnnData]) -> list[AnnData]:
    return [slide.copy() for slide in _block]


@pytest.fixture(scope="module")
def model(_block, preset) -> SpaHGC:
    """Trained on all sections but the first; the graph by place counts, whatever the sections prove."""
    fitted = sp.tl.fit([slide.copy() for slide in _block[1:]], embedding=EMBEDDING, preset=preset, device="cpu")
    shares = dict.fromkeys(fitted.experts.placed, 0.0) | {"kernel_plus_place": 0.4, "graph": 0.2, GRAPH_BY_PLACE: 0.4}
    fitted.experts = replace(fitted.experts, placed=shares)
    return fitted


def placed_lays(model: SpaHGC) -> Lays:
    from spahgc.pp._bank.references import bank_pictures

    return replace(lays_of_references(bank_pictures(model.bank), {}), microns=microns_of_references(model.bank))


def edges_by_turn(tasks: list, n: int) -> list[list[bool]]:
    """Of every position whether its first tasks have edges by place."""
    return [[RETRIEVED_EDGES in task.graph.edges for task in islice(position, n)] for position in tasks]


def test_every_other_turn_of_a_slide_has_edges_by_place(model):
    tasks = training_tasks(
        bank_spots(model.bank), model.node_features, model.parameters, "cpu", lays=placed_lays(model)
    )
    assert edges_by_turn(tasks, 4) == [[True, False] * 2, [False, True] * 2, [True, False] * 2]
    shared = training_tasks(
        bank_spots(model.bank), model.node_features, model.parameters, "cpu", lays=placed_lays(model)
    )
    assert edges_by_turn(shared[1:2], 4) == [[False, True] * 2], "whatever another process reads"
    without = training_tasks(bank_spots(model.bank), model.node_features, model.parameters, "cpu")
    assert all(isinstance(task, Task) and list(task.graph.edges) == ["cs"] for task in without)


@pytest.mark.parametrize("way", ["sampled", "in blocks", "sampled in blocks"])
def test_blocks_and_samples_have_the_edges_that_the_whole_slide_has(model, way, monkeypatch):
    parameters = replace(model.parameters, step_references=100 if "sampled" in way else 0, n_retrieved=10)
    if "blocks" in way:
        monkeypatch.setattr(graphs, "MAX_TASK_SPOTS", 60)
        monkeypatch.setattr(graphs, "TASK_BLOCK_SPOTS", 40)
    spots, nodes, lays = bank_spots(model.bank), model.node_features, placed_lays(model)
    tasks = training_tasks(spots, nodes, parameters, "cpu", lays=lays)
    for turns in edges_by_turn(tasks, 8):
        assert sum(turns) == 4
    features = {row.tobytes(): number for number, row in enumerate(np.asarray(nodes.features))}
    microns = lays.microns.mpp
    for position in training_tasks(spots, nodes, parameters, "cpu", lays=lays):
        task = next(task for task in position if RETRIEVED_EDGES in task.graph.edges)
        edges = task.graph.retrieved
        target, reference = (
            np.array([features[row.tobytes()] for row in part.numpy()])
            for part in (task.graph.target, task.graph.reference)
        )
        known = np.flatnonzero(edges.distance.isfinite().numpy())
        assert len(known)
        for i in known[:: max(1, len(known) // 20)]:
            one, other = target[edges.receiver[i]], reference[edges.source[i]]
            name, source = spots.slide[one], spots.slide[other]
            assert name != source
            there = lays.laid(name, source, spots.xy[[other]])[0] * microns[name]
            expected = np.linalg.norm(there - spots.xy[one] * microns[name])
            assert edges.distance[i].item() == pytest.approx(expected, rel=1e-3, abs=1e-2)


@dataclass(frozen=True)
class Two:
    """Two processes with the same slides."""

    rank: int = 0
    count: int = 2

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        return 2 * tensor


def test_processes_leave_weights_of_place_as_one_does_where_no_slide_has_edges_by_place(nodes):
    graph = hetero_graph(nodes, build_edges(nodes, PARAMETERS), "cpu")
    for shown, is_used in ((graph, True), (without_place(graph), False)):
        network = SpaHGCNetwork(6, 3, width=8, layers=0, heads=2, retrieval=True, pitch_um=100.0)
        network(shown).square().sum().backward()
        alone = {name: weights.grad for name, weights in network.named_parameters()}
        _add_up_gradients(network, Two())
        for name, weights in network.named_parameters():
            assert (weights.grad is not None) == (is_used or ".place." not in name), name
            assert weights.grad is None or torch.equal(weights.grad, 2 * alone[name])


def test_a_fit_on_slides_without_images_is_the_same_whether_edges_by_place_are_wanted_or_not(block, preset):
    for slide in block:
        del slide.uns["spatial"]
    wanted, none = (
        sp.tl.fit(block[1:], embedding=EMBEDDING, preset=replace(preset, n_placed=n), trust=False) for n in (7, 0)
    )
    for one, other in zip(wanted.networks, none.networks, strict=True):
        assert one.retrieval.place is None and list(one.state_dict()) == list(other.state_dict())
        assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))
    np.testing.assert_array_equal(wanted.predict(block[0]), none.predict(block[0]))


def test_without_edges_by_place_the_kernels_have_place_for_themselves(block, preset):
    fitted = sp.tl.fit(block[1:], embedding=EMBEDDING, preset=replace(preset, n_placed=0), trust=False)
    assert GRAPH_BY_PLACE not in fitted.experts.placed and fitted.experts.placed
    assert fitted.networks[0].retrieval.place is None


def test_two_sections_cannot_prove_edges_by_place_and_do_not_train_them(block, preset):
    fitted = sp.tl.fit(block[1:3], embedding=EMBEDDING, preset=preset, trust=False)
    assert fitted.experts.placed and GRAPH_BY_PLACE not in fitted.experts.placed
    assert fitted.networks[0].retrieval.place is None


def test_the_graph_by_place_is_weighed_by_the_references_held_out(_block, preset):
    references = [slide.copy() for slide in _block[1:]]
    fitted = sp.tl.fit(references, embedding=EMBEDDING, preset=preset, trust=False)
    assert list(fitted.experts.placed) == ["graph", "kernel_plus_place", "kernel_times_place", GRAPH_BY_PLACE]
    assert sum(fitted.experts.placed.values()) == pytest.approx(1)
    assert fitted.experts.weights == {"graph": 1.0} and fitted.networks[0].retrieval.place is not None


def test_edges_by_place_tell_what_the_look_does_not(block, model):
    scores = {}
    for name in ("graph", GRAPH_BY_PLACE):
        alone = copy(model)
        alone.experts = replace(model.experts, placed=dict.fromkeys(model.experts.placed, 0.0) | {name: 1.0})
        predicted = sp.tl.predict(block[0], model=alone, copy=True)
        scores[name] = float(sp.tl.evaluate(predicted)["pearson"].nlargest(15).mean())
    assert scores[GRAPH_BY_PLACE] > scores["graph"] + 0.1


# Predictions.


def test_a_prediction_is_made_of_the_edges_that_it_writes(block, model):
    target = block[0]
    sp.tl.predict(target, model=model)
    record = target.uns[UNS][Uns.predictions]["spahgc"]
    assert record[Uns.place]["weights"][GRAPH_BY_PLACE] == 0.4
    assert record[Uns.place]["pitch_um"] == pytest.approx(placed_lays(model).microns.pitch_um)
    edges, place, attention = (csr_matrix(target.obsm[f"spahgc_{name}"]) for name in ("cs", "ps", "attention"))
    np.testing.assert_array_equal(edges.indices, attention.indices)
    np.testing.assert_array_equal(edges.indptr, attention.indptr)
    np.testing.assert_allclose(attention.sum(axis=1), 1, rtol=1e-5)
    cross = model.cross_graph(target)
    pairs = [set(zip(*graph.nonzero(), strict=True)) for graph in (edges, cross)]
    by_place = set(zip(np.repeat(np.arange(place.shape[0]), np.diff(place.indptr)), place.indices, strict=True))
    assert pairs[0] == pairs[1] | by_place and by_place - pairs[1]
    assert (place.data <= PLACE_REACH * record[Uns.place]["pitch_um"]).all() and place.nnz
    assert (np.diff(place.indptr) <= 3 * model.parameters.n_placed).all()

    sp.tl.predict(target, model=model, place=False)
    assert "spahgc_ps" not in target.obsm
    np.testing.assert_array_equal(csr_matrix(target.obsm["spahgc_cs"]).indices, cross.indices)


def test_edges_by_place_are_not_taken_for_a_cross_graph(block, model):
    target = block[0]
    expected = sp.tl.predict(target, model=model, copy=True)
    np.testing.assert_array_equal(model.predict(target, cross=model.cross_graph(target)), model.predict(target))
    with pytest.raises(ValueError, match="holds edges by place as well"):
        model.predict(target, cross=csr_matrix(expected.obsm["spahgc_cs"]))


def test_contributions_along_edges_by_place_add_up_to_the_prediction(block, model):
    target = block[0]
    parts, expected = model.contributions(target), model.predict(target)
    assert {"graph", GRAPH_BY_PLACE} <= set(parts.by_expert) and (parts.remainder == 0).all()
    added = parts.mean + parts.total.sum(axis=1, dtype=float) + parts.remainder
    np.testing.assert_allclose(added, expected, atol=TOLERANCE)
    some = model.contributions(target, spots=[3, 77], genes=model.genes[:2])
    np.testing.assert_allclose(
        some.by_expert[GRAPH_BY_PLACE], parts.by_expert[GRAPH_BY_PLACE][[3, 77]][:, :, :2], atol=1e-6
    )

    sp.tl.predict(target, model=model)
    gene = model.genes[0]
    table = sp.tl.attribution(target, 5, gene=gene, model=model)
    assert GRAPH_BY_PLACE in table and table.attrs["prediction"] == pytest.approx(expected[5, 0], abs=TOLERANCE)
    seen = sp.tl.attribution(target, 5)
    assert seen["attention"].sum() == pytest.approx(1, abs=1e-5) and seen.attrs["share"] == pytest.approx(0.6)
    assert seen["similarity"].notna().all()


def test_a_model_that_knows_place_is_read_as_it_was_saved(block, model, tmp_path: Path):
    model.save(tmp_path / "model")
    again = SpaHGC.load(tmp_path / "model")
    assert again.experts.placed == model.experts.placed and again.networks[0].retrieval.place is not None
    for place in (True, False):
        slides = [sp.tl.predict(block[0], model=one, place=place, copy=True) for one in (model, again)]
        np.testing.assert_array_equal(*(slide.layers["spahgc"] for slide in slides))


def test_a_large_target_and_a_large_bank_are_predicted_as_small_ones(block, model, monkeypatch):
    expected = model.predict(block[0])
    monkeypatch.setattr("spahgc._training.networks.MAX_WHOLE_SPOTS", 20)
    monkeypatch.setattr("spahgc._training.networks.PREDICTION_BLOCK_SPOTS", 40)
    monkeypatch.setattr(graphs, "SMALL_BANK", 10)
    monkeypatch.setattr(graphs, "PAIR_BLOCK", 7)
    np.testing.assert_allclose(model.predict(block[0]), expected, atol=1e-4)


def test_edges_by_place_ignore_the_targets_own_counts(block, model):
    target = block[0]
    expected = model.predict(target)
    target.X = np.full(target.shape, np.nan, dtype=np.float32)
    np.testing.assert_array_equal(model.predict(target), expected)


def test_a_number_of_edges_that_is_none_is_refused():
    with pytest.raises(ValueError, match="n_placed=-1 must be a whole number of spots"):
        Parameters(n_placed=-1)
