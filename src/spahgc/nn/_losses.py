"""The terms of the training loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

VARIANCE_FLOOR = 1e-8
"""Added under the square root of a gene's variances: a constant gene has correlation 0, not NaN."""


def gene_correlations(predicted: Tensor, measured: Tensor) -> Tensor:
    """Pearson correlation of every gene over the spots of a slide.

    Parameters
    ----------
    predicted, measured
        Spots x genes.
    """
    p = predicted - predicted.mean(dim=0)
    m = measured - measured.mean(dim=0)
    covariance = (p * m).mean(dim=0)
    spread = (p.square().mean(dim=0) * m.square().mean(dim=0) + VARIANCE_FLOOR).sqrt()
    return covariance / spread


def expression_loss(predicted: Tensor, measured: Tensor) -> Tensor:
    """``MSE + (1 - mean gene PCC)`` over spots x genes."""
    return F.mse_loss(predicted, measured) + (1 - gene_correlations(predicted, measured).mean())


def alignment_loss(view_1: Tensor, view_2: Tensor) -> Tensor:
    """``mean(2 - 2 cos(view 1, stop-gradient(view 2)))`` over the nodes of one type.

    Parameters
    ----------
    view_1, view_2
        Nodes x width: the states of the same nodes in the two views. No gradient flows into ``view_2``.
    """
    return (2 - 2 * F.cosine_similarity(view_1, view_2.detach(), dim=-1)).mean()
