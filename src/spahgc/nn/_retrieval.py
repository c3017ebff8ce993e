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

FIRST_HEIGHT = 7.0
"""Score of the same place before training, where spots that look most alike among all have four to six."""

FIRST_RANGE = 2.0
"""Standard deviation of nearness before training, in distances of neighbouring spots."""

HASTE = 10.0
"""How many times as fast as other weights the logarithms of height and range learn: a training has some hundred steps, in each of
which a weight moves by the learning rate at most."""


class ExpressionRetrieval(nn.Module):
    r"""Attention of target spots over reference spots, whose values are the expression itself.

    Queries and keys are one linear map of the image features: a space in which spots are near each other whose
    expression is. For an edge :math:`s \to q` of standardised similarity :math:`c_{sq}`, head :math:`h`

    .. math:: \alpha^h_{sq} = \operatorname{softmax}_{s}\left(a_h \cos(W_h x_q, W_h x_s) + b_h c_{sq}\right), \qquad
              y_q = \beta + \sum_h v_h \odot \sum_s \alpha^h_{sq} y_s

    with learned :math:`a_h, b_h > 0` and a weight :math:`v_h` of each gene. Where attention between states becomes a mean
    over their sources, since states of spots that were chosen for being alike hardly differ, this one starts from what
    tells them apart, and its gradient is that of a regression on the expression.

    Where some edges know how far their ends lie apart, sections having been laid over each other, they have
    :math:`p_h \exp(-d_{sq}^2 / 2 r_h^2)` in the place of :math:`b_h c_{sq}`, with learned height :math:`p_h` and range :math:`r_h > 0`:
    what lies at the same place need not be chosen for its look. Only a network that was made for place has these.

    Parameters
    ----------
    feature_dim
        Width of the image features.
    n_genes
        Width of the expression.
    width, heads
        Width of the space, and the heads that it is divided among.
    pitch_um
        How far neighbouring spots lie apart, microns; ``None`` for a network without place.
    """

    def __init__(
        self, feature_dim: int, n_genes: int, width: int, heads: int, *, pitch_um: float | None = None
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads: got width={width}, heads={heads}.")
        self.heads = heads
        self.space = nn.Linear(feature_dim, width)
        self.log_scale = nn.Parameter(torch.full((heads,), math.log(FIRST_SCALE)))
        self.log_bias = nn.Parameter(torch.full((heads,), math.log(FIRST_BIAS)))
        self.weight = nn.Parameter(torch.full((heads, n_genes), 1 / heads))
        self.offset = nn.Parameter(torch.zeros(n_genes))
        self.place = None if pitch_um is None else Nearness(heads, pitch_um)

    def forward(self, target: Tensor, reference: Tensor, expression: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """Expression of the target spots, spots x genes, and the weights of the edges, edges x heads.

        Parameters
        ----------
        target, reference
            Image features, spots x dim.
        expression
            Of the reference spots, spots x genes.
        edges
            From the reference to the target spots, with their similarity; with their distance where it is known.
        """
        width = self.space.out_features // self.heads
        # attend() divides by the root of the width.
        query = self._directions(target) * (self.log_scale.exp() * math.sqrt(width))[:, None]
        bias = edges.standard_similarity[:, None] * self.log_bias.exp()
        if edges.distance is not None:
            if self.place is None:
                raise ValueError("the edges know distances, and the network was made without place. Pass pitch_um=.")
            bias = torch.where(edges.distance.isfinite()[:, None], self.place(edges.distance), bias)
        attended = edges.attend(
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


class Nearness(nn.Module):
    """Score of an edge by how near its ends lie to each other.

    Parameters
    ----------
    heads
        Heads of the attention, each with a height and a range of its own.
    pitch_um
        Distance of neighbouring spots, microns.
    """

    def __init__(self, heads: int, pitch_um: float) -> None:
        super().__init__()
        self.log_height = nn.Parameter(torch.full((heads,), math.log(FIRST_HEIGHT) / HASTE))
        self.log_range = nn.Parameter(torch.full((heads,), math.log(FIRST_RANGE * pitch_um) / HASTE))

    @property
    def height(self) -> Tensor:
        """Score of the same place, a number a head."""
        return (HASTE * self.log_height).exp()

    @property
    def range_um(self) -> Tensor:
        """Standard deviation of nearness, microns, a number a head."""
        return (HASTE * self.log_range).exp()

    def forward(self, distance: Tensor) -> Tensor:
        """Edges x heads, of distances in microns; 0 where a distance is infinite."""
        known = distance.isfinite()
        squares = distance.masked_fill(~known, 0.0).square()[:, None]  # infinite ones would make the gradient NaN
        nearness = (-squares / (2 * self.range_um.square())).exp()
        return self.height * nearness * known[:, None]
