"""Does a predicted map vary as much as the measured one?"""

from __future__ import annotations

import numpy as np


def variance_ratio(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Variance of the prediction over that of the measurement, over spots, one number a gene.

    ``var(p) / var(m)``. 1: as much; less: flatter than the tissue, which a correlation does not see; 0: the same at
    every spot. The measurement carries noise, so that the ratio of a perfect prediction of the noise-free expression is
    its reliability, and below 1.

    Parameters
    ----------
    predicted, measured
        Spots x genes, in the same units.

    Returns
    -------
    One number a gene; NaN where the measured gene is constant.
    """
    constant = ~(np.ptp(measured, axis=0) > 0)
    return np.where(constant, np.nan, predicted.var(axis=0) / np.where(constant, 1.0, measured.var(axis=0)))
