"""Is a predicted map like the measured one spot by spot, seen through a small window?"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix, diags, eye

LUMINANCE_CONSTANT, CONTRAST_CONSTANT = 0.01, 0.03
"""``K1`` and ``K2`` of Wang et al. 2004, shares of the range of the values."""


def structural_similarity(predicted: np.ndarray, measured: np.ndarray, near: csr_matrix) -> np.ndarray:
    """Structural similarity (SSIM) of two maps of each gene, mean over spots.

    After Wang et al. 2004 (IEEE Transactions on Image Processing 13:600), with a spot and its neighbours as the window,
    all of one weight. With means ``mu``, variances and covariance ``s`` within the window (sums over its spots divided
    by their number) and ``L`` the measured range of the gene, its largest value less its smallest::

        SSIM = (2 mu_p mu_m + C1) (2 s_pm + C2) / ((mu_p^2 + mu_m^2 + C1) (s_pp + s_mm + C2))
        C1 = (0.01 L)^2,  C2 = (0.03 L)^2

    1: the same map; it falls where level, contrast or pattern differ. Spots without a neighbour are left out.

    Parameters
    ----------
    predicted, measured
        Spots x genes, in the same units.
    near
        Neighbours, spots x spots, weight 1 each.

    Returns
    -------
    One number a gene, -1 to 1; NaN where the measured gene is constant, or where no spot has a neighbour.
    """
    inside = np.flatnonzero(np.diff(near.indptr))
    span = np.ptp(measured, axis=0)
    if not len(inside):
        return np.full(measured.shape[1], np.nan)
    window = csr_matrix(near + eye(near.shape[0]))[inside]
    window = csr_matrix(diags(1 / np.asarray(window.sum(axis=1)).ravel()) @ window)
    # Variances of centred values: the difference of two large squares would lose them.
    middle = measured.mean(axis=0)
    p, m = predicted - middle, measured - middle
    mean_p, mean_m = window @ p, window @ m
    var_p, var_m = window @ np.square(p) - np.square(mean_p), window @ np.square(m) - np.square(mean_m)
    covariance = window @ (p * m) - mean_p * mean_m
    mean_p, mean_m = mean_p + middle, mean_m + middle
    span = np.where(span > 0, span, np.nan)
    c1, c2 = np.square(LUMINANCE_CONSTANT * span), np.square(CONTRAST_CONSTANT * span)
    level = (2 * mean_p * mean_m + c1) / (np.square(mean_p) + np.square(mean_m) + c1)
    return np.asarray((level * (2 * covariance + c2) / (var_p + var_m + c2)).mean(axis=0))
