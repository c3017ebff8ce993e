"""A small network on what a spot and its surroundings look like on their slide, without any graph."""

from __future__ import annotations

import numpy as np

from spahgc._spots.rows import SlideScale, Spots, rescale, standardize
from spahgc._training.early_stopping import train_early_stopped
from spahgc._training.graphs import as_tensor
from spahgc.nn._baselines import BatchSettings, Perceptron, in_blocks
from spahgc.tl._baselines.ridge import tissue_features

WIDTH = 256
"""Numbers of each of the two hidden layers."""
DROPOUT = 0.5
MAX_EPOCHS = 150
BATCH_SPOTS = 64
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 1e-2


def predict_mlp(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """A perceptron on the features of ``ridge_neighbours``, to genes standardised by slide; target spots x panel."""
    known, wanted = rescale(*tissue_features(references, target))
    y = standardize(references.y, references.slide)
    network = train_early_stopped(
        lambda: Perceptron(known.shape[1], y.shape[1], width=WIDTH, dropout=DROPOUT),
        lambda network, x, _: _outputs(network, x),
        references,
        known,
        y,
        BatchSettings(MAX_EPOCHS, BATCH_SPOTS, LEARNING_RATE, WEIGHT_DECAY),
        seed,
    )
    return SlideScale.fit(references.y, references.slide).inverse_transform(_outputs(network, wanted))


def _outputs(network: Perceptron, x: np.ndarray) -> np.ndarray:
    return in_blocks(network, as_tensor(x, "cpu")).numpy()
