"""How far spots lie from each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

SPOT_OF_PITCH = 0.55
"""Diameter of a spot whose size is not known, over the distance of neighbours: 55 of 100 um, as in Visium; legacy arrays have 100 of
200 um."""

PITCH_UM = 100.0
"""Distance of neighbouring spots, microns, where the resolution of no slide is known: that of Visium, by which a spot of
:data:`SPOT_OF_PITCH` has its 55 um."""


def spot_pitch(xy: NDArray[np.float64]) -> float | None:
    """Median distance of spots to their nearest neighbour; ``None`` where there are no two places."""
    places = np.unique(xy, axis=0)
    if len(places) < 2:
        return None
    return float(np.median(KDTree(places).query(places, k=2)[0][:, 1]))


ARRAY_SHARE, ARRAY_TOLERANCE = 0.7, 0.2
"""Spots lie on an array where at least this share of them has the nearest other one at the median distance, give or take
this share of it, ... Arrays with many stray spots have 0.75 and more, spots at random 0.35."""
MAX_CLOSER_SHARE = 0.05
"""... and at most this share has it nearer than that. Legacy arrays, whose spots are printed a little off, have 0.02."""
N_COUNTED = 18
"""Nearest spots in the circle around a spot by which the density of spots at random is told."""
MEDIAN_OF_COUNT = 1 / 3
"""In the median over points at random, the circle to the n-th nearest has the area of n less this many of them."""


def is_array(nearest: NDArray[np.float64]) -> bool:
    """Whether spots lie on an array, by the distance of each to its nearest other one."""
    pitch = float(np.median(nearest))
    regular = np.abs(nearest - pitch) <= ARRAY_TOLERANCE * pitch
    closer = nearest < (1 - ARRAY_TOLERANCE) * pitch
    return bool(regular.mean() >= ARRAY_SHARE and closer.mean() <= MAX_CLOSER_SHARE)


def spot_spacing(xy: NDArray[np.float64]) -> float | None:
    """How far spots lie apart: the pitch of an array, elsewhere (cells) the root of the area that a spot has to itself.

    ``None`` where there are no two places.
    """
    places = np.unique(xy, axis=0)
    if len(places) < 2:
        return None
    n = min(N_COUNTED, len(places) - 1)
    distances = KDTree(places).query(places, k=n + 1)[0]
    if is_array(distances[:, 1]):
        return float(np.median(distances[:, 1]))
    return float(np.sqrt(np.pi / (n - MEDIAN_OF_COUNT)) * np.median(distances[:, n]))
