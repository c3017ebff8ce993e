"""Weights of experts, as references held out prove them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import nnls

SHRINKAGE = 0.3
"""Penalty on what the weights differ by from equal shares, as a share of the mean sum of squares of an expert's prediction."""

PLACED_SHRINKAGE = 0.05
"""The same where place is among them: it is worth much or nothing, which sections of one block tell more surely."""

MIN_SHARE = 0.05
"""Share of all weights below which an expert earns nothing: it is left out, and the others are weighed again."""


def prove_weights(
    predicted: Mapping[str, np.ndarray], truth: np.ndarray, *, shrinkage: float = SHRINKAGE
) -> dict[str, float]:
    """Non-negative weights of experts, from predictions of references held out; their sum is 1.

    The squared error of the weighted sum over all components is minimised, with a penalty on the distance from equal
    shares of the size that serves best (stacked regressions, Breiman 1996, with shrinkage). The weights are the same for all
    components, and the sum is not shrunk: few references tell little of either.

    Parameters
    ----------
    predicted
        Scores of spots that were held out, spots x components, by name of the expert.
    truth
        Their own scores, spots x components.
    shrinkage
        How much is shrunk towards equal shares.

    Returns
    -------
    A weight by name of the expert; 0 for those that earn less than a twentieth of all.
    """
    names = list(predicted)
    while True:
        weights = _weights([predicted[name] for name in names], truth, shrinkage)
        weakest = int(weights.argmin())
        if weights[weakest] >= MIN_SHARE or len(names) == 1:
            break
        names.pop(weakest)
    found = dict(zip(names, weights.tolist(), strict=True))
    return {name: found.get(name, 0.0) for name in predicted}


def _weights(predicted: list[np.ndarray], truth: np.ndarray, shrinkage: float) -> np.ndarray:
    n = len(predicted)
    products = np.array([[float((a * b).sum()) for b in predicted] for a in predicted])
    with_truth = np.array([float((a * truth).sum()) for a in predicted])
    size, equal = np.trace(products) / n, np.full(n, 1 / n)
    if size == 0:
        return equal
    slope = max(equal @ with_truth / (equal @ products @ equal), 0.0)
    root = np.linalg.cholesky(products + shrinkage * size * np.eye(n))
    weights, _ = nnls(root.T, np.linalg.solve(root, with_truth + shrinkage * size * slope * equal))
    return weights / weights.sum() if weights.sum() > 0 else equal
