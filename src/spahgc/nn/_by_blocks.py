"""Prediction of a slide of any size: the layers one after another, each in blocks of the nodes that receive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from spahgc.nn._masks import expected
from spahgc.nn._network import LEAKY_SLOPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from spahgc.nn._graph import HeteroGraph
    from spahgc.nn._network import SpaHGCNetwork
    from spahgc.nn._train import TrainingSettings

BLOCK_REFERENCES = 4096
"""Reference nodes that are computed at a time."""


@torch.inference_mode()
def predict_by_blocks(
    network: SpaHGCNetwork, graph: HeteroGraph, settings: TrainingSettings, blocks: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """What the network says of a slide too large to hold what runs along all its edges.

    The states of all nodes after a layer are kept, nodes x width; the next layer is computed for a block of receiving
    nodes at a time, from the states at the sources of their edges. So a block has a halo that is one edge wide at every
    layer and as wide as the network's reach over all of them, and the result is that of the whole slide to float error.
    A halo in the plane alone could not do that, however wide: reference spots attend to target spots of the whole
    slide, and hand on to one block what they heard from another.

    Of the reference nodes only those are computed in a layer that reach a target spot in the layers after it: the
    retrieved ones, and their RS neighbours, a step further in each layer before.

    Parameters
    ----------
    network
        On the device of the graph.
    graph
        Graph of a target, of which nothing is hidden.
    settings
        Numbers of the training.
    blocks
        Numbers of the target nodes, each in one block. Blocks of neighbouring spots are the fastest.

    Returns
    -------
    Expression of the target spots, spots x genes; and the attention on the CS edges, in the order of ``graph.cs``: mean
    over layers (CNDA towards the target), pooling (CNAP) and heads.
    """
    network.eval()
    return _Pass(network, graph, settings, blocks).run()


class _Pass:
    """One pass through the network, layer by layer."""

    def __init__(
        self, network: SpaHGCNetwork, graph: HeteroGraph, settings: TrainingSettings, blocks: Sequence[Tensor]
    ) -> None:
        self.network, self.graph, self.settings, self.blocks = network, graph, settings, blocks
        self.attention = graph.target.new_zeros(len(graph.cs.source))

    def run(self) -> tuple[Tensor, Tensor]:
        layers: Any = self.network.layers
        first, *later = self._needed(len(layers))
        target, reference = self._enter(first)
        for layer, needed in zip(layers, later, strict=True):
            target, reference = (
                self._target_states(layer, target, reference),
                self._reference_states(layer, target, reference, needed),
            )
        return self._head(target, reference), self.attention / (len(layers) + 1)

    def _needed(self, n_layers: int) -> list[Tensor]:
        """Reference nodes whose states are needed at the entry and after every layer."""
        rs, needed = self.graph.rs, [self.graph.cs.joined_sources]
        for _ in range(n_layers):
            edges, _ = rs.into(needed[0])
            needed.insert(0, torch.cat([needed[0], edges.source]).unique())
        return needed

    def _enter(self, needed: Tensor) -> tuple[Tensor, Tensor]:
        graph, network = self.graph, self.network
        width = network.target_entry.out_features
        target = graph.target.new_empty(len(graph.target), width)
        for block in self.blocks:
            target[block] = network.target_entry(expected(graph.target[block], self.settings.target_hidden))
        reference = graph.target.new_zeros(len(graph.reference), width)
        for rows in needed.split(BLOCK_REFERENCES):
            features = torch.cat([graph.reference[rows], graph.expression[rows]], dim=-1)
            reference[rows] = network.reference_entry(expected(features, self.settings.reference_hidden))
        return target, reference

    def _target_states(self, layer: Any, target: Tensor, reference: Tensor) -> Tensor:
        graph, out = self.graph, torch.empty_like(target)
        for block in self.blocks:
            own, (ts, _) = target[block], graph.ts.into(block)
            heard = self._hear(layer.cs.to_target, own, reference, block, with_expression=True)
            out[block] = F.leaky_relu((layer.ts(target, ts, own) + heard) / 2, LEAKY_SLOPE)
        return out

    def _hear(
        self, attention: Any, own: Tensor, reference: Tensor, block: Tensor, *, with_expression: bool = False
    ) -> Tensor:
        """What a block of target nodes gathers from its reference nodes; notes to which it attends."""
        edges, numbers = self.graph.cs.into(block)
        sources = reference[edges.joined_sources]
        if with_expression:
            expression = self.graph.expression[edges.joined_sources]
            sources = torch.cat([sources, expected(expression, self.settings.reference_hidden)], dim=-1)
        heard, weights = attention.attend(own, sources, edges.between_joined)
        self.attention[numbers] += weights.mean(dim=1)
        return heard

    def _reference_states(self, layer: Any, target: Tensor, reference: Tensor, needed: Tensor) -> Tensor:
        graph, out = self.graph, torch.zeros_like(reference)
        for rows in needed.split(BLOCK_REFERENCES):
            rs, _ = graph.rs.into(rows)
            out[rows] = layer.rs(reference, rs, reference[rows])
        joined = graph.cs.joined_sources
        out[joined] += layer.cs.to_reference.attend_in_parts(
            reference[joined], target, graph.cs.between_joined.reversed, self.blocks
        )
        return F.leaky_relu(out.div_(2), LEAKY_SLOPE, inplace=True)

    def _head(self, target: Tensor, reference: Tensor) -> Tensor:
        out = target.new_empty(len(target), self.network.head.out_features)
        for block in self.blocks:
            own = target[block]
            out[block] = self.network.head(own + self._hear(self.network.pooling.attention, own, reference, block))
        return out
