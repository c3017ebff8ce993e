"""Two networks without a graph, and the loop that trains them: a perceptron, and a joint space of image and genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from spahgc.nn._dropout import Dropout

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from spahgc.nn._deep_sets import DeepSets, SpotSets


NETWORK_BLOCK_SPOTS = 4096
"""Spots that pass a trained network at a time."""


@dataclass(frozen=True)
class BatchSettings:
    """Numbers of a training in batches of spots."""

    epochs: int
    """Epochs, or the most of them where a score chooses."""
    batch_spots: int
    learning_rate: float
    weight_decay: float
    patience: int = 10
    """Epochs without a better score after which the search for the best one ends."""


class Perceptron(nn.Sequential):
    """Two hidden layers with dropout.

    Parameters
    ----------
    inputs, outputs
        Numbers a spot.
    width
        Numbers of a hidden layer.
    dropout
        Share of the inputs of every layer after the first that is hidden in training.
    """

    def __init__(self, inputs: int, outputs: int, *, width: int = 256, dropout: float = 0.5) -> None:
        super().__init__(
            nn.Linear(inputs, width),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(width, outputs),
        )

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean squared error of a batch of spots."""
        return F.mse_loss(self(x), y)


class ProjectionHead(nn.Module):
    """One modality into the joint space: a linear map, then a residual block and layer normalisation."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.projection = nn.Linear(inputs, width)
        self.block = nn.Sequential(nn.GELU(), nn.Linear(width, width), Dropout(dropout))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Spots x inputs to spots x width."""
        projected = self.projection(x)
        normalised: Tensor = self.norm(projected + self.block(projected))
        return normalised


class JointSpace(nn.Module):
    """A space in which image and expression of one spot lie close to each other (after BLEEP).

    Parameters
    ----------
    image, genes
        Numbers of an image feature, and genes.
    width
        Dimensions of the space.
    dropout
        Dropout of both heads.
    """

    def __init__(self, image: int, genes: int, *, width: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.image = ProjectionHead(image, width, dropout)
        self.expression = ProjectionHead(genes, width, dropout)

    def loss(self, z: Tensor, y: Tensor) -> Tensor:
        """Contrastive loss of a batch of spots, from their image features and their expression."""
        return contrastive_loss(self.image(z), self.expression(y))


def contrastive_loss(image: Tensor, expression: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross entropy between who is similar across the modalities and who is similar within them, in both directions.

    Spots of one tissue look and express alike, so that a target of one for the spot itself and zero for all others
    would push apart what belongs together. The target is the softmax of the similarities within images and within
    expression, averaged.

    Parameters
    ----------
    image, expression
        The same spots in the joint space, spots x width.
    temperature
        Divides the similarities across modalities, multiplies those within.
    """
    across = expression @ image.T / temperature
    within = (image @ image.T + expression @ expression.T) / 2
    wanted = F.softmax(within * temperature, dim=1)
    return (F.cross_entropy(across, wanted) + F.cross_entropy(across.T, wanted.T)) / 2


@torch.no_grad()
def in_blocks(part: nn.Module, x: Tensor | SpotSets, block: int = NETWORK_BLOCK_SPOTS) -> Tensor:
    """What a trained network makes of many spots, a block of them at a time."""
    return torch.cat([part(rows) for rows in x.split(block)])


def train_in_batches(
    network: Perceptron | JointSpace | DeepSets,
    x: Tensor | SpotSets,
    y: Tensor,
    settings: BatchSettings,
    *,
    score: Callable[[], float] | None = None,
    generator: torch.Generator | None = None,
) -> list[float]:
    """Train a network in place with AdamW, on all spots in batches drawn anew every epoch.

    Parameters
    ----------
    network
        Its loss is minimised; it is left in evaluation mode.
    x, y
        What its loss is a function of, a row a spot.
    settings
        Numbers of the training.
    score
        How good the network is after an epoch, higher being better; the training then ends when it has not improved
        for ``settings.patience`` epochs.
    generator
        Source of the order of the spots and of dropout; ``None`` is the generator of the process.

    Returns
    -------
    The scores of all epochs; none without ``score``.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    for part in network.modules():
        if isinstance(part, Dropout):
            part.generator = generator
    scores: list[float] = []
    for _ in range(settings.epochs):
        network.train()
        for batch in torch.randperm(len(x), generator=generator).split(settings.batch_spots):
            optimiser.zero_grad()
            network.loss(x[batch], y[batch]).backward()  # type: ignore[arg-type]  # each takes what it was made for
            optimiser.step()
        network.eval()
        if score is not None:
            scores.append(score())
            if len(scores) - 1 - scores.index(max(scores)) >= settings.patience:
                break
    return scores
