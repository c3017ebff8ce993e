"""The network of SpaHGC in plain torch: graph, layers, masks, losses, training. Knows no AnnData."""

from spahgc.nn._attention import CrossNodeAttention, CrossNodeAttentionPooling, CrossNodeDualAttention
from spahgc.nn._attention_weights import cross_attention, predict_and_attend
from spahgc.nn._by_blocks import predict_by_blocks
from spahgc.nn._graph import Edges, HeteroGraph
from spahgc.nn._losses import alignment_loss, expression_loss, gene_correlations
from spahgc.nn._masks import complementary_masks, expected_view, masked_views
from spahgc.nn._network import MeanSAGE, SpaHGCLayer, SpaHGCNetwork
from spahgc.nn._train import LossRecord, Task, TrainingSettings, predict_expression, train

__all__ = [
    "CrossNodeAttention",
    "CrossNodeAttentionPooling",
    "CrossNodeDualAttention",
    "Edges",
    "HeteroGraph",
    "LossRecord",
    "MeanSAGE",
    "SpaHGCLayer",
    "SpaHGCNetwork",
    "Task",
    "TrainingSettings",
    "alignment_loss",
    "complementary_masks",
    "cross_attention",
    "expected_view",
    "expression_loss",
    "gene_correlations",
    "masked_views",
    "predict_and_attend",
    "predict_by_blocks",
    "predict_expression",
    "train",
]
