"""Signatures of cell types from annotated single cells: what each type expresses beside the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from spahgc._logging import warn
from spahgc._slides.measured import log_expression
from spahgc._validate import check_anndata, quoted
from spahgc.tl._gene_sets import SOURCE, TARGET, WEIGHT

MIN_CELLS = 5
"""Cells that a type needs in the reference: the mean of fewer is noise."""
MIN_TYPES = 2
"""Types that a reference needs, so that there is something to tell apart."""
MAX_TYPES = 200
"""Types of a column; more are names of cells."""

REFERENCE = "the reference of cell types"


def type_profiles(
    reference: AnnData, groupby: str, genes: list[str], unnamed: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Weights of genes in cell types: the mean expression of the type's cells less the mean over all types.

    Parameters
    ----------
    reference
        Annotated single cells: counts in ``X``, or what :func:`spahgc.tl.predict` recognises of its references.
    groupby
        Column of ``obs`` that names the type of each cell; cells without a name are left out.
    genes
        Genes of the slide; those that the reference has as well are used.
    unnamed
        Name that stands for no type; such cells are left out.

    Returns
    -------
    A table with a row for each gene of each type, ``source``, ``target`` and ``weight`` (``log1p`` counts per 10,000); and what was
    used: ``groupby``, ``n_reference_cells`` of each type, and ``too_few_cells``, the types that were left out.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If no gene is shared, or fewer than two types have five cells.
    """
    names = _names(reference, groupby, unnamed)
    shared = reference.var_names.isin(genes)
    if not shared.any():
        raise ValueError(
            f"{REFERENCE} has none of the {len(genes)} genes of the slide: its genes look like {quoted(reference.var_names, 3)}, the "
            f"slide's like {quoted(genes, 3)}. Use the same kind of gene names, of the same species."
        )
    sizes = names.value_counts()
    few = sorted(sizes.index[sizes < MIN_CELLS])
    types = sorted(sizes.index[sizes >= MIN_CELLS])
    if not MIN_TYPES <= len(types) <= MAX_TYPES:
        raise ValueError(
            f'obs["{groupby}"] of {REFERENCE} names {len(sizes)} types ({quoted(sizes.index)}), {len(types)} of them with at least '
            f"{MIN_CELLS} cells; {MIN_TYPES} to {MAX_TYPES} can be told apart."
        )
    if few:
        warn(
            f'{len(few)} types of obs["{groupby}"] ({quoted(few)}) have fewer than {MIN_CELLS} cells and are left out.',
            stacklevel=3,
        )
    expression = log_expression(reference, label=REFERENCE)[:, shared]
    profiles = _means(expression, names, types)
    weights = profiles - profiles.mean(axis=0)
    shown = reference.var_names[shared].astype(str)
    net = pd.DataFrame(
        {
            SOURCE: np.repeat(types, len(shown)),
            TARGET: np.tile(shown, len(types)),
            WEIGHT: weights.ravel(),
        }
    )
    used = {name.replace("/", "_"): int(sizes[name]) for name in types}  # as gene_sets calls them, for h5ad
    return net, {"groupby": groupby, "n_reference_cells": used, "too_few_cells": few}


def _names(reference: AnnData, groupby: str, unnamed: str) -> pd.Series:
    """Type of each cell as text; missing where none is named."""
    check_anndata(reference, REFERENCE)
    if groupby not in reference.obs:
        raise KeyError(
            f'obs["{groupby}"] not found in {REFERENCE}, which has {quoted(reference.obs)}. Pass groupby= with the column that '
            "names the type of each cell."
        )
    column = reference.obs[groupby]
    names = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    return names.where((names != "") & (names.str.lower() != unnamed))


def _means(expression: csr_matrix, names: pd.Series, types: list[str]) -> np.ndarray:
    """Mean over the cells of each type, types x genes, float64."""
    place = pd.Index(types).get_indexer(pd.Index(names.to_numpy(dtype=object, na_value="")))
    cells = np.flatnonzero(place >= 0)
    member = csr_matrix((np.ones(len(cells)), (place[cells], cells)), shape=(len(types), len(names)))
    return np.asarray((member @ expression.astype(np.float64)).todense()) / np.asarray(member.sum(axis=1))
