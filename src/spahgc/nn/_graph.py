"""The heterogeneous graph as tensors: one slide in the role of the target, a bank of reference spots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from spahgc.nn._sums import SortedEdges

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Edges:
    """Edges from source nodes to receiving nodes.

    Parameters
    ----------
    source, receiver
        Numbers of the nodes that each edge joins.
    n_source, n_receiver
        How many nodes there are on either side.
    """

    source: Tensor
    receiver: Tensor
    n_source: int
    n_receiver: int

    @cached_property
    def reversed(self) -> Edges:
        """The same edges, running the other way."""
        return Edges(self.receiver, self.source, self.n_receiver, self.n_source)

    @cached_property
    def joined_sources(self) -> Tensor:
        """Numbers of the source nodes that have an edge, ascending."""
        return self.source.unique()

    @cached_property
    def between_joined(self) -> Edges:
        """The same edges, with the sources numbered by their place in :attr:`joined_sources`."""
        place = torch.searchsorted(self.joined_sources, self.source.contiguous())
        return Edges(place, self.receiver, len(self.joined_sources), self.n_receiver)

    @cached_property
    def _by_receiver(self) -> tuple[Tensor, Tensor]:
        """Edges in the order of their receivers, and where those of each receiver begin and end."""
        degrees = torch.bincount(self.receiver, minlength=self.n_receiver)
        ends = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
        return self.receiver.argsort(stable=True), ends

    @cached_property
    def sorted(self) -> SortedEdges:
        """The same edges in the order of their receivers."""
        return SortedEdges.of(self.source, self.receiver, self.n_source, self.n_receiver)

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
        The edges, with the receivers numbered by their place among those asked for, and which of all edges they are.
        """
        order, ends = self._by_receiver
        degrees = ends[receivers + 1] - ends[receivers]
        place = torch.arange(len(receivers), device=receivers.device).repeat_interleave(degrees)
        within = torch.arange(len(place), device=receivers.device) - (degrees.cumsum(0) - degrees)[place]
        edges = order[ends[receivers][place] + within]
        return Edges(self.source[edges], place, self.n_source, len(receivers)), edges

    def mean(self, x: Tensor) -> Tensor:
        """Mean of ``x`` (sources x width) over the sources of each receiver, receivers x width; 0 without a source."""
        return self.sorted.sum(1 / self._degrees.to(x.dtype), x)

    def sum(self, messages: Tensor) -> Tensor:
        """Sum of ``messages`` (edges x width) at each receiver, receivers x width."""
        return messages.new_zeros(self.n_receiver, messages.size(1)).index_add(0, self.receiver, messages)


@dataclass(frozen=True)
class HeteroGraph:
    """Features and edges of the two node types.

    Parameters
    ----------
    target
        Image features of the target spots, target spots x dim.
    reference
        Image features of the reference spots, reference spots x dim.
    expression
        Expression of the reference spots, reference spots x genes.
    ts
        Target slice: from the neighbours in the plane to a target spot.
    cs
        Cross slice: from the reference spots that look alike to a target spot.
    rs
        Reference slice: from the reference spots that look and express alike to a reference spot.
    """

    target: Tensor
    reference: Tensor
    expression: Tensor
    ts: Edges
    cs: Edges
    rs: Edges
