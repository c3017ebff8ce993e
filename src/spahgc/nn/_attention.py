"""Attention across the two node types: CNDA inside every layer, CNAP before the gene head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch_geometric.utils import softmax

if TYPE_CHECKING:
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
        q = self.query(query).index_select(0, edges.receiver)
        # Keys and values are gathered at once: the gathers, not the products, are what takes the time.
        k, v = self.key_value(source).index_select(0, edges.source).chunk(2, dim=-1)
        per_head = (len(q), self.heads, -1)
        scores = (q * k).view(per_head).sum(dim=-1) / math.sqrt(q.size(1) // self.heads)
        weights = softmax(scores, edges.receiver, num_nodes=edges.n_receiver)
        messages = (weights.unsqueeze(-1) * v.view(per_head)).flatten(start_dim=1)
        return edges.sum(messages), weights


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
