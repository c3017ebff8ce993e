"""The network against loops that follow the formulas, in double precision; its masks, losses and training steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spahgc import Parameters
from spahgc.nn import (
    LOSS_TERMS,
    CrossNodeAttention,
    CrossNodeAttentionPooling,
    CrossNodeDualAttention,
    Edges,
    HeteroGraph,
    LossTerm,
    MeanSAGE,
    SpaHGCLayer,
    SpaHGCNetwork,
    Task,
    alignment_loss,
    complementary_masks,
    expected_view,
    expression_loss,
    gene_correlations,
    masked_views,
    predict_expression,
    train,
)

N_TARGET, N_REFERENCE = 9, 13
DIM, GENES, WIDTH, HEADS = 5, 3, 8, 2
EXACT = {"rtol": 1e-10, "atol": 1e-12}
SETTINGS = Parameters(epochs=3, learning_rate=1e-2, weight_decay=1e-3, target_hidden=0.6, reference_hidden=0.7)


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def random_edges(n_source: int, n_receiver: int, degree: int, seed: int) -> Edges:
    """Between 1 and ``degree`` sources for every receiver; the last receiver and the last two sources have no edge."""
    rng = np.random.default_rng(seed)
    pairs = [
        (source, receiver)
        for receiver in range(n_receiver - 1)
        for source in rng.permutation(n_source - 2)[: rng.integers(1, degree + 1)]
    ]
    rng.shuffle(pairs)
    source, receiver = torch.tensor(np.array(pairs).T)
    return Edges(source, receiver, n_source, n_receiver)


@pytest.fixture
def graph() -> HeteroGraph:
    return HeteroGraph(
        torch.randn(N_TARGET, DIM),
        torch.randn(N_REFERENCE, DIM),
        torch.randn(N_REFERENCE, GENES),
        {
            "ts": random_edges(N_TARGET, N_TARGET, 4, seed=1),
            "cs": random_edges(N_REFERENCE, N_TARGET, 5, seed=2),
            "rs": random_edges(N_REFERENCE, N_REFERENCE, 4, seed=3),
        },
    )


@pytest.fixture
def states() -> tuple[Tensor, Tensor]:
    """States of target and reference nodes inside the network."""
    return torch.randn(N_TARGET, WIDTH), torch.randn(N_REFERENCE, WIDTH)


@pytest.fixture
def network() -> SpaHGCNetwork:
    return SpaHGCNetwork(DIM, GENES, width=WIDTH, layers=3, heads=HEADS)


@pytest.fixture
def task(graph: HeteroGraph) -> Task:
    return Task(graph, torch.randn(N_TARGET, GENES))


# What follows is written from the formulas, one node, one head and one edge at a time.


def pairs(edges: Edges) -> list[tuple[int, int]]:
    return list(zip(edges.source.tolist(), edges.receiver.tolist(), strict=True))


def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    out = layer.weight.detach().numpy() @ x
    return out if layer.bias is None else out + layer.bias.detach().numpy()


def loop_sage(layer: MeanSAGE, x: np.ndarray, edges: list[tuple[int, int]]) -> np.ndarray:
    rows = []
    for node in range(len(x)):
        neighbours = [x[source] for source, receiver in edges if receiver == node]
        mean = np.mean(neighbours, axis=0) if neighbours else np.zeros(x.shape[1])
        rows.append(linear(layer.own, x[node]) + linear(layer.neighbours, mean))
    return np.array(rows)


def loop_attention(
    layer: CrossNodeAttention, query: np.ndarray, source: np.ndarray, edges: list[tuple[int, int]]
) -> np.ndarray:
    width = layer.query.out_features
    d = width // layer.heads
    out = np.zeros((len(query), width))
    for node in range(len(query)):
        neighbours = [s for s, receiver in edges if receiver == node]
        for head in range(layer.heads):
            part = slice(head * d, (head + 1) * d)
            q = linear(layer.query, query[node])[part]
            keys = [linear(layer.key_value, source[s])[:width][part] for s in neighbours]
            values = [linear(layer.key_value, source[s])[width:][part] for s in neighbours]
            weights = [np.exp(q @ k / np.sqrt(d)) for k in keys]
            for weight, value in zip(weights, values, strict=True):
                out[node, part] += weight / sum(weights) * value
    return out


def loop_layer(
    layer: SpaHGCLayer, target: np.ndarray, reference: np.ndarray, graph: HeteroGraph
) -> tuple[np.ndarray, np.ndarray]:
    cs = pairs(graph.cs)
    with_expression = np.hstack([reference, graph.expression.numpy()])
    to_target = loop_attention(layer.cs.to_target, target, with_expression, cs)
    to_reference = loop_attention(layer.cs.to_reference, reference, target, [(r, s) for s, r in cs])
    new_target = (loop_sage(layer.ts, target, pairs(graph.ts)) + to_target) / 2
    new_reference = (loop_sage(layer.rs, reference, pairs(graph.rs)) + to_reference) / 2
    return tuple(np.where(x > 0, x, 0.2 * x) for x in (new_target, new_reference))


def loop_network(network: SpaHGCNetwork, graph: HeteroGraph) -> np.ndarray:
    target = np.array([linear(network.target_entry, row) for row in graph.target.numpy()])
    with_expression = np.hstack([graph.reference.numpy(), graph.expression.numpy()])
    reference = np.array([linear(network.reference_entry, row) for row in with_expression])
    for layer in network.layers:
        target, reference = loop_layer(layer, target, reference, graph)
    pooled = target + loop_attention(network.pooling.attention, target, reference, pairs(graph.cs))
    return np.array([linear(network.head, row) for row in pooled])


def assert_same(actual: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, **EXACT)


def test_mean_of_neighbours_is_that_of_a_loop(graph, states):
    sage, (target, _) = MeanSAGE(WIDTH), states
    assert_same(sage(target, graph.ts), loop_sage(sage, target.numpy(), pairs(graph.ts)))


def test_attention_is_that_of_a_loop(graph):
    attention = CrossNodeAttention(DIM, DIM, WIDTH, HEADS)
    expected = loop_attention(attention, graph.target.numpy(), graph.reference.numpy(), pairs(graph.cs))
    assert_same(attention(graph.target, graph.reference, graph.cs).out, expected)


def test_attention_weights_of_a_node_sum_to_one_in_every_head(graph):
    attention = CrossNodeAttention(DIM, DIM, WIDTH, HEADS)
    weights = attention(graph.target, graph.reference, graph.cs).weights
    sums = torch.zeros(N_TARGET, HEADS).index_add(0, graph.cs.receiver, weights)
    expected = torch.ones(N_TARGET, HEADS)
    expected[-1] = 0  # has no edge
    torch.testing.assert_close(sums, expected)


def test_attention_stays_finite_where_scores_are_huge(graph):
    attention = CrossNodeAttention(DIM, DIM, WIDTH, HEADS)
    out = attention(1e6 * graph.target, 1e6 * graph.reference, graph.cs).out
    assert torch.isfinite(out).all()


def test_a_node_without_edges_receives_nothing(graph):
    attention = CrossNodeAttention(DIM, DIM, WIDTH, HEADS)
    assert attention(graph.target, graph.reference, graph.cs).out[-1].eq(0).all()
    assert graph.ts.mean(graph.target)[-1].eq(0).all()


def test_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width must be a multiple of heads: got width=10, heads=4"):
        CrossNodeAttention(DIM, DIM, 10, 4)


def test_dual_attention_is_that_of_loops_in_both_directions(graph, states):
    dual, (target, reference) = CrossNodeDualAttention(GENES, WIDTH, HEADS), states
    to_target, to_reference = (way.out for way in dual(target, reference, graph.expression, graph.cs))
    source = np.hstack([reference.numpy(), graph.expression.numpy()])
    cs = pairs(graph.cs)
    assert_same(to_target, loop_attention(dual.to_target, target.numpy(), source, cs))
    turned = [(receiver, source) for source, receiver in cs]
    assert_same(to_reference, loop_attention(dual.to_reference, reference.numpy(), target.numpy(), turned))
    assert to_reference[-2:].eq(0).all()  # no target spot retrieved them


def test_pooling_adds_what_a_loop_gathers_to_the_state(graph, states):
    pooling, (target, reference) = CrossNodeAttentionPooling(WIDTH, HEADS), states
    gathered = loop_attention(pooling.attention, target.numpy(), reference.numpy(), pairs(graph.cs))
    pooled, _ = pooling(target, reference, graph.cs)
    assert_same(pooled, target.numpy() + gathered)


def test_layer_is_that_of_loops(graph, states):
    layer, (target, reference) = SpaHGCLayer(GENES, WIDTH, HEADS), states
    expected = loop_layer(layer, target.numpy(), reference.numpy(), graph)
    *states_after, _ = layer(target, reference, graph)
    for actual, wanted in zip(states_after, expected, strict=True):
        assert_same(actual, wanted)


def test_network_is_that_of_loops(network, graph):
    assert_same(network(graph), loop_network(network, graph))


def test_network_has_the_layers_widths_and_heads_of_the_paper_by_default():
    network = SpaHGCNetwork(1024, 85)
    assert len(network.layers) == 4
    assert network.head.in_features == 256
    attentions = [module for module in network.modules() if isinstance(module, CrossNodeAttention)]
    assert [attention.heads for attention in attentions] == [4] * 9  # two a layer, one in the pooling


def test_single_precision_agrees_with_double(network, graph):
    expected = network(graph).detach()
    torch.set_default_dtype(torch.float32)
    single = replace(
        graph, target=graph.target.float(), reference=graph.reference.float(), expression=graph.expression.float()
    )
    torch.testing.assert_close(copy.deepcopy(network).float()(single).double(), expected, rtol=1e-4, atol=1e-5)


def test_numbering_the_target_spots_anew_permutes_the_output(network, graph):
    order = torch.randperm(N_TARGET)
    place = torch.argsort(order)
    moved = replace(
        graph,
        target=graph.target[order],
        edges={
            "ts": Edges(place[graph.ts.source], place[graph.ts.receiver], N_TARGET, N_TARGET),
            "cs": Edges(graph.cs.source, place[graph.cs.receiver], N_REFERENCE, N_TARGET),
            "rs": graph.rs,
        },
    )
    torch.testing.assert_close(network(moved), network(graph)[order], **EXACT)


def test_expression_of_every_linked_reference_reaches_the_target(network, graph):
    graph.expression.requires_grad_()
    network(graph).sum().backward()
    linked = graph.cs.source.unique()
    assert graph.expression.grad[linked].abs().sum(dim=1).gt(0).all()


def test_gradients_of_sage_and_attention_are_right(graph, states):
    sage, dual = MeanSAGE(WIDTH), CrossNodeDualAttention(GENES, WIDTH, HEADS)
    target, reference = (part.requires_grad_() for part in states)
    expression = graph.expression.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sage(x, graph.ts), (target,))

    def both_ways(t: Tensor, r: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return tuple(way.out for way in dual(t, r, y, graph.cs))

    assert torch.autograd.gradcheck(both_ways, (target, reference, expression))


def test_gradient_of_the_expression_loss_is_right():
    predicted = torch.randn(6, GENES, requires_grad=True)
    measured = torch.randn(6, GENES)
    assert torch.autograd.gradcheck(lambda p: expression_loss(p, measured), (predicted,))


def test_gene_correlations_are_those_of_numpy():
    predicted, measured = torch.randn(40, GENES), torch.randn(40, GENES)
    expected = [np.corrcoef(predicted[:, g], measured[:, g])[0, 1] for g in range(GENES)]
    np.testing.assert_allclose(gene_correlations(predicted, measured).numpy(), expected, atol=1e-7)


def test_a_constant_gene_counts_zero_in_the_loss_and_its_gradient_is_finite():
    predicted, measured = torch.randn(40, 2), torch.randn(40, 2)
    measured[:, 0] = 3.0
    predicted[:, 1] = 2.0
    predicted.requires_grad_()
    assert_same(gene_correlations(predicted, measured), np.zeros(2))
    expression_loss(predicted, measured).backward()
    assert torch.isfinite(predicted.grad).all()


def test_expression_loss_is_squared_error_plus_missing_correlation():
    predicted, measured = torch.randn(40, GENES), torch.randn(40, GENES)
    error = np.mean((predicted.numpy() - measured.numpy()) ** 2)
    correlation = np.mean([np.corrcoef(predicted[:, g], measured[:, g])[0, 1] for g in range(GENES)])
    assert expression_loss(predicted, measured).item() == pytest.approx(error + 1 - correlation, abs=1e-7)


def test_alignment_loss_is_two_minus_two_cosines():
    a, b = torch.randn(N_TARGET, WIDTH), torch.randn(N_TARGET, WIDTH)
    cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    assert alignment_loss(a, b).item() == pytest.approx(np.mean([2 - 2 * c for c in cosines]), abs=1e-10)


def test_alignment_loss_gives_no_gradient_to_the_second_view():
    first, second = torch.randn(N_TARGET, WIDTH, requires_grad=True), torch.randn(N_TARGET, WIDTH, requires_grad=True)
    alignment_loss(first, second).backward()
    assert first.grad.abs().sum() > 0
    assert second.grad is None


@pytest.mark.parametrize("hidden", [0.1, 0.8, 0.9])
def test_masks_are_complementary_and_hide_the_share_they_should(hidden):
    like = torch.zeros(200, 300)
    first, second = complementary_masks(like, hidden, np.random.default_rng(0))
    assert torch.equal(first + second, torch.ones_like(like))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert 1 - first.mean().item() == pytest.approx(hidden, abs=0.01)


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_masks_hide_nothing_or_everything_when_told_so(hidden):
    first, second = complementary_masks(torch.zeros(50, 50), hidden, np.random.default_rng(0))
    assert first.eq(1 - hidden).all()
    assert second.eq(hidden).all()


def test_masks_follow_the_seed():
    def draw(seed: int) -> Tensor:
        return complementary_masks(torch.zeros(20, 20), 0.5, np.random.default_rng(seed))[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_the_two_views_add_up_to_the_graph_and_share_its_edges(graph):
    first, second = masked_views(graph, 0.8, 0.9, np.random.default_rng(0))
    for name in ("target", "reference", "expression"):
        assert torch.equal(getattr(first, name) + getattr(second, name), getattr(graph, name)), name
    for name in ("ts", "cs", "rs"):
        assert getattr(first, name) is getattr(second, name) is getattr(graph, name), name


def test_views_hide_targets_and_references_at_their_own_rates(graph):
    big = replace(graph, target=torch.ones(200, 50), reference=torch.ones(200, 50), expression=torch.ones(200, 50))
    first, _ = masked_views(big, 0.6, 0.9, np.random.default_rng(0))
    assert first.target.mean().item() == pytest.approx(0.4, abs=0.02)
    assert first.reference.mean().item() == pytest.approx(0.1, abs=0.02)
    assert first.expression.mean().item() == pytest.approx(0.1, abs=0.02)


def test_features_and_expression_of_a_reference_are_masked_independently(graph):
    big = replace(graph, reference=torch.ones(200, 50), expression=torch.ones(200, 50))
    first, _ = masked_views(big, 0.5, 0.5, np.random.default_rng(0))
    agreement = first.reference.eq(first.expression).double().mean().item()
    assert agreement == pytest.approx(0.5, abs=0.03)


def test_expected_view_is_the_mean_of_view_1_over_many_masks(graph):
    rng = np.random.default_rng(0)
    views = [next(masked_views(graph, 0.6, 0.9, rng)) for _ in range(3000)]
    expected = expected_view(graph, 0.6, 0.9)
    for name in ("target", "reference", "expression"):
        mean = torch.stack([getattr(view, name) for view in views]).mean(dim=0)
        error = (mean - expected.visible(name)).abs() / getattr(graph, name).abs()
        assert error.max() < 5 * 0.5 / np.sqrt(3000), name  # five standard errors of the least certain mask


def test_prediction_hides_nothing_and_draws_nothing(network, graph):
    expected = network(expected_view(graph, SETTINGS.target_hidden, SETTINGS.reference_hidden)).detach()
    for seed in (1, 2):
        torch.manual_seed(seed)
        assert torch.equal(predict_expression(network, graph, SETTINGS), expected)


def one_step_by_hand(network: SpaHGCNetwork, task: Task, seed: int, *, stop_gradient: bool = True) -> list[float]:
    """A step of Adam on the loss of the paper; returns its terms."""
    first, second = masked_views(
        task.graph, SETTINGS.target_hidden, SETTINGS.reference_hidden, np.random.default_rng(seed)
    )
    (states, _), (aims, _) = network.encode(first), network.encode(second)
    pooled, _ = network.pooling(*states, task.graph.cs)
    predicted = network.head(pooled)
    terms = [((predicted - task.measured) ** 2).mean() + 1 - gene_correlations(predicted, task.measured).mean()]
    for state, aim in zip(states, aims, strict=True):
        aim = aim.detach() if stop_gradient else aim
        cosine = (state * aim).sum(1) / state.norm(dim=1) / aim.norm(dim=1)
        terms.append((2 - 2 * cosine).mean())
    optimiser = torch.optim.Adam(network.parameters(), lr=SETTINGS.learning_rate, weight_decay=SETTINGS.weight_decay)
    sum(terms).backward()
    optimiser.step()
    return [term.item() for term in terms]


def largest_difference(a: nn.Module, b: nn.Module) -> float:
    return max((p - q).abs().max().item() for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_a_training_step_is_the_one_written_by_hand(network, task):
    by_hand = copy.deepcopy(network)
    terms = one_step_by_hand(by_hand, task, seed=5)
    (record,) = train(network, [task], replace(SETTINGS, epochs=1), rng=np.random.default_rng(5))
    assert list(record.terms) == ["expression", "align_target", "align_reference"]
    assert list(record.terms.values()) == pytest.approx(terms, rel=1e-9)
    assert record.total == pytest.approx(sum(terms))
    assert largest_difference(network, by_hand) < 1e-9


def test_a_training_step_stops_the_gradient_of_the_second_view(network, task):
    leaky = copy.deepcopy(network)
    one_step_by_hand(leaky, task, seed=5, stop_gradient=False)
    train(network, [task], replace(SETTINGS, epochs=1), rng=np.random.default_rng(5))
    assert largest_difference(network, leaky) > 1e-4


def test_training_reports_every_epoch_as_the_mean_over_the_slides(network, task):
    seen = []
    frozen = replace(SETTINGS, learning_rate=0.0)
    history = train(network, [task, task], frozen, rng=np.random.default_rng(5), on_epoch=seen.append)
    assert seen == history
    assert [record.epoch for record in history] == [1, 2, 3]
    rng = np.random.default_rng(5)
    alone = [train(network, [task], replace(frozen, epochs=1), rng=rng)[0] for _ in range(2)]
    assert history[0].terms["expression"] == pytest.approx(np.mean([record.terms["expression"] for record in alone]))


def test_a_network_is_judged_by_what_is_read_off_its_outputs(network, task):
    gene_loadings = torch.randn(GENES, 6)
    measured = torch.randn(N_TARGET, 6)
    frozen = replace(SETTINGS, epochs=1, learning_rate=0.0)
    (record,) = train(network, [Task(task.graph, measured, gene_loadings)], frozen, rng=np.random.default_rng(5))
    view, _ = masked_views(task.graph, SETTINGS.target_hidden, SETTINGS.reference_hidden, np.random.default_rng(5))
    assert record.terms["expression"] == pytest.approx(expression_loss(network(view) @ gene_loadings, measured).item())


def test_reading_off_by_the_identity_changes_no_step(network, task):
    other = copy.deepcopy(network)
    train(network, [task], SETTINGS, rng=np.random.default_rng(5))
    train(other, [task._replace(gene_loadings=torch.eye(GENES))], SETTINGS, rng=np.random.default_rng(5))
    assert largest_difference(network, other) < 1e-12


def test_without_weight_the_alignment_takes_no_part(network, task):
    settings = replace(SETTINGS, alignment=0.0)
    history = train(network, [task], settings, rng=np.random.default_rng(5))
    for record in history:
        assert record.terms["align_target"] == record.terms["align_reference"] == 0
        assert record.total == record.terms["expression"]


def test_the_alignment_weighs_as_much_as_it_is_told(network, task):
    frozen = replace(SETTINGS, epochs=1, learning_rate=0.0)
    plain, double = (
        train(network, [task], replace(frozen, alignment=weight), rng=np.random.default_rng(5))[0] for weight in (1, 2)
    )
    assert double.terms["expression"] == pytest.approx(plain.terms["expression"])
    for name in ("align_target", "align_reference"):
        assert double.terms[name] == pytest.approx(2 * plain.terms[name])


def test_training_learns(network, task):
    settings = Parameters(epochs=150, learning_rate=1e-2, target_hidden=0.0, reference_hidden=0.0)
    history = train(network, [task], settings, rng=np.random.default_rng(0))
    assert history[-1].terms["expression"] < 0.2 * history[0].terms["expression"]


def test_a_term_that_is_registered_is_minimised_and_recorded_by_its_name(network, task, monkeypatch):
    monkeypatch.setitem(LOSS_TERMS, "size", LossTerm(lambda step: step.predicted.square().mean(), "alignment"))
    (record,) = train(network, [task], replace(SETTINGS, epochs=1, alignment=0.5), rng=np.random.default_rng(5))
    assert list(record.to_dict()) == ["epoch", "expression", "align_target", "align_reference", "size"]
    assert record.terms["size"] > 0
    assert record.total == pytest.approx(sum(record.terms.values()))


def test_the_second_view_is_computed_only_for_a_term_that_needs_it(network, task, monkeypatch):
    encoded = []
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda view: encoded.append(view) or encode(view))
    for weight, times in ((0.0, 1), (1.0, 2)):
        encoded.clear()
        train(network, [task], replace(SETTINGS, epochs=1, alignment=weight), rng=np.random.default_rng(5))
        assert len(encoded) == times
