"""Does a predicted map cling together on the tissue as the measured one does?"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix


def moran_difference(predicted: np.ndarray, measured: np.ndarray, near: csr_matrix) -> np.ndarray:
    """Moran's I of the prediction less that of the measurement, one number a gene.

    0: equally smooth; positive: the prediction is smoother than the measurement, as noise is left out or detail is lost.

    Parameters
    ----------
    predicted, measured
        Spots x genes.
    near
        Neighbours, spots x spots, weight 1 each.

    Returns
    -------
    One number a gene; NaN where the gene is constant, as measured or as predicted, or where no spot has a neighbour.
    """
    return morans_i(predicted, near) - morans_i(measured, near)


def morans_i(values: np.ndarray, near: csr_matrix) -> np.ndarray:
    """Moran's I of every column, with the weights of a graph.

    ``I = n / W * sum_ij w_ij z_i z_j / sum_i z_i^2`` with ``z`` the value less its mean, ``n`` spots, and ``W`` the sum
    of all weights: the number that :func:`scanpy.metrics.morans_i` gives. That runs on numba, whose threads would be
    raised behind everybody's back; this is one product.

    Parameters
    ----------
    values
        Spots x genes.
    near
        Weights, spots x spots.
    """
    constant = ~(np.ptp(values, axis=0) > 0)
    z = values - values.mean(axis=0)
    total, squares = near.sum(), np.where(constant, 1.0, np.square(z).sum(axis=0))
    if total == 0:
        return np.full(values.shape[1], np.nan)
    return np.where(constant, np.nan, len(values) / total * (z * (near @ z)).sum(axis=0) / squares)
