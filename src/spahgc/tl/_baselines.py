"""Plain methods to hold the network against: mean of the references, nearest reference spots, ridge regression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spahgc.pp._neighbors import cosine_neighbors

N_NEAREST = 50
"""Reference spots whose expression is averaged."""
N_COMPONENTS = 128
"""Principal components of the embedding on which the ridge regression stands."""
PENALTIES = tuple(np.logspace(0, 6, 13))
"""Ridge penalties to choose from, by leave-one-out error on the references."""

Baseline = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def predict_mean(reference_z: np.ndarray, reference_y: np.ndarray, target_z: np.ndarray) -> np.ndarray:
    """Mean expression of the references, the same at every spot: it correlates with nothing."""
    return np.tile(reference_y.mean(axis=0), (len(target_z), 1))


def predict_nearest(reference_z: np.ndarray, reference_y: np.ndarray, target_z: np.ndarray) -> np.ndarray:
    """Mean expression of the 50 reference spots of highest cosine similarity of the embedding, or of all if fewer."""
    k = min(N_NEAREST, len(reference_z))
    chosen = cosine_neighbors(target_z, reference_z, k).indices.reshape(len(target_z), k)
    return reference_y[chosen].mean(axis=1)


def predict_ridge(reference_z: np.ndarray, reference_y: np.ndarray, target_z: np.ndarray) -> np.ndarray:
    """Ridge regression on 128 principal components of the embedding; the penalty is chosen on the references."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import RidgeCV

    components = PCA(min(N_COMPONENTS, len(reference_z) - 1, reference_z.shape[1]), random_state=0)
    scores = components.fit_transform(reference_z)
    return RidgeCV(alphas=PENALTIES).fit(scores, reference_y).predict(components.transform(target_z))


BASELINES: dict[str, Baseline] = {"mean": predict_mean, "nearest": predict_nearest, "ridge": predict_ridge}
"""Each takes reference embedding (spots x dim), reference expression (spots x genes) and target embedding."""
