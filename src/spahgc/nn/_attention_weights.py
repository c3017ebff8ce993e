"""To which reference spots the target spots attend when the network predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from spahgc.nn._train import predict_expression

if TYPE_CHECKING:
    from torch import Tensor

    from spahgc.nn._attention import CrossNodeAttention
    from spahgc.nn._graph import Edges, HeteroGraph
    from spahgc.nn._network import SpaHGCNetwork
    from spahgc.nn._train import TrainingSettings


def cross_attention(network: SpaHGCNetwork, graph: HeteroGraph, settings: TrainingSettings) -> Tensor:
    """Attention weights of the CS edges during a prediction; see :func:`predict_and_attend`."""
    return predict_and_attend(network, graph, settings)[1]


@torch.inference_mode()
def predict_and_attend(network: SpaHGCNetwork, graph: HeteroGraph, settings: TrainingSettings) -> tuple[Tensor, Tensor]:
    """Expression of the target spots, and the attention weights of the CS edges from which it came.

    Parameters
    ----------
    network
        On the device of the graph.
    graph
        Graph of a target, of which nothing is hidden.
    settings
        Numbers of the training.

    Returns
    -------
    Spots x genes; and (layers + 1) x CS edges, in the order of ``graph.cs``, means over the heads: CNDA towards the
    target of every layer, then CNAP. In each row the weights of a target spot sum to 1.
    """
    layers: Any = network.layers
    parts: list[CrossNodeAttention] = [*(layer.cs.to_target for layer in layers), network.pooling.attention]
    weights: list[Tensor] = []

    def listen(attention: CrossNodeAttention, inputs: tuple[Tensor, Tensor, Edges], _: Tensor) -> None:
        # The output has lost the weights, and computing them again is cheaper than keeping them in every training step.
        weights.append(attention.attend(*inputs)[1].mean(dim=1))

    hooks = [part.register_forward_hook(listen) for part in parts]
    try:
        predicted = predict_expression(network, graph, settings)
    finally:
        for hook in hooks:
            hook.remove()
    return predicted, torch.stack(weights)
