"""How far spots lie from each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree


def spot_pitch(xy: NDArray[np.float64]) -> float | None:
    """Median distance of spots to their nearest neighbour; ``None`` where there are no two places."""
    places = np.unique(xy, axis=0)
    if len(places) < 2:
        return None
    return float(np.median(KDTree(places).query(places, k=2)[0][:, 1]))
