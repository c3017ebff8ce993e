"""Several slides in one object: which column tells them apart, and how to notice them where none does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.spatial import cKDTree

from spahgc._keys import SPATIAL, Obs
from spahgc._validate import quoted

SLIDE_COLUMNS = (
    "batch",
    "sample",
    "sample_id",
    "sample_name",
    "section",
    "section_id",
    "slide_id",
    "slide_name",
    "library",
    "orig.ident",
)
"""Columns of ``obs`` that may name the slide of a spot, and may as well name a core of a tissue microarray or a day."""

MANY = 0.1
"""Share of the spots that must lie on others before an object counts as several slides."""

NEAR_OTHERS = 0.5
"""Distance to the nearest spot of another slide, in distances to the nearest one of its own, below which a spot lies on it."""

NEAR_ANY = 0.05
"""Distance to the nearest spot, in distances to the seventh nearest, below which two spots lie on each other."""

N_NEAREST = 7
"""On a hexagonal grid one more than the neighbours of a spot, on a square grid one less."""

MIN_SPOTS = 20
"""Fewer spots are not looked at."""

MAX_LABELS = 100
"""Values of a column beyond which it names no slides."""

MAX_PROBED = 2000
"""Spots, evenly taken, whose neighbours are looked for."""

WRITE_SLIDE = f'adata.obs["{Obs.slide}"] = '


def slide_labels(adata: AnnData, label: str) -> np.ndarray | None:
    """Name of the slide of every spot: ``obs["slide"]``, else ``obs["library_id"]``; ``None`` for a single slide.

    Raises
    ------
    ValueError
        If a slide is not named for every spot, or if there are several slides and neither column tells them apart.
    """
    if Obs.slide in adata.obs:
        return _complete(adata, Obs.slide, label)
    libraries = library_names(adata)
    if Obs.library in adata.obs and (len(libraries) > 1 or adata.obs[Obs.library].nunique(dropna=False) > 1):
        return _complete(adata, Obs.library, label)
    if len(libraries) > 1:
        column = _column_of_libraries(adata, libraries)
        remedy = (
            f'{WRITE_SLIDE}adata.obs["{column}"]'
            if column is not None
            else f"{WRITE_SLIDE}... with the slide of every spot, or keep the library of this slide alone"
        )
        raise ValueError(
            f'{label} holds several slides: uns["{SPATIAL}"] has the libraries {quoted(libraries)}, and obs has neither '
            f'"{Obs.slide}" nor "{Obs.library}". Write {remedy}.'
        )
    refuse_spots_on_each_other(adata, label)
    return None


def library_names(adata: AnnData) -> list[str]:
    """Names of the libraries in ``uns["spatial"]``."""
    libraries = adata.uns.get(SPATIAL)
    return [str(name) for name in libraries] if isinstance(libraries, Mapping) else []


def refuse_spots_on_each_other(adata: AnnData, label: str) -> None:
    """Refuse an object without names of slides whose spots lie on each other, as those of two slides do.

    Looked at are columns that often name the sample, array positions that occur twice, and spots at the same place. Samples
    side by side, as on a tissue microarray, are one slide, as are sections that were registered into one plane.
    """
    xy = np.asarray(adata.obsm.get(SPATIAL, ()))
    if xy.ndim != 2 or len(xy) < MIN_SPOTS or xy.shape[1] != 2 or xy.dtype.kind not in "iuf":
        return
    if not np.isfinite(xy).all():
        return  # said elsewhere, in better words
    xy = xy.astype(np.float64)
    for column in (name for name in SLIDE_COLUMNS if name in adata.obs):
        codes, names = pd.factorize(adata.obs[column])
        if 2 <= len(names) <= MAX_LABELS and _share_on_others(xy, codes) >= MANY:
            raise ValueError(
                f'{label} holds several slides: the spots of {quoted(names)}, by obs["{column}"], lie on each other, and '
                f'obs has neither "{Obs.slide}" nor "{Obs.library}". Write {WRITE_SLIDE}adata.obs["{column}"] if it names '
                "the slides."
            )
    repeated = _repeated_positions(adata)
    if repeated is not None and _share_on_others(xy, repeated) >= MANY:
        raise ValueError(
            f"{label} seems to hold several slides: {int((repeated > 0).sum())} of {len(xy)} spots have the array position "
            f'(obs["{Obs.array_row}"], obs["{Obs.array_col}"]) of another, and they lie on each other. Write '
            f"{WRITE_SLIDE}... with the slide of every spot, or pass the slides one by one."
        )
    share = _share_on_any(xy)
    if share >= MANY:
        raise ValueError(
            f"{label} seems to hold several slides: {share:.0%} of its {len(xy)} spots lie on another one. Write "
            f"{WRITE_SLIDE}... with the slide of every spot, or pass the slides one by one; of one slide, remove the spots "
            "that occur twice."
        )


def _complete(adata: AnnData, name: str, label: str) -> np.ndarray:
    """A column of names; refuses empty ones."""
    column = adata.obs[name]
    if column.isna().any():
        raise ValueError(
            f'obs["{name}"] of {label} is empty for {int(column.isna().sum())} of '
            f"{adata.n_obs} spots. Name the slide of every spot."
        )
    return np.asarray(column.astype(str).to_numpy())


def _column_of_libraries(adata: AnnData, libraries: list[str]) -> str | None:
    """The column whose values are libraries, else the first that may name slides."""
    for name in adata.obs.columns:
        column = adata.obs[name]
        if not pd.api.types.is_float_dtype(column) and set(column.dropna().astype(str).unique()) <= set(libraries):
            return str(name)
    return next((name for name in SLIDE_COLUMNS if name in adata.obs and adata.obs[name].nunique() > 1), None)


def _repeated_positions(adata: AnnData) -> np.ndarray | None:
    """How many spots before each one have its array position; ``None`` where hardly any has."""
    columns = [Obs.array_row, Obs.array_col]
    if not set(columns) <= set(adata.obs.columns) or adata.obs[columns].isna().any(axis=None):
        return None
    before = adata.obs[columns].astype(str).groupby(columns, sort=False).cumcount().to_numpy()
    return before if np.mean(before > 0) >= MANY else None


def _share_on_others(xy: np.ndarray, codes: np.ndarray) -> float:
    """Share of the spots that lie on a spot of another label."""
    n_near, n_probed = 0.0, 0
    for code in np.unique(codes[codes >= 0]):
        own, others = xy[codes == code], xy[(codes != code) & (codes >= 0)]
        n_probed += len(own)
        low, high = own.min(axis=0), own.max(axis=0)
        others = others[((others >= low) & (others <= high)).all(axis=1)]
        if len(own) < 2 or not len(others):
            continue
        probed = _evenly(own)
        spacing = np.median(cKDTree(own).query(probed, k=2)[0][:, 1])
        near = cKDTree(others).query(probed, k=1)[0] <= NEAR_OTHERS * spacing
        n_near += float(near.mean()) * len(own)
    return n_near / max(1, n_probed)


def _share_on_any(xy: np.ndarray) -> float:
    """Share of the spots that lie on any other."""
    distances = cKDTree(xy).query(_evenly(xy), k=N_NEAREST + 1)[0]
    return float(np.mean(distances[:, 1] <= NEAR_ANY * distances[:, N_NEAREST]))


def _evenly(xy: np.ndarray) -> np.ndarray:
    return xy[np.linspace(0, len(xy) - 1, min(len(xy), MAX_PROBED)).astype(np.int64)]
