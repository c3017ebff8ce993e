"""Weighted sums along edges, products across them, and the softmax between: no state is copied for every edge."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

HALF_TYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Segments:
    """Edges in the order of the nodes at one of their ends; the edges of a node are its bag.

    Parameters
    ----------
    own, other
        Nodes at this end of each edge, ascending, and at the other.
    ends
        Where the edges of each node begin and end: one number more than nodes.
    """

    own: Tensor
    other: Tensor
    ends: Tensor

    @classmethod
    def of(cls, own: Tensor, other: Tensor, n: int) -> tuple[Segments, Tensor]:
        """Bags of the ``n`` nodes at one end, and which edge is at each place."""
        order = own.argsort(stable=True)
        degrees = torch.bincount(own, minlength=n)
        ends = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
        return cls(own.index_select(0, order), other.index_select(0, order), ends), order

    def sum(self, weights: Tensor, x: Tensor) -> Tensor:
        """Sum over each bag of the rows of ``x`` (other nodes x width) times weights (edges in the order of the bags)."""
        if x.device.type == "mps":  # bags of embeddings are not to be had there
            weighted = weights.unsqueeze(1) * x.index_select(0, self.other)
            return x.new_zeros(len(self.ends) - 1, x.size(1)).index_add_(0, self.own, weighted)
        # Gathers, weighs and adds in one pass. A product with a sparse matrix is as fast, but MKL starts threads of its
        # own for it, which ignore the user's limit and wait for each other on a busy machine.
        return F.embedding_bag(
            self.other, x, self.ends, mode="sum", include_last_offset=True, per_sample_weights=weights
        )

    def edge_dot(self, y: Tensor, x: Tensor) -> Tensor:
        """Product of the rows of ``y`` (nodes of the bags) and ``x`` (other nodes) of every edge, a number an edge."""
        if x.device.type == "cpu":  # one pass as well; elsewhere the copies of the rows cost little
            _expect_sparse()
            size, nothing = (len(y), len(x)), x.new_zeros(len(self.other))
            pattern = torch.sparse_csr_tensor(self.ends, self.other, nothing, size, check_invariants=False)
            return torch.sparse.sampled_addmm(pattern, y, x.t(), beta=0.0).values()
        return (y.index_select(0, self.own) * x.index_select(0, self.other)).sum(dim=1)


@dataclass(frozen=True)
class SortedEdges:
    """Edges in the order of their receivers, with all that a pass over them needs in either direction.

    Parameters
    ----------
    incoming
        The edges of each receiver.
    order
        Which edge, in the order in which they were given, is at each place.
    outgoing
        The edges of each source.
    turn
        Places in the order of the sources.
    """

    incoming: Segments
    order: Tensor
    outgoing: Segments
    turn: Tensor

    @classmethod
    def of(cls, source: Tensor, receiver: Tensor, n_source: int, n_receiver: int) -> SortedEdges:
        """From the nodes that each edge joins."""
        incoming, order = Segments.of(receiver, source, n_receiver)
        return cls(incoming, order, *Segments.of(incoming.other, incoming.own, n_source))

    def sum(self, weights: Tensor, x: Tensor) -> Tensor:
        """Weighted sum of ``x`` (sources x width) over the edges of each receiver, receivers x width."""
        x = _at_least_single(x).contiguous()
        total: Tensor = _Sum.apply(weights.to(x.dtype), x, self)
        return total

    def edge_dot(self, query: Tensor, x: Tensor) -> Tensor:
        """Products of ``query`` (receivers x width) and ``x`` (sources x width) along the edges."""
        products: Tensor = _Dots.apply(_at_least_single(query).contiguous(), _at_least_single(x).contiguous(), self)
        return products

    def softmax(self, scores: Tensor) -> Tensor:
        """Scores of the edges to weights that sum to 1 at each receiver."""
        return softmax(scores, self.incoming.own, len(self.incoming.ends) - 1)


class _Sum(Function):
    """The derivative of a sum along edges is a product across them, and a sum the other way."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, edges: SortedEdges) -> Tensor:
        ctx.save_for_backward(weights, x)
        ctx.edges = edges
        return edges.incoming.sum(weights, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weights, x = ctx.saved_tensors
        edges, gradient = ctx.edges, gradient.contiguous()
        of_weights = edges.incoming.edge_dot(gradient, x) if ctx.needs_input_grad[0] else None
        turned = weights.index_select(0, edges.turn)
        return of_weights, edges.outgoing.sum(turned, gradient) if ctx.needs_input_grad[1] else None, None


class _Dots(Function):
    """The derivative of a product across edges is a sum along them, in either direction."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, x: Tensor, edges: SortedEdges) -> Tensor:
        ctx.save_for_backward(query, x)
        ctx.edges = edges
        return edges.incoming.edge_dot(query, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        query, x = ctx.saved_tensors
        edges, gradient = ctx.edges, gradient.contiguous()
        turned = gradient.index_select(0, edges.turn)
        return edges.incoming.sum(gradient, x), edges.outgoing.sum(turned, query), None


def softmax(scores: Tensor, receiver: Tensor, num_nodes: int) -> Tensor:
    """Scores (edges, or edges x heads) to weights that sum to 1 over the edges of each receiver."""
    shape = num_nodes, *scores.shape[1:]
    place = receiver.view(-1, *[1] * (scores.dim() - 1)).expand_as(scores)
    with torch.no_grad():  # any number may be taken off: the weights stay the same
        highest = scores.new_full(shape, -torch.inf).scatter_reduce_(0, place, scores, "amax")
    raised = (scores - highest.index_select(0, receiver)).exp()
    total = raised.new_zeros(shape).scatter_add(0, place, raised)
    return raised / total.index_select(0, receiver)


@functools.cache
def _expect_sparse() -> None:
    """Hear torch's warning that sparse matrices are young, once in a process, in place of the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 1], [0], [0.0], check_invariants=False)


def _at_least_single(x: Tensor) -> Tensor:
    """Float32 in place of 16 bits, in which sums lose too much."""
    return x.float() if x.dtype in HALF_TYPES else x
