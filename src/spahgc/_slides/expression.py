"""From what lies in ``X`` or a layer to ``log1p`` counts per 10,000, the units of the package."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix, issparse

from spahgc._keys import COUNTS_PER_SPOT, UNITS

if TYPE_CHECKING:
    from anndata import AnnData

ROW_SUM_TOLERANCE = 1e-2
"""Relative spread of the spots' totals below which ``expm1(X)`` counts as normalised to a constant."""

LARGEST_LOG_VALUE = 30.0
"""No ``log1p`` of a count is larger, so ``expm1`` is not tried above it."""


def in_memory(values: Any) -> Any:
    """Values that lie in a file or are still to be computed, as an array or a sparse matrix."""
    if hasattr(values, "to_memory"):
        return values.to_memory()
    return values.compute() if hasattr(values, "compute") else values


def raw_matrix(adata: AnnData, layer: str | None, label: str) -> csr_matrix:
    """Values of ``X`` or of a layer as they are, CSR float64, spots x genes; refuses missing and non-finite ones."""
    if layer is not None and layer not in adata.layers:
        found = ", ".join(f'"{name}"' for name in adata.layers) or "none"
        raise KeyError(f'layer "{layer}" not found in {label}, layers are: {found}.')
    values: Any = adata.X if layer is None else adata.layers[layer]
    if values is None:
        raise ValueError(f"{label} has no X. Pass layer= with the layer that holds its counts.")
    values = in_memory(values)
    values = values if issparse(values) else np.asarray(values)
    matrix = csr_matrix(values, dtype=np.float64, copy=True)
    broken = ~np.isfinite(matrix.data)
    if broken.any():
        where = "X" if layer is None else f'layer "{layer}"'
        raise ValueError(f"{where} of {label} has {int(broken.sum())} NaN or infinite values. It must hold counts.")
    return matrix


def log_expression(adata: AnnData, *, layer: str | None = None, label: str = "the slide") -> csr_matrix:
    """Expression of every spot as ``log1p`` counts per 10,000.

    Counts are scaled by the spot's total over *all* genes of the object. Three kinds of input that are no counts are
    recognised, and a warning says what was assumed.

    Parameters
    ----------
    adata
        A slide. It is not changed.
    layer
        Layer that holds the counts; ``None`` takes ``X``.
    label
        How messages call the slide.

    Returns
    -------
    Spots x genes, CSR, float32. A spot without counts is a row of zeros.

    Raises
    ------
    ValueError
        If values are NaN or infinite, or if there are none.
    """
    return to_log_expression(raw_matrix(adata, layer, label), label)


def to_log_expression(counts: csr_matrix, label: str) -> csr_matrix:
    """What :func:`log_expression` makes of values that are read and checked, which are not changed."""
    matrix = counts.copy()
    if matrix.nnz and matrix.data.min() < 0:
        warnings.warn(
            f"{label} has negative values, so it does not hold counts. Assumed: expression that is already transformed, "
            f"taken as it is; predictions will be in its units, not in {UNITS}. Pass layer= with the counts if you "
            "have them.",
            stacklevel=4,
        )
        return matrix.astype(np.float32)
    if np.any(matrix.data != np.rint(matrix.data)):
        if _is_log_normalised(matrix):
            warnings.warn(
                f"{label} does not hold whole numbers. Assumed: log1p of counts scaled to a constant total; rescaled to "
                f"{UNITS}. Pass layer= with the counts if that is wrong.",
                stacklevel=4,
            )
            matrix.data = np.expm1(matrix.data)
        else:
            warnings.warn(
                f"{label} does not hold whole numbers. Assumed: corrected counts; normalised to {UNITS} as counts are. "
                "Pass layer= with the counts if that is wrong.",
                stacklevel=4,
            )
    return _normalised(matrix)


def _is_log_normalised(matrix: csr_matrix) -> bool:
    if matrix.data.max() > LARGEST_LOG_VALUE:
        return False
    return _constant_totals(matrix.expm1()) and not _constant_totals(matrix)


def _constant_totals(matrix: csr_matrix) -> bool:
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    totals = totals[totals > 0]
    return bool(totals.std() <= ROW_SUM_TOLERANCE * totals.mean())


def _normalised(matrix: csr_matrix) -> csr_matrix:
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    scale = np.divide(COUNTS_PER_SPOT, totals, out=np.zeros_like(totals), where=totals > 0)
    matrix.data *= np.repeat(scale, np.diff(matrix.indptr))
    np.log1p(matrix.data, out=matrix.data)
    return matrix.astype(np.float32)


def zero_spots(expression: csr_matrix) -> np.ndarray:
    """Spots without a single count, boolean, one entry a spot."""
    return np.asarray((expression != 0).sum(axis=1)).ravel() == 0
