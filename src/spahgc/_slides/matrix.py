"""Values of ``X`` or of a layer as they stand: read into memory and checked, nothing assumed of what they mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse

from spahgc._reading import check_sparse


def in_memory(values: Any, label: str = "a matrix") -> Any:
    """Values that lie in a file or are still to be computed, as an array or a sparse matrix that is safe to compute with.

    Raises
    ------
    ValueError
        If a sparse matrix is damaged (:func:`spahgc._reading.check_sparse`); `label` says which.
    """
    if hasattr(values, "to_memory"):
        values = values.to_memory()
    elif hasattr(values, "compute"):
        values = values.compute()
    check_sparse(values, label)
    return values


def raw_matrix(adata: AnnData, layer: str | None, label: str) -> csr_matrix:
    """Values of ``X`` or of a layer as they are, CSR float64, spots x genes; refuses missing and non-finite ones."""
    if layer is not None and layer not in adata.layers:
        found = ", ".join(f'"{name}"' for name in adata.layers) or "none"
        raise KeyError(
            f'layer "{layer}" not found in {label}, layers are: {found}. Pass layer= with one of them, or leave it out for X.'
        )
    values: Any = adata.X if layer is None else adata.layers[layer]
    if values is None:
        raise ValueError(f"{label} has no X. Pass layer= with the layer that holds its counts.")
    where = "X" if layer is None else f'layer "{layer}"'
    matrix = as_csr(values, f"{where} of {label}")
    broken = ~np.isfinite(matrix.data)
    if broken.any():
        raise ValueError(f"{where} of {label} has {int(broken.sum())} NaN or infinite values. It must hold counts.")
    return matrix


def as_csr(values: Any, label: str = "a matrix") -> csr_matrix:
    """A copy in memory, CSR float64, every entry at one place: what is not linear in a count needs all of it."""
    values = in_memory(values, label)
    matrix = csr_matrix(values if issparse(values) else np.asarray(values), dtype=np.float64, copy=True)
    if matrix.has_canonical_format:
        return matrix
    summed = matrix.copy()
    summed.sum_duplicates()
    # Entries only out of order stay as they are, and so does the order of sums.
    return matrix if summed.nnz == matrix.nnz else summed


def row_sums(matrix: Any) -> np.ndarray:
    """Sum of every row, float64."""
    return np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()


def column_sums(matrix: Any) -> np.ndarray:
    """Sum of every column, float64."""
    return np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel()


def is_whole(matrix: csr_matrix) -> bool:
    """Whether all values are whole numbers of at least zero, as counts are."""
    return bool(np.all(matrix.data >= 0) and np.all(matrix.data == np.rint(matrix.data)))
