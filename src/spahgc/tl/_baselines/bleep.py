"""Contrastive retrieval after BLEEP (Xie et al., NeurIPS 2023): reference spots near in a space of image and genes."""

from __future__ import annotations

import numpy as np

from spahgc._spots.rows import Spots, rescale, standardize
from spahgc._training.early_stopping import train_early_stopped
from spahgc._training.graphs import as_tensor
from spahgc.nn._baselines import BatchSettings, JointSpace, in_blocks
from spahgc.tl._baselines.nearest import mean_of_nearest

WIDTH = 256
"""Dimensions of the joint space."""
DROPOUT = 0.1
MAX_EPOCHS = 150
BATCH_SPOTS = 256
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-3


def predict_bleep(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """Mean expression of the 50 reference spots whose expression lies nearest to the image in the joint space.

    The authors' image encoder is trained along; here the embedding is what it is, and a head on it is trained. Where
    they take differences between slides out of the expression with Harmony, it is standardised by slide; what is
    averaged in the end is expression as measured.
    """
    known, wanted = rescale(references.z, target.z)
    y = standardize(references.y, references.slide)

    def retrieve(network: JointSpace, x: np.ndarray, bank: np.ndarray) -> np.ndarray:
        query = in_blocks(network.image, as_tensor(x, "cpu")).numpy()
        keys = in_blocks(network.expression, as_tensor(y[bank], "cpu")).numpy()
        return mean_of_nearest(query, keys, references.y[bank])

    network = train_early_stopped(
        lambda: JointSpace(known.shape[1], y.shape[1], width=WIDTH, dropout=DROPOUT),
        retrieve,
        references,
        known,
        y,
        BatchSettings(MAX_EPOCHS, BATCH_SPOTS, LEARNING_RATE, WEIGHT_DECAY),
        seed,
    )
    return retrieve(network, wanted, np.arange(len(references)))
