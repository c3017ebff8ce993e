"""The reference spots that look most alike, averaged."""

from __future__ import annotations

import numpy as np

from spahgc._spots.rows import Spots
from spahgc.pp._search.exact import cosine_neighbors

N_NEAREST = 50
"""Reference spots whose expression is averaged."""


def predict_nearest(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """Mean expression of the 50 reference spots of highest cosine similarity of the embedding; the seed is not used."""
    return mean_of_nearest(target.z, references.z, references.y)


def mean_of_nearest(query: np.ndarray, keys: np.ndarray, y: np.ndarray, k: int = N_NEAREST) -> np.ndarray:
    """Mean of ``y`` over the ``k`` keys of highest cosine similarity to each query, or over all keys if fewer.

    Parameters
    ----------
    query
        Query spots x dim.
    keys
        Reference spots x dim.
    y
        Reference spots x genes.
    k
        Reference spots that are averaged.

    Returns
    -------
    Query spots x genes, float64.
    """
    k = min(k, len(keys))
    chosen = cosine_neighbors(query, keys, k)
    weights = chosen.astype(np.float64)
    weights.data[:] = 1 / k
    return weights @ y
