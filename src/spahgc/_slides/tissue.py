"""Which spots lie on the tissue: the column ``in_tissue`` of Space Ranger, scanpy and squidpy, in any of its spellings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse

from spahgc._keys import HEST, Obs
from spahgc._logging import warn
from spahgc._validate import quoted

Rows: TypeAlias = Any
Values: TypeAlias = Any

YES = ("1", "1.0", "true", "yes")
NO = ("0", "0.0", "false", "no")
"""What the column may hold, in lower case."""


def spots_on_tissue(adata: AnnData, label: str) -> np.ndarray | None:
    """Which spots lie on the tissue, boolean; ``None`` where all do, or where nothing is known of it.

    The column ``obs["in_tissue"]`` may hold numbers, booleans or text. Of samples of HEST it is not looked at, since HEST
    itself calls it inaccurate.

    Raises
    ------
    ValueError
        If the column holds something else than yes and no, or no spot lies on the tissue.
    """
    if Obs.in_tissue not in adata.obs or HEST in adata.uns:
        return None
    column = adata.obs[Obs.in_tissue]
    words = column.astype(object).where(column.notna(), "").astype(str).str.strip().str.lower()
    unclear = ~words.isin([*YES, *NO])
    if unclear.any():
        raise ValueError(
            f'obs["{Obs.in_tissue}"] of {label} holds {quoted(pd.unique(column[unclear]))} in {int(unclear.sum())} of '
            f"{adata.n_obs} spots, which is neither 1 nor 0. Correct these, or remove the column if it says something else."
        )
    on_tissue = words.isin(YES).to_numpy()
    if not on_tissue.any():
        raise ValueError(
            f'no spot of {label} lies on the tissue: obs["{Obs.in_tissue}"] is 0 in all {adata.n_obs}. Correct the column, '
            "or remove it if that is wrong."
        )
    return None if on_tissue.all() else on_tissue


def only_on_tissue(adata: AnnData, label: str, purpose: str) -> AnnData:
    """The spots on the tissue, a view; a warning says how many were left out, and of what."""
    on_tissue = spots_on_tissue(adata, label)
    if on_tissue is None:
        return adata
    warn_of_glass(on_tissue, label, f"are left out of {purpose}")
    return adata[on_tissue]


@dataclass(frozen=True)
class TissueRows:
    """Which rows of a target lie on the tissue: only these are predicted, and the others stay in their place, empty."""

    on_tissue: np.ndarray | None
    """Boolean, one entry a spot; ``None`` where all do."""

    @classmethod
    def of(cls, adata: AnnData, label: str) -> TissueRows:
        """Those of a target; a warning says how many lie off the tissue."""
        on_tissue = spots_on_tissue(adata, label)
        if on_tissue is not None:
            way_out = f'adata[adata.obs["{Obs.in_tissue}"] == 1].copy() leaves them out'
            warn_of_glass(on_tissue, label, f"are not predicted, their values are NaN. {way_out}")
        return cls(on_tissue)

    def only(self, rows: Rows) -> Rows:
        """The rows on the tissue, of an AnnData, an array or a sparse matrix; ``None`` passes through."""
        return rows if self.on_tissue is None or rows is None else rows[self.on_tissue]

    def in_place(self, values: Values) -> Values:
        """Rows on the tissue among all rows; the others are NaN, of a sparse matrix empty. ``None`` passes through."""
        if self.on_tissue is None or values is None:
            return values
        if issparse(values):
            counts = np.zeros(len(self.on_tissue), dtype=values.indptr.dtype)
            counts[self.on_tissue] = np.diff(values.indptr)
            indptr = np.concatenate([[0], np.cumsum(counts)]).astype(values.indptr.dtype)
            return csr_matrix((values.data, values.indices, indptr), shape=(len(counts), values.shape[1]))
        everywhere = np.full((len(self.on_tissue), *values.shape[1:]), np.nan, dtype=values.dtype)
        everywhere[self.on_tissue] = values
        return everywhere


def warn_of_glass(on_tissue: np.ndarray, label: str, consequence: str) -> None:
    """Say how many spots lie off the tissue, and what follows."""
    warn(
        f'{int((~on_tissue).sum())} of {len(on_tissue)} spots of {label} lie off the tissue (obs["{Obs.in_tissue}"]); they '
        f"{consequence}.",
        stacklevel=3,
    )
