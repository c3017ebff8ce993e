"""The mean of the references, the same at every spot: it correlates with nothing."""

from __future__ import annotations

import numpy as np

from spahgc._spots.rows import Spots


def predict_mean(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """Mean expression of the reference spots, target spots x panel; the seed has no part in it."""
    return np.tile(references.y.mean(axis=0, dtype=np.float64), (len(target), 1))
