"""A small network without a graph, as an expert: from what spots look like to components of the transcriptome."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from spahgc._linear.low_rank import GeneComponents
from spahgc._spots.rows import Spots
from spahgc._training.early_stopping import train_early_stopped
from spahgc._training.graphs import as_tensor
from spahgc.nn._baselines import BatchSettings, Perceptron, in_blocks

WIDTH = 256
"""Numbers of each of the two hidden layers."""
DROPOUT = 0.5
SETTINGS = BatchSettings(epochs=150, batch_spots=64, learning_rate=3e-4, weight_decay=1e-2)
"""Of its training; the number of epochs is the one that serves a reference held out best."""
MAX_STEPS, MIN_EPOCHS = 5_000, 4
"""Steps beyond which no epoch is begun, so that the time does not grow with the references: 150 epochs up to 2,133 spots,
fewer where there are more, and :data:`MIN_EPOCHS` at the least."""


@dataclass(frozen=True)
class PerceptronExpert:
    """A trained perceptron; scores come out in the units in which they were learned.

    Parameters
    ----------
    network
        The perceptron, on the CPU.
    size
        Standard deviation of the largest component, by which scores were divided.
    """

    network: Perceptron
    size: float

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Scores of the components at spots of these features, spots x components."""
        return _outputs(self.network, x) * self.size


def fit_perceptron(x: np.ndarray, components: GeneComponents, spots: Spots, seed: int) -> PerceptronExpert:
    """Train on scores, for as many epochs as serve the panel of a reference held out best.

    Parameters
    ----------
    x
        Features of reference spots, spots x features.
    components
        With their scores, and what is read off them.
    spots
        The reference spots.
    seed
        Of initial weights, order of the spots and dropout.
    """
    y = (components.scores / components.size).astype(np.float32)
    network = train_early_stopped(
        lambda: new_perceptron(x.shape[1], y.shape[1]),
        lambda network, part, _: _outputs(network, part) @ components.loadings,
        spots,
        x,
        y,
        _settings(len(x)),
        seed,
    )
    return PerceptronExpert(network, components.size)


def new_perceptron(inputs: int, outputs: int) -> Perceptron:
    """A perceptron of the size that the expert has."""
    return Perceptron(inputs, outputs, width=WIDTH, dropout=DROPOUT)


def _settings(n_spots: int) -> BatchSettings:
    """Those of a training on so many spots."""
    epochs = MAX_STEPS * SETTINGS.batch_spots // max(n_spots, 1)
    return replace(SETTINGS, epochs=min(max(epochs, MIN_EPOCHS), SETTINGS.epochs))


def _outputs(network: Perceptron, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return in_blocks(network, as_tensor(x, "cpu")).numpy()
