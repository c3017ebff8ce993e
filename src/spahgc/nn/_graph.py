"""The heterogeneous graph as tensors: one slide in the role of the target, a bank of reference spots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

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
    def _bags(self) -> tuple[Tensor, Tensor]:
        """Sources in the order of their receivers, and where the sources of each receiver begin and end."""
        degrees = torch.bincount(self.receiver, minlength=self.n_receiver)
        ends = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
        return self.source.index_select(0, self.receiver.argsort(stable=True)), ends

    def mean(self, x: Tensor) -> Tensor:
        """Mean of ``x`` (sources x width) over the sources of each receiver, receivers x width; 0 without a source."""
        if x.device.type == "mps":  # bags of embeddings are not to be had there
            degrees = torch.bincount(self.receiver, minlength=self.n_receiver).clamp(min=1).unsqueeze(1)
            return self.sum(x.index_select(0, self.source)) / degrees
        # Gathers and averages in one pass, forward and backward. A product with a sparse matrix is as fast, but MKL
        # starts threads of its own for it, which ignore the user's limit and wait for each other on a busy machine.
        sources, ends = self._bags
        return F.embedding_bag(sources, x, ends, mode="mean", include_last_offset=True)

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
