"""Sums along edges and products across them: values and derivatives, in either direction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spahgc.nn import Edges

N_SOURCE, N_RECEIVER, WIDTH = 6, 5, 3


@pytest.fixture
def edges() -> Edges:
    """In no order, some twice over; source 5 and receiver 4 have none."""
    source, receiver = torch.tensor([[3, 0, 4, 4, 1, 0, 2, 2], [2, 0, 3, 0, 2, 1, 2, 2]])
    return Edges(source, receiver, N_SOURCE, N_RECEIVER)


def doubles(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def test_sum_is_that_of_a_loop(edges: Edges) -> None:
    x, weights = doubles(N_SOURCE, WIDTH, seed=0), doubles(len(edges.source), seed=1)
    found = edges.sorted.sum(weights[edges.sorted.order], x)
    wanted = torch.zeros(N_RECEIVER, WIDTH, dtype=torch.float64)
    for weight, s, r in zip(weights, edges.source, edges.receiver, strict=True):
        wanted[r] += weight * x[s]
    torch.testing.assert_close(found, wanted)


def test_product_is_that_of_the_rows_of_both_nodes(edges: Edges) -> None:
    query, x = doubles(N_RECEIVER, WIDTH, seed=0), doubles(N_SOURCE, WIDTH, seed=1)
    wanted = (query[edges.receiver] * x[edges.source]).sum(1)
    torch.testing.assert_close(edges.sorted.edge_dot(query, x), wanted[edges.sorted.order])


def test_softmax_is_that_of_each_receiver_and_finite_where_scores_are_large(edges: Edges) -> None:
    scores = 1e4 * doubles(len(edges.source), seed=0).detach()
    weights, _, _ = edges.sorted.softmax(scores)
    for node in range(N_RECEIVER):
        own = edges.sorted.incoming.own == node
        torch.testing.assert_close(weights[own], scores[own].softmax(0))


def test_derivatives_are_those_of_finite_differences(edges: Edges) -> None:
    query, x, weights = (
        doubles(N_RECEIVER, WIDTH, seed=0),
        doubles(N_SOURCE, WIDTH, seed=1),
        doubles(len(edges.source), seed=2),
    )
    assert torch.autograd.gradcheck(edges.sorted.sum, (weights, x))
    assert torch.autograd.gradcheck(edges.sorted.edge_dot, (query, x))
    assert torch.autograd.gradcheck(lambda scores: edges.sorted.softmax(scores)[0], (weights,))
    assert torch.autograd.gradcheck(edges.mean, (x,))


def test_heads_are_nodes_of_their_own(edges: Edges) -> None:
    heads = 2
    between = edges.per_head(heads)
    joined = {(int(s), int(r)) for s, r in zip(edges.source, edges.receiver, strict=True)}
    wanted = {(s * heads + h, r * heads + h) for s, r in joined for h in range(heads)}
    found = {(int(s), int(r)) for s, r in zip(between.incoming.other, between.incoming.own, strict=True)}
    assert found == wanted


def test_sixteen_bits_are_summed_in_single_precision(edges: Edges) -> None:
    x = torch.ones(N_SOURCE, WIDTH, dtype=torch.bfloat16)
    assert edges.mean(x).dtype == torch.float32


def test_nothing_is_heard_of_young_sparse_matrices(edges: Edges, recwarn: pytest.WarningsRecorder) -> None:
    edges.sorted.edge_dot(torch.ones(N_RECEIVER, WIDTH), torch.ones(N_SOURCE, WIDTH))
    assert not [str(warning.message) for warning in recwarn]


def test_edges_that_are_none_give_zeros() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    edges = Edges(none, none, N_SOURCE, N_RECEIVER)
    x = torch.ones(N_SOURCE, WIDTH, requires_grad=True)
    edges.mean(x).sum().backward()
    assert edges.mean(x).shape == (N_RECEIVER, WIDTH)
    assert x.grad is not None
    assert not x.grad.any()
