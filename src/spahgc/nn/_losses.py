"""The terms of the training loss, and the registry of those that a training adds up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from spahgc.nn._network import States

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


@dataclass(frozen=True)
class StepOutputs:
    """What a training step computed, which a term of the loss is a function of; in the precision of the task.

    Parameters
    ----------
    predicted, measured
        Expression of the spots that the loss is of, spots x genes.
    view_1
        States of the nodes in the view from which it was predicted; of the target nodes those of these spots.
    encode_view_2
        Computes the same for the complementary view, without a gradient.
    """

    predicted: Tensor
    measured: Tensor
    view_1: States
    encode_view_2: Callable[[], States]

    @cached_property
    def view_2(self) -> States:
        """States in the complementary view; computed for the first term that needs them."""
        return self.encode_view_2()


class LossTerm(NamedTuple):
    """A term of the loss.

    Parameters
    ----------
    loss
        From what a step computed to a number.
    weight
        Name of the parameter that weighs it, where 0 leaves it out; ``None`` for a weight of 1.
    """

    loss: Callable[[StepOutputs], Tensor]
    weight: str | None = None


LOSS_TERMS = {
    "expression": LossTerm(lambda step: expression_loss(step.predicted, step.measured)),
    "align_target": LossTerm(lambda step: alignment_loss(step.view_1.target, step.view_2.target), "alignment"),
    "align_reference": LossTerm(lambda step: alignment_loss(step.view_1.reference, step.view_2.reference), "alignment"),
}
"""What a training minimises the sum of, by the names that the history of a model has for them."""
