"""Measured slides: every part read, converted and checked once; from what lies in X to log1p counts per 10,000."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse

from spahgc._keys import COUNTS_PER_SPOT, SPATIAL, UNITS, UNS, Obs, Uns
from spahgc._slides.split import split_slides
from spahgc._validate import check_coordinates, embedding_matrix, encoder_records

ROW_SUM_TOLERANCE = 1e-2
"""Relative spread of the spots' totals below which ``expm1(X)`` counts as normalised to a constant."""

LARGEST_LOG_VALUE = 30.0
"""No ``log1p`` of a count is larger, so ``expm1`` is not tried above it."""

MAX_HELD_VALUES = 200_000_000
"""Counts that are not zero, of all slides of a call together, up to which they are held once they are read: 4 GB with the
expression made of them. Those of more slides are read again where they are needed."""


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


def padded_spots(adata: AnnData) -> np.ndarray:
    """Spots whose patch is known to reach past the image, boolean: their embedding tells where they lie on it."""
    column = adata.obs.get(Obs.patch_padded)
    known = column is not None and column.dtype == bool
    return column.to_numpy() if known else np.zeros(adata.n_obs, dtype=bool)


Ranking = TypeVar("Ranking")


class MeasuredSlide:
    """A measured slide; nothing of it is looked at before it is asked for, and nothing is changed.

    Parameters
    ----------
    adata
        The slide.
    name
        Its name.
    layer
        Layer that holds the counts; ``None`` takes ``X``.
    role
        How messages call it beside its name, e.g. ``"reference"``.
    hold
        Keep what was read of the counts.
    """

    def __init__(
        self, adata: AnnData, name: str, *, layer: str | None = None, role: str = "reference", hold: bool = True
    ) -> None:
        self.adata = adata
        self.name = name
        self.layer = layer
        self.role = role
        self.label = f'{role} "{name}"'
        self.hold = hold
        self.var_names = adata.var_names
        self.obs_names = adata.obs_names
        self.gene_selection = ""
        """What ranked its genes, if that was not what ranks those of most slides."""
        self._embeddings: dict[str, np.ndarray] = {}
        self._rankings: dict[tuple[object, ...], object] = {}

    @cached_property
    def xy(self) -> np.ndarray:
        """Spot centres ``(x, y)``, spots x 2, pixels, float64."""
        return check_coordinates(self.adata, self.label)

    @property
    def padded(self) -> np.ndarray:
        """Spots whose patch reaches past the image, boolean."""
        return padded_spots(self.adata)

    def embedding(self, key: str) -> np.ndarray:
        """The embedding under a key, spots x dim, float32."""
        if key not in self._embeddings:
            self._embeddings[key] = embedding_matrix(self.adata, key, self.label)
        return self._embeddings[key]

    def encoder_record(self, key: str) -> dict[str, object]:
        """The encoder record of an embedding; empty where there is none."""
        return encoder_records(self.adata).get(key, {})

    def counts(self) -> csr_matrix:
        """Values as they stand in the slide, spots x genes, float64; not to be changed."""
        return self._held_counts if self.hold else self._read_counts()

    def expression(self) -> csr_matrix:
        """``log1p`` counts per 10,000, spots x genes, float32; not to be changed."""
        return self._held_expression if self.hold else to_log_expression(self.counts(), self.label)

    @cached_property
    def measured(self) -> np.ndarray:
        """Which spots have a count at all, boolean."""
        return self._seen[0]

    @cached_property
    def n_seen(self) -> np.ndarray:
        """Spots that have seen each gene."""
        return self._seen[1]

    @cached_property
    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        seen = self.counts() != 0
        return np.diff(seen.indptr) > 0, np.asarray(seen.sum(axis=0)).ravel()

    def ranking(self, rank: Callable[..., Ranking], *arguments: object) -> Ranking:
        """What a function of this slide returns for some arguments, computed once."""
        known = (rank, *arguments)
        if known not in self._rankings:
            self._rankings[known] = rank(self, *arguments)
        return self._rankings[known]  # type: ignore[return-value]

    def with_counts(self, counts: csr_matrix, genes: pd.Index) -> MeasuredSlide:
        """The same spots and embeddings, as far as these were asked for, with other counts, and nothing else of the slide.

        Parameters
        ----------
        counts
            Spots x genes, float64, finite.
        genes
            Their names.
        """
        table = AnnData(
            counts,
            obs=pd.DataFrame({Obs.patch_padded: self.padded}, index=self.obs_names),
            var=pd.DataFrame(index=genes),
            obsm={**self._embeddings, SPATIAL: self.xy},
            uns={UNS: {Uns.embeddings: encoder_records(self.adata)}},
        )
        slide = MeasuredSlide(table, self.name, role=self.role, hold=self.hold)
        slide._embeddings = dict(self._embeddings)
        if self.hold:
            slide.__dict__["_held_counts"] = counts
        return slide

    def __getstate__(self) -> dict[str, object]:
        """What travels to another process, which reads the counts again rather than receiving them twice."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_held")}

    def _read_counts(self) -> csr_matrix:
        return raw_matrix(self.adata, self.layer, self.label)

    @cached_property
    def _held_counts(self) -> csr_matrix:
        return self._read_counts()

    @cached_property
    def _held_expression(self) -> csr_matrix:
        return to_log_expression(self._held_counts, self.label)


def measured_slides(
    data: AnnData | Iterable[AnnData], *, layer: str | None = None, role: str = "reference"
) -> dict[str, MeasuredSlide]:
    """Slides by name as :func:`~spahgc._slides.split.split_slides` tells them apart; their counts are held if all fit."""
    slides = split_slides(data, role)
    hold = sum(_n_values(slide, layer) for slide in slides.values()) <= MAX_HELD_VALUES
    return {name: MeasuredSlide(slide, name, layer=layer, role=role, hold=hold) for name, slide in slides.items()}


def _n_values(adata: AnnData, layer: str | None) -> int:
    values = adata.X if layer is None else adata.layers.get(layer)
    return int(values.nnz) if issparse(values) else adata.n_obs * adata.n_vars
