"""The library size: a spot's counts over all genes that were measured, also where some genes were taken away since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, issparse

from spahgc._files import digest
from spahgc._keys import UNS, Obs, Uns, Var
from spahgc._logging import warn
from spahgc._slides.matrix import as_csr, column_sums, is_whole, row_sums

TOTAL_COLUMNS = ("total_counts", "n_counts", "nCount_Spatial", "nCount_RNA")
"""Columns of ``obs`` in which scanpy and Seurat write a spot's total, in the order in which they are looked at."""

MAX_MISSING_SHARE = 0.05
"""Share of the counts, by such a column, up to which genes that were taken away, such as those of hardly any spot, leave the
total of the others in its place."""

SUM_TOLERANCE = 1e-6
"""Relative error of sums of counts in single precision."""


def library_sizes(adata: AnnData, counts: csr_matrix, label: str) -> np.ndarray | None:
    """Total of every spot over all genes of the measurement, where it is known to differ from that of the genes there.

    Parameters
    ----------
    adata
        The slide.
    counts
        What was read of it as counts, whole or corrected, spots x genes.
    label
        How messages call it.

    Returns
    -------
    One number a spot; ``None`` where the sum over ``counts`` is all that is known. In this order: what the package
    remembers in ``obs["spahgc_total_counts"]``, the sums of ``raw`` where it holds the counts of more genes, and, with a
    warning, a column that scanpy or Seurat wrote.
    """
    sums = row_sums(counts)
    if not sums.any():
        return None
    whole = is_whole(counts)
    remembered = remembered_totals(adata)
    if remembered is not None:
        problem = _why_stale(adata, remembered, counts, sums, whole)
        if problem is None:
            return None if np.array_equal(remembered, sums) else remembered
        if problem:
            _warn(
                f'obs["{Obs.total}"] of {label} does not belong to its counts: {problem}. Assumed: every spot\'s total is '
                "that of the genes that are there. Remove the column, or write the totals over all genes into it."
            )
            return None
    of_raw = _totals_of_raw(adata, counts) if whole else None
    if of_raw is not None:
        return of_raw
    return _totals_of_column(adata, sums, label, whole)


def remembered_totals(adata: AnnData) -> np.ndarray | None:
    """What :func:`remember_library_sizes` wrote, if it did."""
    return _numbers(adata, Obs.total)


def column_totals(adata: AnnData) -> np.ndarray | None:
    """The first column in which scanpy or Seurat wrote totals."""
    found = (_numbers(adata, name) for name in TOTAL_COLUMNS)
    return next((totals for totals in found if totals is not None), None)


def remember_library_sizes(adata: AnnData) -> None:
    """Write the totals of a slide whose ``X`` holds counts of all its genes, so that genes can be taken away later.

    Written are ``obs["spahgc_total_counts"]``, ``var["spahgc_total_counts"]`` (a gene's counts over all spots, by which a
    changed ``X`` is noticed) and ``uns["spahgc"]["library_size"]``. Nothing is written where totals are remembered
    already, where ``X`` is not in memory or holds something else than whole counts, and where other columns tell that
    genes were taken away before.
    """
    counts = adata.X
    if Obs.total in adata.obs or not adata.n_vars or not (issparse(counts) or isinstance(counts, np.ndarray)):
        return
    values = counts.data if issparse(counts) else counts
    if not np.issubdtype(values.dtype, np.number) or not values.size or values.dtype.kind == "c":
        return
    # NaN and infinite values are no whole numbers either.
    if not (np.isfinite(values).all() and values.min() >= 0 and np.array_equal(values, np.rint(values))):
        return
    sums = row_sums(counts)
    if not sums.any() or _lacks_genes(adata, sums):
        return
    adata.obs[Obs.total] = sums
    adata.var[Var.total] = column_sums(counts)
    entries = dict(adata.uns.get(UNS, {}))
    entries[Uns.library_size] = {"n_genes": int(adata.n_vars), "spots": _fingerprint(sums)}
    adata.uns[UNS] = entries


def warn_of_few_genes(adata: AnnData, key: str, label: str, totals: np.ndarray | None) -> None:
    """Say so where a slide holds no more than the genes of a prediction by references that measured many more.

    Parameters
    ----------
    adata
        The slide.
    key
        Key of the prediction.
    label
        How messages call the slide.
    totals
        What :func:`library_sizes` found: where totals are known, nothing is assumed.
    """
    record = adata.uns.get(UNS, {}).get(Uns.predictions, {}).get(key, {})
    measured, panel = record.get(Uns.n_genes_measured), record.get("genes")
    if totals is not None or measured is None or panel is None:
        return
    if adata.n_vars >= int(measured) or not set(adata.var_names) <= {str(gene) for gene in panel}:
        return
    _warn(
        f"{label} holds {adata.n_vars} genes, all of the panel, and its references were measured in {int(measured)} or more. "
        "Assumed: it was measured in these genes alone, and every spot is scaled by their total. If genes were taken away, "
        f'write the totals over all genes into adata.obs["{Obs.total}"].'
    )


