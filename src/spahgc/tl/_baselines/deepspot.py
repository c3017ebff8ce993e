"""A deep-set network after DeepSpot (Nonchev et al., medRxiv 2025): a spot, its parts, and the spots around it."""

from __future__ import annotations

import numpy as np
import torch

from spahgc._spots.rows import N_HEXAGONAL, SlideScale, Spots, rescale
from spahgc._spots.scale import spots_at
from spahgc._training.early_stopping import chosen_epochs, train_for
from spahgc._training.graphs import as_tensor
from spahgc.nn._baselines import BatchSettings, in_blocks
from spahgc.nn._deep_sets import DeepSets, SpotSets

N_NETWORKS = 5
"""Networks of other initial weights whose predictions are averaged."""
WIDTH = 256
DROPOUT = 0.3
MAX_EPOCHS = 150
BATCH_SPOTS = 64
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 1e-2


def predict_deepspot(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """Mean of five deep-set networks, to genes standardised over all reference spots; target spots x panel.

    What the article says is kept: a perceptron on the spot, the sum of another one over its sub-spots, the maximum of a
    third one over its neighbours, joined, and a perceptron on these that makes genes; squared error on standardised
    genes; encoder frozen. The widths of the layers are ours, and the number of epochs is chosen on a reference held out.

    Parameters
    ----------
    references, target
        Their embedding is spots x dim, or spots x (1 + sub-spots) x dim: the spot, then its parts, as
        :func:`spahgc.tl._baselines.columns.seen_columns` lays them out. Without parts the network has two sets.
        Neighbours are the six nearest spots of the same slide.
    seed
        Seed of the first network; the others take the numbers that follow it.
    """
    everything = SlideScale.fit(references.y, np.zeros(len(references), dtype=str))
    y = everything.transform(references.y)
    known_z, wanted_z = rescale(references.z, target.z)
    known, wanted = _sets(known_z, references), _sets(wanted_z, target)

    def make() -> DeepSets:
        return DeepSets(
            known.z.shape[1],
            y.shape[1],
            width=WIDTH,
            dropout=DROPOUT,
            with_subspots=known.subspots is not None,
        )

    settings = BatchSettings(MAX_EPOCHS, BATCH_SPOTS, LEARNING_RATE, WEIGHT_DECAY)
    settings = chosen_epochs(make, lambda network, x, _: _outputs(network, x), references, known, y, settings, seed)
    total = np.zeros((len(target), y.shape[1]))
    for number in range(N_NETWORKS):
        total += _outputs(train_for(make, known, y, settings, seed + number), wanted)
    return everything.inverse_transform(total / N_NETWORKS)


def _sets(z: np.ndarray, spots: Spots) -> SpotSets:
    """The spots with their neighbours, and their parts where the embedding has some."""
    own = as_tensor(z if z.ndim == 2 else z[:, 0], "cpu")
    parts = None if z.ndim == 2 else as_tensor(z[:, 1:], "cpu")
    return SpotSets(own, _neighbours(spots), parts, torch.arange(len(spots)))


def _neighbours(spots: Spots) -> torch.Tensor:
    """Numbers of the nearest spots, spots x 6; where there are fewer they are repeated, which changes no maximum over them.

    On a slide that is denser than most references they are those at the distance of these.
    """
    near = spots_at(spots.xy, N_HEXAGONAL, spots.slide, spots.steps)
    near.sort_indices()
    n = np.diff(near.indptr)[:, None]
    return torch.from_numpy(near.indices[near.indptr[:-1, None] + np.arange(N_HEXAGONAL) % n].astype(np.int64))


def _outputs(network: DeepSets, spots: SpotSets) -> np.ndarray:
    return in_blocks(network, spots).numpy()
