"""The network: GraphSAGE and CNDA layers over the three edge types, CNAP, a linear head to genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from spahgc.nn._attention import CrossNodeAttentionPooling, CrossNodeDualAttention

if TYPE_CHECKING:
    from torch import Tensor

    from spahgc.nn._graph import Edges, HeteroGraph

LEAKY_SLOPE = 0.2


class MeanSAGE(nn.Module):
    """GraphSAGE with the mean: ``W_1 x_i + W_2 mean_j x_j``.

    As :class:`torch_geometric.nn.SAGEConv`, without the copy of every neighbour's state that its scatter makes: on a CPU
    that is twice as fast, forward and backward.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Linear(width, width)
        self.neighbours = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, edges: Edges, receivers: Tensor | None = None) -> Tensor:
        """New states, nodes x width, of all nodes or of the receivers, whose own states they are."""
        return self.own(x if receivers is None else receivers) + self.neighbours(edges.mean(x))


class SpaHGCLayer(nn.Module):
    """One layer: GraphSAGE over TS and RS, CNDA over CS, the results of a node averaged, LeakyReLU.

    Parameters
    ----------
    n_genes
        Width of the expression.
    width, heads
        Width of the states and heads of the attention.
    """

    def __init__(self, n_genes: int, width: int, heads: int) -> None:
        super().__init__()
        self.ts = MeanSAGE(width)
        self.rs = MeanSAGE(width)
        self.cs = CrossNodeDualAttention(n_genes, width, heads)

    def forward(self, target: Tensor, reference: Tensor, graph: HeteroGraph) -> tuple[Tensor, Tensor]:
        """New states of the two node types, from their states and the expression and edges of the graph."""
        cross_target, cross_reference = self.cs(target, reference, graph.expression, graph.cs)
        target = (self.ts(target, graph.ts) + cross_target) / 2
        reference = (self.rs(reference, graph.rs) + cross_reference) / 2
        return F.leaky_relu(target, LEAKY_SLOPE), F.leaky_relu(reference, LEAKY_SLOPE)


class SpaHGCNetwork(nn.Module):
    """From the features of the heterogeneous graph to the expression of its target spots.

    Parameters
    ----------
    feature_dim
        Width of the image embedding.
    n_genes
        Size of the panel.
    width, layers, heads
        Width of the states, number of layers, heads of every attention.
    """

    def __init__(self, feature_dim: int, n_genes: int, *, width: int = 256, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.target_entry = nn.Linear(feature_dim, width)
        self.reference_entry = nn.Linear(feature_dim + n_genes, width)
        self.layers = nn.ModuleList([SpaHGCLayer(n_genes, width, heads) for _ in range(layers)])
        self.pooling = CrossNodeAttentionPooling(width, heads)
        self.head = nn.Linear(width, n_genes)

    def encode(self, graph: HeteroGraph) -> tuple[Tensor, Tensor]:
        """States of target and reference nodes after the last layer, nodes x width."""
        target = self.target_entry(graph.target)
        reference = self.reference_entry(torch.cat([graph.reference, graph.expression], dim=-1))
        for layer in self.layers:
            target, reference = layer(target, reference, graph)
        return target, reference

    def decode(self, target: Tensor, reference: Tensor, cs: Edges) -> Tensor:
        """Expression of the target spots, spots x genes, from the states of both node types."""
        return self.head(self.pooling(target, reference, cs))

    def forward(self, graph: HeteroGraph) -> Tensor:
        """Expression of the target spots, spots x genes."""
        return self.decode(*self.encode(graph), graph.cs)
