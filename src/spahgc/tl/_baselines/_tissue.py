"""What a spot and its surroundings look like on their slide, in a few numbers."""

from __future__ import annotations

import numpy as np

from spahgc._features import neighbour_mean, reduce, standardize
from spahgc._spots import Spots

N_COMPONENTS = 128
"""Principal components of the spots' own features, and of those of their neighbours."""


def tissue_features(references: Spots, target: Spots) -> tuple[np.ndarray, np.ndarray]:
    """Features standardised by slide and their means over neighbours, each in 128 principal components.

    Returns
    -------
    Reference spots x features, and target spots x features, float64.
    """
    known = standardize(references.z, references.slide)
    wanted = standardize(target.z, target.slide)
    own = reduce(known, wanted, N_COMPONENTS)
    around = reduce(
        neighbour_mean(known, references.xy, references.slide),
        neighbour_mean(wanted, target.xy, target.slide),
        N_COMPONENTS,
    )
    return np.hstack([own[0], around[0]]), np.hstack([own[1], around[1]])
