"""The network of SpaHGC in plain torch: graph, layers, masks, losses, training. Knows no AnnData.

``_edges.py`` is what runs along edges, ``_network.py`` the layers on a graph, ``_retrieval.py`` the prediction from the expression
at their sources, ``_losses.py`` the one list of loss terms, ``_train.py`` steps and epochs; ``_baselines.py`` and
``_deep_sets.py`` have the networks without a graph. May import torch, numpy and, for types, ``_parameters``.
"""

from spahgc.nn._edges import Edges
from spahgc.nn._losses import LOSS_TERMS, LossTerm, StepOutputs, alignment_loss, expression_loss, gene_correlations
from spahgc.nn._network import (
    RETRIEVED_EDGES,
    WHOLE,
    Blocks,
    CrossNodeAttention,
    CrossNodeAttentionPooling,
    CrossNodeDualAttention,
    HeteroGraph,
    MeanSAGE,
    SpaHGCLayer,
    SpaHGCNetwork,
)
from spahgc.nn._retrieval import ExpressionRetrieval
from spahgc.nn._train import (
    LossRecord,
    Task,
    complementary_masks,
    expected_view,
    masked_views,
    predict_and_attend,
    predict_expression,
    retrieval_weights,
    train,
)

__all__ = [
    "LOSS_TERMS",
    "RETRIEVED_EDGES",
    "WHOLE",
    "Blocks",
    "CrossNodeAttention",
    "CrossNodeAttentionPooling",
    "CrossNodeDualAttention",
    "Edges",
    "ExpressionRetrieval",
    "HeteroGraph",
    "LossRecord",
    "LossTerm",
    "MeanSAGE",
    "SpaHGCLayer",
    "SpaHGCNetwork",
    "StepOutputs",
    "Task",
    "alignment_loss",
    "complementary_masks",
    "expected_view",
    "expression_loss",
    "gene_correlations",
    "masked_views",
    "predict_and_attend",
    "predict_expression",
    "retrieval_weights",
    "train",
]
