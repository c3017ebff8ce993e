"""Prediction by retrieval: the expression of the reference spots that look alike, weighed by attention."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from spahgc.nn._edges import Edges

FIRST_SCALE = 12.0
"""Factor of the cosine in the learned space before training: two spots apart by a cosine of .1 differ threefold in weight."""

FIRST_BIAS = 2.0
"""Factor of the standardised similarity before training: one standard deviation is sevenfold in weight."""


class ExpressionRetrieval(nn.Module):
    r"""Attention of target spots over reference spots, whose values are the expression itself.

    Queries and keys are one linear map of the image features: a space in which spots are near each other whose
    expression is. For an edge :math:`s \to q` of standardised similarity :math:`c_{sq}`, head :math:`h`

    .. math:: \alpha^h_{sq} = \operatorname{softmax}_{s}\left(a_h \cos(W_h x_q, W_h x_s) + b_h c_{sq}\right), \qquad
              y_q = \beta + \sum_h v_h \odot \sum_s \alpha^h_{sq} y_s

    with learned :math:`a_h, b_h > 0` and a weight :math:`v_h` of each gene. Where attention between states becomes a mean
    over their sources, since states of spots that were chosen for being alike hardly differ, this one starts from what
    tells them apart, and its gradient is that of a regression on the expression.

    Parameters
    ----------
    feature_dim
        Width of the image features.
    n_genes
        Width of the expression.
    width, heads
        Width of the space, and the heads that it is divided among.
    """

    def __init__(self, feature_dim: int, n_genes: int, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads: got width={width}, heads={heads}.")
        self.heads = heads
        self.space = nn.Linear(feature_dim, width)
        self.log_scale = nn.Parameter(torch.full((heads,), math.log(FIRST_SCALE)))
        self.log_bias = nn.Parameter(torch.full((heads,), math.log(FIRST_BIAS)))
        self.weight = nn.Parameter(torch.full((heads, n_genes), 1 / heads))
        self.offset = nn.Parameter(torch.zeros(n_genes))

    def forward(self, target: Tensor, reference: Tensor, expression: Tensor, cs: Edges) -> tuple[Tensor, Tensor]:
        """Expression of the target spots, spots x genes, and the weights of the edges, edges x heads.

        Parameters
        ----------
        target, reference
            Image features, spots x dim.
        expression
            Of the reference spots, spots x genes.
        cs
            From the reference to the target spots, with their similarity.
        """
        width = self.space.out_features // self.heads
        # attend() divides by the root of the width.
        query = self._directions(target) * (self.log_scale.exp() * math.sqrt(width))[:, None]
        bias = cs.standard_similarity[:, None] * self.log_bias.exp()
        attended = cs.attend(
            query.flatten(start_dim=1),
            self._directions(reference).flatten(start_dim=1),
            expression.repeat(1, self.heads),
            self.heads,
            bias,
        )
        of_heads = attended.out.view(len(target), self.heads, -1)
        return (of_heads * self.weight).sum(dim=1) + self.offset, attended.weights

    def _directions(self, features: Tensor) -> Tensor:
        """Where spots lie in the space of each head, at length 1: spots x heads x width of a head."""
        return F.normalize(self.space(features).view(len(features), self.heads, -1), dim=-1)
