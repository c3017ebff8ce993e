"""Means over what is known, where NaN stands for what a slide did not measure."""

from __future__ import annotations

import numpy as np


def mean_where_known(x: np.ndarray, axis: int | None = 0, *, keepdims: bool = False) -> np.ndarray:
    """Mean over the values that are not NaN; NaN where there is none, without a warning.

    Without any NaN it is :func:`numpy.mean` to the last bit.

    Parameters
    ----------
    x
        Numbers, NaN where nothing is known.
    axis
        Axis over which the mean is taken; ``None`` for all.
    keepdims
        Keep that axis, of length 1.
    """
    known = ~np.isnan(x)
    if known.all():
        return np.asarray(np.mean(x, axis=axis, keepdims=keepdims))
    n = known.sum(axis=axis, keepdims=keepdims)
    total = np.where(known, x, 0).sum(axis=axis, keepdims=keepdims)
    return np.asarray(np.where(n > 0, total / np.maximum(n, 1), np.nan))
