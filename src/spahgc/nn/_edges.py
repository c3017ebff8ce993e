"""Edges of a graph as tensors, and what runs along them: means and attention, without a copy for every edge."""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

HALF_TYPES = (torch.float16, torch.bfloat16)

MIN_SPREAD = 1e-6
"""Standard deviation of a similarity below which all sources of a receiver are as good as equally alike."""


class Attended(NamedTuple):
    """What an attention gathers at its receiving nodes.

    Parameters
    ----------
    out
        Receivers x width; zeros at a node without an edge.
    weights
        Edges x heads, in the order of the edges; those of a receiver sum to 1 in every head. Without a gradient.
    highest, total
        Largest score of each receiver, and the sum of ``exp(score - highest)``; receivers x heads. With them attentions
        over different sources of one receiver are made one.
    """

    out: Tensor
    weights: Tensor
    highest: Tensor
    total: Tensor


@dataclass(frozen=True)
class Edges:
    """Edges from source nodes to receiving nodes.

    Parameters
    ----------
    source, receiver
        Numbers of the nodes that each edge joins.
    n_source, n_receiver
        How many nodes there are on either side.
    similarity
        How alike the two nodes of each edge are; ``None`` where it is not known.
    distance
        How far the two nodes of each edge lie apart, microns, infinite where that is not known; ``None`` where it is known of
        none.
    alike
        Edges that are there because their nodes are alike, boolean; ``None`` for all. By these similarity is standardised.
    """

    source: Tensor
    receiver: Tensor
    n_source: int
    n_receiver: int
    similarity: Tensor | None = None
    distance: Tensor | None = None
    alike: Tensor | None = None

    @cached_property
    def reversed(self) -> Edges:
        """The same edges, running the other way."""
        return replace(
            self,
            source=self.receiver,
            receiver=self.source,
            n_source=self.n_receiver,
            n_receiver=self.n_source,
        )

    @cached_property
    def joined_sources(self) -> Tensor:
        """Numbers of the source nodes that have an edge, ascending."""
        return self.source.unique()

    @cached_property
    def between_joined(self) -> Edges:
        """The same edges, with the sources numbered by their position in :attr:`joined_sources`."""
        position = torch.searchsorted(self.joined_sources, self.source.contiguous())
        return replace(self, source=position, n_source=len(self.joined_sources))

    @cached_property
    def standard_similarity(self) -> Tensor:
        """Similarity in standard deviations from its mean over the sources of the receiver; 0 where all are alike.

        Mean and deviation are those of the :attr:`alike` sources, also for another one.
        """
        if self.similarity is None:
            raise ValueError("the edges do not say how alike their nodes are. Pass similarity= with a number an edge.")
        ones = torch.ones_like(self.similarity) if self.alike is None else self.alike.to(self.similarity.dtype)
        degrees = self.similarity.new_zeros(self.n_receiver).index_add_(0, self.receiver, ones)

        def mean(x: Tensor) -> Tensor:
            counted = x if self.alike is None else x * ones
            total = x.new_zeros(self.n_receiver).index_add_(0, self.receiver, counted)
            return (total / degrees).index_select(0, self.receiver)

        apart = self.similarity - mean(self.similarity)
        return apart / (mean(apart.square()).sqrt() + MIN_SPREAD)

    @cached_property
    def sorted(self) -> SortedEdges:
        """The same edges in the order of their receivers."""
        return SortedEdges.of(self.source, self.receiver, self.n_source, self.n_receiver)

    @cached_property
    def _by_receiver(self) -> tuple[Tensor, Tensor]:
        return _order_and_ends(self.receiver, self.n_receiver)

    @cached_property
    def _degrees(self) -> Tensor:
        """Sources of the receiver of each edge, in the order of the receivers."""
        return self.sorted.incoming.ends.diff().index_select(0, self.sorted.incoming.own)

    @cached_property
    def _of_heads(self) -> dict[int, SortedEdges]:
        return {}

    def per_head(self, heads: int) -> SortedEdges:
        """Edges between the heads of the nodes: head ``h`` of node ``i`` has the number ``i * heads + h``."""
        if heads not in self._of_heads:
            head = torch.arange(heads, device=self.source.device)
            source, receiver = ((end[:, None] * heads + head).flatten() for end in (self.source, self.receiver))
            self._of_heads[heads] = SortedEdges.of(source, receiver, self.n_source * heads, self.n_receiver * heads)
        return self._of_heads[heads]

    def into(self, receivers: Tensor) -> tuple[Edges, Tensor]:
        """The edges that end at some nodes.

        Parameters
        ----------
        receivers
            Numbers of the nodes.

        Returns
        -------
        The edges, with the receivers numbered by their position among those asked for, and which of all edges they are.
        """
        order, ends = self._by_receiver
        degrees = ends[receivers + 1] - ends[receivers]
        position = torch.arange(len(receivers), device=receivers.device).repeat_interleave(degrees)
        within = torch.arange(len(position), device=receivers.device) - (degrees.cumsum(0) - degrees)[position]
        edges = order[ends[receivers][position] + within]
        known = {name: getattr(self, name) for name in ("similarity", "distance", "alike")}
        some = {name: None if part is None else part[edges] for name, part in known.items()}
        return Edges(self.source[edges], position, self.n_source, len(receivers), **some), edges

    def mean(self, x: Tensor) -> Tensor:
        """Mean of ``x`` (sources x width) over the sources of each receiver, receivers x width; 0 without a source."""
        return self.sorted.sum(1 / self._degrees.to(x.dtype), x)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None = None) -> Attended:
        r"""Multi-head attention of the receivers over their sources, scaled by :math:`1 / \sqrt{\text{width of a head}}`.

        Parameters
        ----------
        query
            Receivers x width, divided among the heads.
        key
            Sources x width.
        value
            Sources x width, or another width that the heads divide.
        heads
            Number of heads.
        bias
            Added to the scores, edges x heads.
        """
        edges, width = self.per_head(heads), query.size(1) // heads
        # Every head of a node is a node of its own.
        q, k, v = (x.reshape(-1, x.size(1) // heads) for x in (query, key, value))
        scores = edges.edge_dot(q, k) / math.sqrt(width)
        scores = scores if bias is None else scores + bias.flatten().index_select(0, edges.order)
        weights, highest, total = edges.softmax(scores)
        out = edges.sum(weights, v).view(len(query), -1)
        looked_at = weights.detach()
        given = torch.empty_like(looked_at).index_copy_(0, edges.order, looked_at)
        return Attended(out, *(x.view(-1, heads) for x in (given, highest, total)))


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
        """Bags of the ``n`` nodes at one end, and which edge is at each position."""
        order, ends = _order_and_ends(own, n)
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
            _silence_sparse_warning()
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
        Which edge, in the order in which they were given, is at each position.
    outgoing
        The edges of each source.
    turn
        Positions in the order of the sources.
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

    def softmax(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of the edges to weights that sum to 1 at each receiver; and ``highest`` and ``total`` of :class:`Attended`."""
        receiver, n = self.incoming.own, len(self.incoming.ends) - 1
        with torch.no_grad():  # any number may be taken off: the weights stay the same
            highest = scores.new_full((n,), -torch.inf).scatter_reduce_(0, receiver, scores, "amax")
        raised = (scores - highest.index_select(0, receiver)).exp()
        total = raised.new_zeros(n).scatter_add(0, receiver, raised)
        return raised / total.index_select(0, receiver), highest, total


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


def _order_and_ends(nodes: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Edges in the order of the ``n`` nodes at one end, and where those of each node begin and end."""
    degrees = torch.bincount(nodes, minlength=n)
    return nodes.argsort(stable=True), torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])


@functools.cache
def _silence_sparse_warning() -> None:
    """Trigger torch's warning that sparse matrices are in beta, once in a process, where the user does not see it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 1], [0], [0.0], check_invariants=False)


def _at_least_single(x: Tensor) -> Tensor:
    """Float32 in place of 16 bits, in which sums lose too much."""
    return x.float() if x.dtype in HALF_TYPES else x
