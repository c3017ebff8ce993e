"""The regression of the HEST benchmark (Jaume et al., NeurIPS 2024), by which encoders are ranked."""

from __future__ import annotations

import numpy as np

from spahgc._linear.ridge import fit_ridge
from spahgc._spots.rows import Spots, reduce

N_COMPONENTS = 256
"""Principal components of the embedding."""
PENALTY = 100.0
"""Penalty times features times genes."""


def predict_hest(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """Ridge regression on 256 components with a penalty that is fixed, target spots x panel; the seed is not used.

    Every dimension of the embedding is standardised over all reference spots, 256 principal components are taken, and a
    ridge regression of penalty ``100 / (components * genes)`` follows. The benchmark fits no intercept; components are
    centred, so that one changes neither coefficients nor correlations, and is added here to keep the units.
    """
    from sklearn.linear_model import Ridge

    known, wanted = hest_features(references, target)
    line = Ridge(alpha=PENALTY / (known.shape[1] * references.y.shape[1])).fit(known, references.y.astype(np.float64))
    return np.asarray(line.predict(wanted)).reshape(len(target), references.y.shape[1])


def predict_hest_tuned(references: Spots, target: Spots, seed: int) -> np.ndarray:
    """The same components with the penalty that predicts references held out in turn best; the seed is not used."""
    known, wanted = hest_features(references, target)
    return fit_ridge(known, references.y, references.slide).predict(wanted)


def hest_features(references: Spots, target: Spots) -> tuple[np.ndarray, np.ndarray]:
    """Components of the embedding, scaled and turned as the references say.

    Returns
    -------
    Reference spots x components, and target spots x components, float64.
    """
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(np.asarray(references.z, dtype=np.float64))
    return reduce(scale.transform(references.z), scale.transform(target.z), N_COMPONENTS)
