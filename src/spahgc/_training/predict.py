"""The prediction of a target, and what the networks contribute to it: output, and attention to reference spots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from spahgc._spots.plane import spatial_blocks
from spahgc.nn import WHOLE, Blocks, predict_and_attend

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from spahgc._parameters import Parameters
    from spahgc.nn import HeteroGraph, SpaHGCNetwork

MAX_WHOLE_SPOTS = 20_000
"""Spots beyond which a slide is predicted in blocks; what runs along the edges of so many takes about 1 GB."""

PREDICTION_BLOCK_SPOTS = 8_192
"""Spots of a block, at most."""


@dataclass(frozen=True)
class Prediction:
    """All that a model predicts of a target.

    Parameters
    ----------
    expression
        Spots x genes of the panel, float32.
    cross
        The CS graph that it stands on, target spots x bank spots, CSR, cosine similarity.
    attention
        The same edges, values = attention of the networks, rows sum to 1; ``None`` without networks.
    support
        How well the references cover what each spot looks like, 0 to 1; ``None`` where nothing says so.
    search
        How the CS graph was found: exactly, or with which recall. Empty where it was given.
    """

    expression: np.ndarray
    cross: csr_matrix
    attention: csr_matrix | None
    support: np.ndarray | None
    search: Mapping[str, str | float]


def predict_networks(
    networks: Sequence[SpaHGCNetwork],
    graph: HeteroGraph,
    xy: np.ndarray,
    parameters: Parameters,
    device: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the networks of their outputs and of their attention.

    Parameters
    ----------
    networks
        On the CPU, where they are again afterwards.
    graph
        Graph of the target.
    xy
        Centres of its spots.
    parameters
        All numbers of the fit.
    device
        Torch device.

    Returns
    -------
    Output, target spots x outputs, float32; and the attention on the CS edges, mean over layers, pooling and heads, in
    the order of ``graph.cs``, float32.
    """
    blocks: Blocks = WHOLE
    if len(xy) > MAX_WHOLE_SPOTS:
        blocks = [torch.from_numpy(rows).to(device) for rows in spatial_blocks(xy, PREDICTION_BLOCK_SPOTS)]
    outputs, attention = [], []
    for network in networks:
        expression, by_layer = predict_and_attend(network.to(device), graph, parameters, blocks)
        network.cpu()
        outputs.append(expression.cpu().numpy())
        attention.append(by_layer.mean(0).cpu().numpy())
    mean = np.asarray(np.mean(attention, axis=0, dtype=np.float64), dtype=np.float32)
    return np.asarray(np.mean(outputs, axis=0)), mean
