"""The network on its graph: GraphSAGE and attention layers over the three edge types, attention pooling, a linear head to genes.

Every layer is written for a block of receiving nodes, and a whole slide is one block. In blocks the states of all nodes
after a layer are kept, nodes x width, and the next layer is computed for a block at a time from the states at the sources
of its edges. So a block has a halo that is one edge wide at every layer, and the result is that of the whole slide to float
error. A halo in the plane alone could not do that, however wide: reference spots attend to target spots of the whole slide,
and hand on to one block what they gathered from another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from spahgc.nn._retrieval import ExpressionRetrieval

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from spahgc.nn._edges import Attended, Edges

LEAKY_SLOPE = 0.2
BLOCK_REFERENCES = 4096
"""Reference nodes that are computed at a time, where a slide is computed in blocks."""
CROSS_EDGES, REFERENCE_EDGES = ("cs",), ("rs",)
"""Edges from reference to target nodes, and among reference nodes: along them a block finds the states that it needs."""
RETRIEVED_EDGES = "cs+ps"
"""Edges of which the nodes are alike or lie at the same place."""
WHOLE: tuple[None] = (None,)
"""One block of all nodes."""

Blocks = Sequence["Tensor | None"]
"""Numbers of the nodes of each block; ``None`` for all nodes."""


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
    edges
        Edges of each type by its name, from the nodes that are looked at to those that look: ``"ts"``, ``"cs"``, ``"rs"``,
        and whatever else a layer is written for; ``"cs+ps"`` are those of ``"cs"`` and those by place together, an edge that is
        both being one.
    hidden
        Of features by their name (``"target"``, ``"reference"``, ``"expression"``) the share of entries, 0 to 1, that is
        hidden on average: see :meth:`visible`.
    """

    target: Tensor
    reference: Tensor
    expression: Tensor
    edges: Mapping[str, Edges]
    hidden: Mapping[str, float] = field(default_factory=dict)

    @property
    def ts(self) -> Edges:
        """Target slice: from the neighbours in the plane to a target spot."""
        return self.edges["ts"]

    @property
    def cs(self) -> Edges:
        """Cross slice: from the reference spots that look alike to a target spot."""
        return self.edges["cs"]

    @property
    def retrieved(self) -> Edges:
        """Along which expression is retrieved: those across slices, and where place is known those by place as well."""
        return self.edges.get(RETRIEVED_EDGES, self.edges["cs"])

    @property
    def rs(self) -> Edges:
        """Reference slice: from the reference spots that look and express alike to a reference spot."""
        return self.edges["rs"]

    @property
    def similarities(self) -> np.ndarray:
        """How alike the nodes of each edge of :attr:`retrieved` are, float32."""
        if self.retrieved.similarity is None:
            raise ValueError("the edges do not say how alike their nodes are.")
        return self.retrieved.similarity.float().cpu().numpy()

    def visible(self, name: str, rows: Tensor | None = None) -> Tensor:
        """Features of all nodes or of some rows, times the share of their entries that is not hidden."""
        features: Tensor = getattr(self, name)
        features = features if rows is None else features.index_select(0, rows)
        return features * (1 - self.hidden[name]) if name in self.hidden else features


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

    def forward(self, query: Tensor, source: Tensor, edges: Edges) -> Attended:
        """Attend; ``query`` is receivers x ``query_dim``, ``source`` is sources x ``source_dim``."""
        q = self.query(query)
        k, v = self.key_value(source).chunk(2, dim=-1)
        return edges.attend(q, k, v, self.heads)


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

    def forward(self, target: Tensor, reference: Tensor, expression: Tensor, cs: Edges) -> tuple[Attended, Attended]:
        """Both directions, to the target and to the reference; ``cs`` runs from the reference to the target spots."""
        to_target = self.to_target(target, torch.cat([reference, expression], dim=-1), cs)
        return to_target, self.to_reference(reference, target, cs.reversed)


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

    def forward(self, target: Tensor, reference: Tensor, cs: Edges) -> tuple[Tensor, Tensor]:
        """Pooled state, target spots x width, and the weights of the edges, edges x heads."""
        attended = self.attention(target, reference, cs)
        return target + attended.out, attended.weights


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

    def forward(
        self, target: Tensor, reference: Tensor, graph: HeteroGraph, blocks: Blocks = WHOLE, needed: Blocks = WHOLE
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New states of the two node types, from their states and the expression and edges of the graph.

        Only reference spots that some target spot retrieved take part in the attention: in a large bank they are few.

        Parameters
        ----------
        target, reference
            States, nodes x width.
        graph
            The whole graph.
        blocks
            Target nodes, each in one block.
        needed
            Blocks of the reference nodes whose new states are wanted; those of others are zeros.

        Returns
        -------
        The states, and the attention of the target nodes on the CS edges, mean over the heads, in the order of the edges.
        """
        ts, cs, rs = graph.edges["ts"], graph.edges["cs"], graph.edges["rs"]
        states, attention, to_references = Assembled(len(target)), Assembled(len(cs.source)), _Merged(reference)
        for rows in blocks:
            near, (retrieving, numbers) = _into(ts, rows)[0], _into(cs, rows)
            own, retrieved = _rows(target, rows), retrieving.joined_sources
            to_target, to_reference = self.cs(
                own,
                reference.index_select(0, retrieved),
                graph.visible("expression", retrieved),
                retrieving.between_joined,
            )
            states.put(rows, _activated(self.ts(target, near, own), to_target.out))
            attention.put(numbers, to_target.weights.mean(dim=1))
            to_references.add(retrieved, to_reference)
        cross = to_references.out

        def new_reference(rows: Tensor | None) -> Tensor:
            return _activated(self.rs(reference, _into(rs, rows)[0], _rows(reference, rows)), _rows(cross, rows))

        return states.all, in_blocks(new_reference, needed, len(reference)), attention.all


class States(NamedTuple):
    """States of target and reference nodes, nodes x width."""

    target: Tensor
    reference: Tensor


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
    retrieval
        Predict by :class:`ExpressionRetrieval` in place of CNAP. What the layers make of a target spot, if there are any,
        is added through the head.
    pitch_um
        Of a network with retrieval that knows place, how far neighbouring spots lie apart, microns; ``None`` without place.
    """

    def __init__(
        self,
        feature_dim: int,
        n_genes: int,
        *,
        width: int = 256,
        layers: int = 4,
        heads: int = 4,
        retrieval: bool = False,
        pitch_um: float | None = None,
    ) -> None:
        super().__init__()
        if layers:
            self.target_entry = nn.Linear(feature_dim, width)
            self.reference_entry = nn.Linear(feature_dim + n_genes, width)
        self.layers = nn.ModuleList([SpaHGCLayer(n_genes, width, heads) for _ in range(layers)])
        if not retrieval:
            self.pooling = CrossNodeAttentionPooling(width, heads)
        if layers:
            self.head = nn.Linear(width, n_genes)
        if pitch_um is not None and not retrieval:
            raise ValueError("place is known to retrieval alone. Pass retrieval=True, or leave pitch_um= out.")
        self.retrieval = (
            ExpressionRetrieval(feature_dim, n_genes, width, heads, pitch_um=pitch_um) if retrieval else None
        )

    def forward(self, graph: HeteroGraph) -> Tensor:
        """Expression of the target spots, spots x genes."""
        return self.attend(graph)[0]

    def attend(self, graph: HeteroGraph, blocks: Blocks = WHOLE) -> tuple[Tensor, Tensor]:
        """Expression of the target spots, spots x genes, and the attention weights of the CS edges from which it came.

        Parameters
        ----------
        graph
            Graph of a target.
        blocks
            Numbers of the target nodes, each in one block. Blocks of neighbouring spots are the fastest.

        Returns
        -------
        Spots x genes; and (layers + 1) x CS edges, in the order of the edges, means over the heads: CNDA towards the
        target of every layer, then CNAP. With retrieval 1 x edges of :attr:`HeteroGraph.retrieved`: its own weights, of which
        the expression is made. In each row the weights of a target spot sum to 1.
        """
        states, by_layer = self.encode(graph, blocks)
        expression, of_pooling = self.decode(states, graph, blocks)
        return expression, torch.stack([of_pooling] if self.retrieval is not None else [*by_layer, of_pooling])

    def encode(self, graph: HeteroGraph, blocks: Blocks = WHOLE) -> tuple[States, list[Tensor]]:
        """States after the last layer, and the attention on the CS edges in each of them; no numbers without layers."""
        if not self.layers:
            return States(
                graph.target.new_empty(len(graph.target), 0), graph.target.new_empty(len(graph.reference), 0)
            ), []
        first, *later = self._needed_references(graph, blocks)

        def enter_reference(rows: Tensor | None) -> Tensor:
            features = torch.cat([graph.visible("reference", rows), graph.visible("expression", rows)], dim=-1)
            return self.reference_entry(features)

        target = in_blocks(lambda rows: self.target_entry(graph.visible("target", rows)), blocks, len(graph.target))
        reference = in_blocks(enter_reference, first, len(graph.reference))
        by_layer = []
        for layer, needed in zip(self.layers, later, strict=True):
            target, reference, attention = layer(target, reference, graph, blocks, needed)
            by_layer.append(attention)
        return States(target, reference), by_layer

    def decode(self, states: States, graph: HeteroGraph, blocks: Blocks = WHOLE) -> tuple[Tensor, Tensor]:
        """Expression of the target spots, spots x genes, from the states, and the attention of the pooling on its edges."""
        cross = graph.edges["cs"] if self.retrieval is None else graph.retrieved
        expression, attention = Assembled(len(graph.target)), Assembled(len(cross.source))
        for rows in blocks:
            edges, numbers = _into(cross, rows)
            predicted, weights = self._pool(states, graph, rows, edges)
            expression.put(rows, predicted)
            attention.put(numbers, weights.mean(dim=1))
        return expression.all, attention.all

    def _pool(self, states: States, graph: HeteroGraph, rows: Tensor | None, edges: Edges) -> tuple[Tensor, Tensor]:
        """Expression of a block of target spots, from CNAP or by retrieval, and the weights of its edges."""
        own, retrieved = _rows(states.target, rows), edges.joined_sources
        if self.retrieval is None:
            pooled, weights = self.pooling(own, states.reference.index_select(0, retrieved), edges.between_joined)
            return self.head(pooled), weights
        predicted, weights = self.retrieval(
            graph.visible("target", rows),
            graph.visible("reference", retrieved),
            graph.visible("expression", retrieved),
            edges.between_joined,
        )
        return predicted + self.head(own) if self.layers else predicted, weights

    def retrieval_weights(self, graph: HeteroGraph) -> Tensor:
        """Factor of a source's expression in the retrieval along each edge, edges x genes; sums over the heads."""
        if self.retrieval is None:
            raise ValueError("the network has no retrieval: what travels along its edges is states, not expression.")
        nodes = (graph.visible(name) for name in ("target", "reference", "expression"))
        _, weights = self.retrieval(*nodes, graph.retrieved)
        return weights @ self.retrieval.weight

    def _needed_references(self, graph: HeteroGraph, blocks: Blocks) -> list[Blocks]:
        """Reference nodes whose states are needed at the entry and after every layer: of a whole graph all of them.

        Otherwise those that reach a target spot in the layers after it: the retrieved ones, and their RS neighbours, a
        step further in each layer before.
        """
        if blocks is WHOLE:
            return [WHOLE] * (len(self.layers) + 1)
        needed = [torch.cat([graph.edges[name].joined_sources for name in CROSS_EDGES]).unique()]
        for _ in self.layers:
            peers = [graph.edges[name].into(needed[0])[0].source for name in REFERENCE_EDGES]
            needed.insert(0, torch.cat([needed[0], *peers]).unique())
        return [nodes.split(BLOCK_REFERENCES) for nodes in needed]


class Assembled:
    """Rows that are computed a block at a time, each at its position; the only block of a whole is taken as it is.

    Parameters
    ----------
    n
        Rows of all blocks together; one that no block holds stays zero.
    """

    all: Tensor

    def __init__(self, n: int) -> None:
        self._n = n

    def put(self, rows: Tensor | None, part: Tensor) -> None:
        """Take a block; ``rows`` are the positions of its rows, ``None`` for all."""
        if rows is None:
            self.all = part
            return
        if not hasattr(self, "all"):
            self.all = part.new_zeros(self._n, *part.shape[1:])
        self.all[rows] = part


def in_blocks(compute: Callable[[Tensor | None], Tensor], blocks: Iterable[Tensor | None], n: int) -> Tensor:
    """What a function makes of every block, as the rows of one tensor."""
    assembled = Assembled(n)
    for rows in blocks:
        assembled.put(rows, compute(rows))
    return assembled.all


class _Merged:
    """Attention of nodes whose sources come in several blocks.

    The softmax over all sources is that over the blocks of what each of them adds up to, times that within a block. A node
    may have edges to every block, so all of its edges are never held at once.
    """

    def __init__(self, nodes: Tensor) -> None:
        self.out = torch.zeros_like(nodes)
        self._first: tuple[Tensor, Attended] | None = None
        self._log_sums: Tensor | None = None

    def add(self, rows: Tensor, attended: Attended) -> None:
        """Take what some nodes gather from one block of sources."""
        if self._first is None:
            self.out, self._first = self.out.index_copy(0, rows, attended.out), (rows, attended)
            return
        if self._log_sums is None:
            first_rows, first = self._first
            self._log_sums = first.total.new_full((len(self.out), first.total.size(1)), -torch.inf)
            self._log_sums[first_rows] = _log_sum(first)
        log_sum, before = _log_sum(attended), self._log_sums[rows]
        self._log_sums[rows] = after = torch.logaddexp(before, log_sum)
        self.out[rows] = _times(self.out[rows], (before - after).exp()) + _times(attended.out, (log_sum - after).exp())


def _log_sum(attended: Attended) -> Tensor:
    """Logarithm of the sum of the exponentials of all scores of a receiver, receivers x heads."""
    return attended.highest + attended.total.log()


def _times(x: Tensor, by_head: Tensor) -> Tensor:
    """Rows x width, times a number for each head."""
    return (x.view(*by_head.shape, -1) * by_head.unsqueeze(-1)).flatten(start_dim=1)


def _into(edges: Edges, rows: Tensor | None) -> tuple[Edges, Tensor | None]:
    return (edges, None) if rows is None else edges.into(rows)


def _rows(x: Tensor, rows: Tensor | None) -> Tensor:
    return x if rows is None else x.index_select(0, rows)


def _activated(of_slice: Tensor, cross: Tensor) -> Tensor:
    """Mean of what comes from the own slice and from across, and LeakyReLU."""
    return F.leaky_relu((of_slice + cross) / 2, LEAKY_SLOPE)
