"""Categories of spots: their colours, the same in figures, the report and files for other programs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

CATEGORY_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Colours of up to eight categories, told apart by colour-blind readers (Okabe and Ito; grey for their black)."""


def category_colours(n: int) -> list[str]:
    """So many colours: up to eight are told apart by colour-blind readers, more are scanpy's.

    Raises
    ------
    ValueError
        If scanpy has no palette of so many.
    """
    if n <= len(CATEGORY_COLOURS):
        return list(CATEGORY_COLOURS[:n])
    from scanpy.plotting.palettes import default_28, default_102

    if n > len(default_102):
        raise ValueError(
            f"{n} categories cannot be told apart by colour, at most {len(default_102)} are drawn. Pass a column with "
            "fewer; numbers are no categories."
        )
    return list((default_28 if n <= len(default_28) else default_102)[:n])


def categories_of(adata: AnnData, column: str) -> tuple[list[str], np.ndarray]:
    """Names of the categories of a column, and the number of each spot's, -1 for none."""
    values = adata.obs[column]
    blank = values.isna() | (values.astype(str).str.strip() == "")
    if blank.all():
        raise ValueError(f'obs["{column}"] is NaN or empty in all {adata.n_obs} spots: there is nothing to draw.')
    known = pd.Categorical(values.where(~blank))
    # Clusters with numbers become floats as soon as one spot has none.
    names = [f"{name:g}" if isinstance(name, float) else str(name) for name in known.categories]
    return names, np.asarray(known.codes, dtype=np.int64)


def stored_colours(adata: AnnData, column: str, n: int) -> list[str]:
    """The colours that scanpy keeps for a column, none if they are not as many."""
    stored = [str(colour) for colour in adata.uns.get(f"{column}_colors", [])]
    return stored if len(stored) == n else []