def warn_of_other_genes(
    genes: Mapping[str, pd.Index], knows_total: Mapping[str, bool], share_of: Any, label: str = "reference"
) -> None:
    """Say so where slides were measured in so different genes that totals over them cannot be compared.

    Parameters
    ----------
    genes
        Genes of every slide.
    knows_total
        Whether the totals over all genes are known beside those of the genes that are there.
    share_of
        Function of a slide's name and of genes: which share of the counts of that slide they hold.
    label
        How messages call a slide.
    """
    most = max(genes, key=lambda name: len(genes[name]))
    for name, own in genes.items():
        if knows_total[name] or len(own) >= (1 - MAX_MISSING_SHARE) * len(genes[most]):
            continue
        share = share_of(most, own)
        if share < 1 - MAX_MISSING_SHARE:
            _warn(
                f'{label} "{name}" holds {len(own)} genes and "{most}" {len(genes[most])}; the genes of "{name}" have '
                f'{share:.0%} of the counts of "{most}". Assumed: "{name}" was measured in its genes alone, so that its '
                f"expression, scaled by their total, is about {1 / max(share, SUM_TOLERANCE):.2g} times as high. If genes "
                f'were taken away, write the totals over all genes into adata.obs["{Obs.total}"].'
            )


def _numbers(adata: AnnData, column: str) -> np.ndarray | None:
    """A column of finite numbers; ``None`` where it is missing or holds something else."""
    if column not in adata.obs or not pd.api.types.is_numeric_dtype(adata.obs[column]):
        return None
    values = adata.obs[column].to_numpy(dtype=np.float64, na_value=np.nan)
    return values if np.isfinite(values).all() else None


def _why_stale(adata: AnnData, totals: np.ndarray, counts: csr_matrix, sums: np.ndarray, whole: bool) -> str | None:
    """Why remembered totals are not those of the counts, if they are not; empty where nobody need be told."""
    record = adata.uns.get(UNS, {}).get(Uns.library_size, {})
    has_all_genes = int(record.get("n_genes", adata.n_vars + 1)) <= adata.n_vars
    if not whole:
        # Corrected counts of all genes have totals of their own.
        return "" if has_all_genes else "these are no whole numbers, so something was done to them since"
    above = sums > totals * (1 + SUM_TOLERANCE)
    if above.any():
        return f"{int(above.sum())} of {len(sums)} spots have more counts than that"
    if np.array_equal(sums, totals):
        return None
    if has_all_genes:
        return "no gene was taken away, and yet there are fewer counts"
    if Var.total in adata.var and str(record.get("spots", "")) == _fingerprint(totals):
        of_genes = adata.var[Var.total].to_numpy(dtype=np.float64, na_value=np.nan)
        if not np.allclose(column_sums(counts), of_genes, rtol=SUM_TOLERANCE, atol=0):
            return f'the counts of genes differ from var["{Var.total}"]'
    return None


def _fingerprint(totals: np.ndarray) -> str:
    """By which it is known that all spots, and no others, are still there."""
    return digest(totals.astype("<f8").tobytes())


def _totals_of_raw(adata: AnnData, counts: csr_matrix) -> np.ndarray | None:
    """Totals over the genes of ``raw``, where these are more, and the counts of the others the same."""
    raw = adata.raw
    if raw is None or raw.n_vars <= adata.n_vars or not adata.var_names.isin(raw.var_names).all():
        return None
    columns = raw.var_names.get_indexer(adata.var_names)
    whole = as_csr(raw.X)
    if not is_whole(whole) or not np.array_equal(column_sums(whole)[columns], column_sums(counts)):
        return None
    return row_sums(whole)


def _totals_of_column(adata: AnnData, sums: np.ndarray, label: str, whole: bool) -> np.ndarray | None:
    """Totals in a column of scanpy or Seurat, where a good share of them is not there any more."""
    for name in TOTAL_COLUMNS:
        totals = _numbers(adata, name)
        if totals is None or (sums > totals * (1 + SUM_TOLERANCE)).any():
            continue
        share = float(sums.sum() / totals.sum())
        if share >= 1 - MAX_MISSING_SHARE:
            return None
        if whole:
            _warn(
                f'the genes of {label} hold {share:.0%} of the counts that obs["{name}"] names. Assumed: genes were taken '
                f"away, so that every spot is scaled by that column. Remove it if it does not belong to these counts, or "
                f'write the totals over all genes into adata.obs["{Obs.total}"].'
            )
            return totals
        _warn(
            f'{label} holds {share:.0%} of the counts that obs["{name}"] names, and no whole numbers. Assumed: corrected '
            "counts of all genes, every spot scaled by their own total. Remove the column if that is right, or pass "
            "layer= with the counts."
        )
        return None
    return None


def _lacks_genes(adata: AnnData, sums: np.ndarray) -> bool:
    """Whether something tells that genes were taken away: a column of totals, ``raw``, or a prediction of just these."""
    if adata.raw is not None and adata.raw.n_vars > adata.n_vars:
        return True
    for name in TOTAL_COLUMNS:
        totals = _numbers(adata, name)
        if totals is not None and totals.sum() > 0 and sums.sum() < (1 - MAX_MISSING_SHARE) * totals.sum():
            return True
    records = adata.uns.get(UNS, {}).get(Uns.predictions, {})
    genes = set(adata.var_names)
    return any(
        genes <= {str(gene) for gene in record.get("genes", ())}
        and int(record.get(Uns.n_genes_measured, len(genes) + 1)) > len(genes)
        for record in records.values()
        if isinstance(record, Mapping)
    )


def _warn(message: str) -> None:
    warn(message, stacklevel=2)
