"""Attention across the two node types: CNDA inside every layer, CNAP before the gene head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from spahgc.nn._sums import softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from spahgc.nn._graph import Edges


class CrossNodeAttention(nn.Module):
    r"""Multi-head attention of receiving nodes over the source nodes that edges join to them.

    For an edge :math:`s \to q` and one head of width :math:`d`

    .. math:: \alpha_{sq} = \operatorname{softmax}_{s}\left(\frac{(W_Q x_q)^\top (W_K x_s)}{\sqrt d}\right), \qquad
              o_q = \sum_s \alpha_{sq} W_V x_s

    and the heads are concatenated. A node without an edge gets zeros.

    Parameters
    ----------
    query_dim, source_dim
        Widths of the two inputs.
    width
        Width of the output, divided among the heads.
    heads
        Number of heads.
    """

    def __init__(self, query_dim: int, source_dim: int, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads: got width={width}, heads={heads}.")
        self.heads = heads
        self.query = nn.Linear(query_dim, width)
        self.key_value = nn.Linear(source_dim, 2 * width)

    def forward(self, query: Tensor, source: Tensor, edges: Edges) -> Tensor:
        """Attend; ``query`` is receivers x ``query_dim``, ``source`` is sources x ``source_dim``."""
        return self.attend(query, source, edges)[0]

    def attend(self, query: Tensor, source: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """Attend, and return the weights (edges x heads) as well."""
        between, width = edges.per_head(self.heads), self.query.out_features // self.heads
        q = self.query(query).view(-1, width)  # every head of a node is a node of its own
        k, v = (part.reshape(-1, width) for part in self.key_value(source).chunk(2, dim=-1))
        weights = between.softmax(between.edge_dot(q, k) / math.sqrt(width))
        gathered = between.sum(weights, v).view(len(query), -1)
        return gathered, torch.empty_like(weights).index_copy(0, between.order, weights).view(-1, self.heads)

    def attend_in_parts(self, query: Tensor, source: Tensor, edges: Edges, parts: Sequence[Tensor]) -> Tensor:
        """What :meth:`forward` returns, for receivers of any number of edges, of which a part is held at a time.

        A receiver's edges may come from all over the graph. So they are passed through by their sources and twice: first
        for the scores, of which the weights of all edges are made, then for what is summed with these weights.

        Parameters
        ----------
        query, source, edges
            As in :meth:`forward`.
        parts
            Numbers of the source nodes, each in one part.
        """
        q, width = self.query(query), self.query.out_features
        weight, bias = self.key_value.weight, self.key_value.bias
        scores = q.new_empty(len(edges.source), self.heads)
        for part in parts:  # a source is the receiver of the edges the other way round
            some, numbers = edges.reversed.into(part)
            k = F.linear(source.index_select(0, part), weight[:width], bias[:width])
            scores[numbers] = self._scores(q.index_select(0, some.source), k.index_select(0, some.receiver))
        weights = softmax(scores, edges.receiver, num_nodes=edges.n_receiver)
        out = torch.zeros_like(q)
        for part in parts:
            some, numbers = edges.reversed.into(part)
            v = F.linear(source.index_select(0, part), weight[width:], bias[width:])
            out.index_add_(0, some.source, self._messages(weights[numbers], v.index_select(0, some.receiver)))
        return out

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Of every edge, edges x heads, from the query and the key at its ends."""
        return (q * k).view(len(q), self.heads, -1).sum(dim=-1) / math.sqrt(q.size(1) // self.heads)

    def _messages(self, weights: Tensor, v: Tensor) -> Tensor:
        """What runs along every edge, edges x width."""
        return (weights.unsqueeze(-1) * v.view(len(v), self.heads, -1)).flatten(start_dim=1)


class CrossNodeDualAttention(nn.Module):
    """CNDA: target spots attend to their reference spots, and reference spots to their target spots.

    Keys and values of a reference spot see its state and its expression; those of a target spot see its state alone.

    Parameters
    ----------
    n_genes
        Width of the expression.
    width, heads
        As in :class:`CrossNodeAttention`.
    """

    def __init__(self, n_genes: int, width: int, heads: int) -> None:
        super().__init__()
        self.to_target = CrossNodeAttention(width, width + n_genes, width, heads)
        self.to_reference = CrossNodeAttention(width, width, width, heads)

    def forward(self, target: Tensor, reference: Tensor, expression: Tensor, cs: Edges) -> tuple[Tensor, Tensor]:
        """Both directions; ``cs`` runs from the reference to the target spots.

        Only reference spots that some target spot retrieved take part: in a large bank they are few.
        """
        joined, edges = cs.joined_sources, cs.between_joined
        retrieved = reference.index_select(0, joined)
        sources = torch.cat([retrieved, expression.index_select(0, joined)], dim=-1)
        to_target = self.to_target(target, sources, edges)
        to_reference = self.to_reference(retrieved, target, edges.reversed)
        return to_target, torch.zeros_like(reference).index_copy(0, joined, to_reference)


class CrossNodeAttentionPooling(nn.Module):
    """CNAP: what a target spot gathers from its reference spots, added to its own state.

    Parameters
    ----------
    width, heads
        As in :class:`CrossNodeAttention`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = CrossNodeAttention(width, width, width, heads)

    def forward(self, target: Tensor, reference: Tensor, cs: Edges) -> Tensor:
        """Pooled state, target spots x width."""
        return target + self.attention(target, reference.index_select(0, cs.joined_sources), cs.between_joined)
