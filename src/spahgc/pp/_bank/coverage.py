"""Which reference of a bank measured which gene, and the expression of a bank in which nothing unmeasured is a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from spahgc._keys import UNS, Obs, Uns, Var, Varm
from spahgc._slides.matrix import in_memory
from spahgc._spots.rows import DenseRows, Rows
from spahgc._spots.unmeasured import MeasuredRows


def measured_by(bank: AnnData) -> np.ndarray | None:
    """Which references measured each gene, genes x references, boolean; ``None`` where all of them did, as by default."""
    return np.asarray(bank.varm[Varm.measured_by], dtype=bool) if Varm.measured_by in bank.varm else None


def n_references(bank: AnnData) -> np.ndarray | None:
    """References that measured each gene, where ``genes="union"`` made the bank; ``None`` of any other bank."""
    known = measured_by(bank)
    return None if known is None else known.sum(axis=1)


def in_all(bank: AnnData) -> np.ndarray:
    """Which genes of a bank all of its references measured, boolean."""
    known = measured_by(bank)
    return np.ones(bank.n_vars, dtype=bool) if known is None else np.asarray(known.all(axis=1))


def table_of_genes(panel: Sequence[str], known: np.ndarray | None) -> pd.DataFrame:
    """What stands in ``var`` of a bank."""
    columns = {} if known is None else {Var.n_references_of_bank: known.sum(axis=1)}
    return pd.DataFrame(columns, index=pd.Index(panel))


def arrays_of_genes(known: np.ndarray | None) -> dict[str, np.ndarray]:
    """What stands in ``varm`` of a bank."""
    return {} if known is None else {Varm.measured_by: known}


def measured_expression(bank: AnnData) -> Rows:
    """Expression of a bank, dense where it is read; NaN where a reference did not measure a gene, whatever ``X`` holds there."""
    rows, known = DenseRows(csr_matrix(in_memory(bank.X))), measured_by(bank)
    if known is None or known.all():
        return rows
    names = [str(name) for name in bank.uns[UNS][Uns.bank]["slides"]]
    number = pd.Index(names).get_indexer(bank.obs[Obs.slide].astype(str))
    return MeasuredRows(rows, number, known.T)


def broken_coverage(bank: AnnData, record: Mapping[str, object]) -> str | None:
    """What is wrong with what a bank says of who measured its genes, if something is."""
    if Varm.measured_by not in bank.varm:
        return None
    known, slides = bank.varm[Varm.measured_by], list(record["slides"])  # type: ignore[call-overload]
    label = f'varm["{Varm.measured_by}"]'
    if getattr(known, "shape", None) != (bank.n_vars, len(slides)) or known.dtype != bool:
        found = f"{getattr(known, 'dtype', '')} {' x '.join(map(str, getattr(known, 'shape', ())))}".strip()
        return f"{label} is {found}, expected is bool {bank.n_vars} x {len(slides)}, genes x references"
    if not np.asarray(known).any(axis=1).all():
        return f"{label} says of some genes that no reference measured them"
    unknown = sorted(set(bank.obs[Obs.slide].astype(str)) - {str(name) for name in slides})
    return f'its spots are of slides that its record does not name, such as "{unknown[0]}"' if unknown else None
