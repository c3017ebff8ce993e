"""Values of ``X`` or of a layer as they stand: read into memory and checked, nothing assumed of what they mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse


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
    matrix = as_csr(values)
    broken = ~np.isfinite(matrix.data)
    if broken.any():
        where = "X" if layer is None else f'layer "{layer}"'
        raise ValueError(f"{where} of {label} has {int(broken.sum())} NaN or infinite values. It must hold counts.")
    return matrix


def as_csr(values: Any) -> csr_matrix:
    """A copy in memory, CSR float64."""
    values = in_memory(values)
    return csr_matrix(values if issparse(values) else np.asarray(values), dtype=np.float64, copy=True)


def row_sums(matrix: Any) -> np.ndarray:
    """Sum of every row, float64."""
    return np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()


def column_sums(matrix: Any) -> np.ndarray:
    """Sum of every column, float64."""
    return np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel()


def is_whole(matrix: csr_matrix) -> bool:
    """Whether all values are whole numbers of at least zero, as counts are."""
    return bool(np.all(matrix.data >= 0) and np.all(matrix.data == np.rint(matrix.data)))
