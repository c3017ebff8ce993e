"""What a bank must hold, wherever it was read from: its record, and arrays that fit to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import issparse

from spahgc._keys import SPATIAL, UNS, Obs, Obsm, Obsp, Uns
from spahgc._reading import broken_matrix
from spahgc.pp._bank.coverage import broken_coverage

RECORD = {"slides": list, "embedding": str, "n_neighbors": int, "units": str, "transcriptome": list}
"""Entries of the record of a bank; files make arrays of the lists."""


def joined_obs(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """What is known of all spots of a bank: their slides, and their patients where every slide names one."""
    obs = pd.concat(parts).astype({Obs.slide: str}).astype({Obs.slide: "category"})
    if not all(Obs.patient in part for part in parts):
        return obs.drop(columns=Obs.patient, errors="ignore")
    return obs.astype({Obs.patient: str}).astype({Obs.patient: "category"})


def broken_bank(bank: AnnData) -> str | None:
    """What is wrong with a bank, if something is. What lies on disk is not read: only its shape is looked at.

    Parameters
    ----------
    bank
        What a file gave.

    Returns
    -------
    A clause for a message, or ``None``.
    """
    record = _record(bank)
    if record is None:
        return "it has no record of a bank"
    problem = _broken_record(record)
    if problem is not None:
        return problem
    for names, kind in ((bank.obs_names, "spots"), (bank.var_names, "genes")):
        if not names.is_unique:
            return f'names of {kind} occur more than once, such as "{names[names.duplicated()][0]}"'
    if 0 in bank.shape:
        return f"it has {bank.n_obs} spots and {bank.n_vars} genes"
    if Obs.slide not in bank.obs or bank.obs[Obs.slide].isna().any():
        return f'obs["{Obs.slide}"] does not name the slide of every spot'
    return (
        broken_matrix(bank)
        or broken_coverage(bank, record)
        or _broken_arrays(bank, str(record["embedding"]), len(record["transcriptome"]))
    )


def _record(bank: AnnData) -> Mapping[str, Any] | None:
    ours = bank.uns.get(UNS)
    record = ours.get(Uns.bank) if isinstance(ours, Mapping) else None
    return record if isinstance(record, Mapping) else None


def _broken_record(record: Mapping[str, Any]) -> str | None:
    for name, kind in RECORD.items():
        value = record.get(name)
        plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        if not isinstance(plain, kind) or isinstance(plain, bool):
            return f'its record has no {kind.__name__} under "{name}"'
    if not all(isinstance(name, str) for entry in ("slides", "transcriptome") for name in record[entry]):
        return "its record names slides or genes that are no texts"
    return None


def _broken_arrays(bank: AnnData, key: str, n_transcriptome: int) -> str | None:
    expected = {
        "X": (bank.X, bank.n_vars),
        f'obsm["{key}"]': (bank.obsm.get(key), None),
        f'obsm["{SPATIAL}"]': (bank.obsm.get(SPATIAL), 2),
        f'obsm["{Obsm.transcriptome}"]': (bank.obsm.get(Obsm.transcriptome), n_transcriptome),
    }
    if Obsp.reference_connectivities in bank.obsp:
        expected[f'obsp["{Obsp.reference_connectivities}"]'] = bank.obsp[Obsp.reference_connectivities], bank.n_obs
    for name, (array, width) in expected.items():
        shape: tuple[int, ...] = getattr(array, "shape", ())
        if len(shape) != 2 or width not in (None, shape[1]):
            found = "is missing" if array is None else f"has shape {tuple(shape)}"
            return f"{name} {found}, expected are {bank.n_obs} spots x {'dim' if width is None else width}"
        if np.dtype(array.dtype).kind not in "fiu":
            return f"{name} holds no numbers, its type is {array.dtype}"
        values = array.data if issparse(array) else array
        if isinstance(values, np.ndarray) and not np.isfinite(values).all():
            return f"{name} has NaN or infinite numbers"
    return None
