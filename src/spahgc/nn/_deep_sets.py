"""A network on sets: a spot, the parts that it is made of, and the spots around it (after DeepSpot)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from spahgc.nn._dropout import Dropout

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class SpotSets:
    """Some spots of a slide or more, each with its sub-spots and neighbours; features are gathered where they are used.

    Parameters
    ----------
    z
        Features of all spots, spots x dim.
    near
        Neighbours of each spot by number, spots x neighbours; a spot with fewer has some of them more than once.
    subspots
        Features of the parts of each spot, spots x sub-spots x dim; ``None`` where they are not known.
    rows
        Which of the spots these are, by number.
    """

    z: Tensor
    near: Tensor
    subspots: Tensor | None
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Tensor | np.ndarray) -> SpotSets:
        """Some of these spots; nothing is copied but their numbers."""
        return replace(self, rows=self.rows[chosen])

    def split(self, block: int) -> Iterator[SpotSets]:
        """A block of these spots after another."""
        return (replace(self, rows=rows) for rows in self.rows.split(block))

    def features(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Of the spots (spots x dim), of their parts, and of their neighbours (spots x neighbours x dim)."""
        parts = None if self.subspots is None else self.subspots[self.rows]
        return self.z[self.rows], parts, self.z[self.near[self.rows]]


class DeepSets(nn.Module):
    """Genes of a spot from itself, the sum over its transformed parts, and the maximum over its transformed neighbours.

    Neither the order of the parts nor that of the neighbours matters. The three are joined, and a last perceptron makes
    genes of them.

    Parameters
    ----------
    inputs, outputs
        Numbers of a feature, and genes.
    width
        Numbers that each of the three becomes.
    dropout
        Share of the inputs of every layer after the first that is hidden in training.
    with_subspots
        Whether the parts of a spot are known.
    """

    def __init__(
        self, inputs: int, outputs: int, *, width: int = 256, dropout: float = 0.3, with_subspots: bool = False
    ) -> None:
        super().__init__()
        self.spot = _transformation(inputs, width, dropout)
        self.subspot = _transformation(inputs, width, dropout) if with_subspots else None
        self.neighbour = _transformation(inputs, width, dropout)
        n_sets = 3 if with_subspots else 2
        self.genes = nn.Sequential(
            nn.Linear(n_sets * width, width), nn.GELU(), Dropout(dropout), nn.Linear(width, outputs)
        )

    def forward(self, spots: SpotSets) -> Tensor:
        """Spots x genes."""
        own, parts, around = spots.features()
        joined = [self.spot(own)]
        if self.subspot is not None:
            joined.append(self.subspot(parts).sum(dim=1))
        joined.append(self.neighbour(around).amax(dim=1))
        genes: Tensor = self.genes(torch.cat(joined, dim=1))
        return genes

    def loss(self, spots: SpotSets, y: Tensor) -> Tensor:
        """Mean squared error of a batch of spots."""
        return F.mse_loss(self(spots), y)


def _transformation(inputs: int, width: int, dropout: float) -> nn.Sequential:
    """Of one element of a set."""
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.GELU(),
        Dropout(dropout),
        nn.Linear(width, width),
        nn.GELU(),
        Dropout(dropout),
    )
