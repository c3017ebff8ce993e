"""Features of a panel that are no gene: negative controls, blank and unassigned codewords."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from spahgc._keys import UNS, Obsm, Uns
from spahgc.io._space_ranger import FEATURE_TYPES, GENE_EXPRESSION

CONTROLS = {
    "Negative Control Probe": r"NegControlProbe_.+|NegPrb\d+|Negative\d+|antisense_.+",
    "Negative Control Codeword": r"NegControlCodeword_.+|FalseCode\d+",
    "System Control": r"SystemControl\d+",
    "Genomic Control": r"Intergenic_Region_.+|GenomicControl_.+",
    "Blank Codeword": r"BLANK[-_ ]?\d+",
    "Unassigned Codeword": r"UnassignedCodeword_.+",
    "Deprecated Codeword": r"DeprecatedCodeword_.+",
}
"""Names of what is no gene in the tables of Xenium, CosMx and MERSCOPE, by kind; case does not matter."""


def without_controls(adata: AnnData) -> AnnData:
    """The genes of a panel, with the counts of its other features beside them.

    What a feature is says ``var["feature_types"]``, else its name.

    Parameters
    ----------
    adata
        Cells x features, counts.

    Returns
    -------
    Cells x genes. Where there are others, ``obsm["controls"]`` holds their counts by kind (float32, a column a kind) and
    ``uns["spahgc"]["controls"]`` their names.
    """
    kinds = _kinds(adata)
    is_gene = (kinds == GENE_EXPRESSION).to_numpy()
    if is_gene.all():
        return adata
    genes = adata[:, is_gene].copy()
    columns, names = {}, {}
    for kind in sorted(set(kinds[~is_gene])):
        of_kind = (kinds == kind).to_numpy()
        columns[kind] = np.asarray(csr_matrix(adata.X)[:, of_kind].sum(axis=1), dtype=np.float32).ravel()
        names[kind] = [str(name) for name in adata.var_names[of_kind]]
    genes.obsm[Obsm.controls] = pd.DataFrame(columns, index=genes.obs_names)
    entries: dict[str, Any] = dict(genes.uns.get(UNS, {}))
    entries[Uns.controls] = names
    genes.uns[UNS] = entries
    return genes


def _kinds(adata: AnnData) -> pd.Series:
    """Kind of each feature."""
    if FEATURE_TYPES in adata.var and (adata.var[FEATURE_TYPES] == GENE_EXPRESSION).any():
        return adata.var[FEATURE_TYPES].astype(str)
    kinds = pd.Series(GENE_EXPRESSION, index=adata.var_names)
    for kind, pattern in CONTROLS.items():
        kinds[adata.var_names.str.fullmatch(pattern, flags=re.IGNORECASE)] = kind
    return kinds
