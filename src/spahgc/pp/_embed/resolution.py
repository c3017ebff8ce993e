"""How many microns a pixel of a slide is wide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from spahgc._keys import SPATIAL, UNS, Obs, Uns
from spahgc._validate import check_coordinates, quoted
from spahgc.image import ImageSource

VISIUM_PITCH_UM = 100.0
"""Distance of a Visium spot to its six neighbours."""
MIN_GRID_PAIRS = 10
"""Pairs of neighbours below which an array is not recognised as Visium's."""
HEXAGON_TOLERANCE = 0.15
"""Relative difference of the two kinds of neighbours on a hexagonal array; on a square one it is 0.29."""
MAX_CONTRADICTION = 1.5
"""Factor between two resolutions of one slide above which one of them must be wrong."""
SCALE_FACTORS = "scalefactors"
MPP_FACTOR = "microns_per_pixel"
LIBRARY_COLUMNS = (Obs.slide, "library_id")
"""Columns of ``obs`` that may name the slide's entry of ``uns["spatial"]``."""


def slide_mpp(
    adata: AnnData,
    *,
    mpp: float | None = None,
    image: ImageSource | None = None,
    other_image: bool = False,
    element_mpp: float | None = None,
    xy: NDArray[np.float64] | None = None,
) -> float | None:
    """Find the resolution of a slide's full-resolution image.

    The first that is known counts: the argument, what a SpatialData says of its image, the scale factor
    `microns_per_pixel`, what a reader or an earlier embedding noted, what the image file says, the pitch of Visium's
    array.

    Parameters
    ----------
    adata
        One slide, with spot centres in ``obsm["spatial"]``.
    mpp
        Microns per pixel, if the user knows them.
    image
        The full-resolution image.
    other_image
        The image was passed, and may be another one than the slide's note is about: then its file comes first.
    element_mpp
        Microns per pixel of an image of a SpatialData, if it says so.
    xy
        Spot centres (x, y) on an image of a SpatialData, pixels; that image need not be the one of which the table's
        own scale factors and coordinates tell. ``None`` takes ``obsm["spatial"]``.

    Returns
    -------
    Microns per pixel, or ``None`` if nothing tells.

    Raises
    ------
    ValueError
        If the resolution is not a positive number, or contradicts the pitch of Visium's array by more than 1.5 times.

    Examples
    --------
    >>> import spahgc as sp
    >>> from spahgc.pp._embed.resolution import slide_mpp
    >>> (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide_mpp(slide)
    0.8
    """
    grid = _visium_mpp(adata, xy)
    notes = [
        (f'uns["{UNS}"]["{Uns.slide_mpp}"]', adata.uns.get(UNS, {}).get(Uns.slide_mpp) if xy is None else None),
        ("the image file's resolution", None if image is None else image.mpp),
    ]
    candidates = [
        ("mpp=", mpp),
        ("the image of the SpatialData", element_mpp),
        (f'uns["{SPATIAL}"] scale factor {MPP_FACTOR}', _scale_factor(adata) if xy is None else None),
        *(reversed(notes) if other_image else notes),
        ("the pitch of the array", grid),
    ]
    source, found = next((candidate for candidate in candidates if candidate[1] is not None), ("", None))
    if found is None:
        return None
    found = float(found)
    if not (np.isfinite(found) and found > 0):
        raise ValueError(f"{source} is {found} microns per pixel; pass mpp= with a positive number, e.g. mpp=0.5")
    if grid is not None and max(found / grid, grid / found) > MAX_CONTRADICTION:
        raise ValueError(
            f"{source} says {found:.4g} um per pixel, but neighbouring spots of the Visium array, {VISIUM_PITCH_UM:g} um "
            f"apart, lie {VISIUM_PITCH_UM / grid:.1f} px apart, which makes {grid:.4g} um per pixel. Either "
            f'obsm["{SPATIAL}"] is not in pixels of the full-resolution image (divide by the scale factor), or the '
            f"resolution is wrong (pass mpp=). If the array is not Visium's, remove obs columns {Obs.array_row} and "
            f"{Obs.array_col}."
        )
    return found


def library(adata: AnnData) -> tuple[str, Mapping[str, Any]] | None:
    """Find the slide's entry of ``uns["spatial"]``: its name and its record, if there is one.

    Raises
    ------
    ValueError
        If there are several and ``obs`` does not say which one it is.
    """
    records = adata.uns.get(SPATIAL)
    if not isinstance(records, Mapping) or not records:
        return None
    if len(records) == 1:
        ((name, record),) = records.items()
        return str(name), record
    for column in LIBRARY_COLUMNS:
        names = adata.obs[column].unique() if column in adata.obs else []
        if len(names) == 1 and names[0] in records:
            return str(names[0]), records[names[0]]
    raise ValueError(
        f'uns["{SPATIAL}"] holds {len(records)} slides ({quoted(records)}), and obs does not say which one this is. '
        f'Keep one of them, or write its name into adata.obs["{Obs.slide}"].'
    )


def _scale_factor(adata: AnnData) -> float | None:
    found = library(adata)
    value = None if found is None else found[1].get(SCALE_FACTORS, {}).get(MPP_FACTOR)
    return None if value is None else float(value)


def _visium_mpp(adata: AnnData, xy: NDArray[np.float64] | None) -> float | None:
    """Microns per pixel from the pitch of the array, if it is Visium's: hexagonal, row + column even everywhere."""
    if Obs.array_row not in adata.obs or Obs.array_col not in adata.obs:
        return None
    grid = adata.obs[[Obs.array_row, Obs.array_col]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if not np.isfinite(grid).all() or (grid != np.round(grid)).any() or (grid.sum(1) % 2 != 0).any():
        return None
    places = pd.MultiIndex.from_arrays(grid.astype(np.int64).T)
    if not places.is_unique:
        return None
    xy = check_coordinates(adata, "the slide") if xy is None else xy
    within, across = _distances(places, xy, (0, 2)), _distances(places, xy, (1, 1))
    if min(len(within), len(across)) < MIN_GRID_PAIRS:
        return None
    pitch = float(np.median(within))
    # A square array of which every other spot is left passes the test of parity, but not this one.
    if pitch <= 0 or abs(float(np.median(across)) / pitch - 1) > HEXAGON_TOLERANCE:
        return None
    return VISIUM_PITCH_UM / pitch


def _distances(places: pd.MultiIndex, xy: NDArray[np.float64], step: tuple[int, int]) -> NDArray[np.float64]:
    """Pixel distances of all pairs of spots that lie one step (rows, columns) apart on the array."""
    shifted = pd.MultiIndex.from_arrays([places.get_level_values(axis) + step[axis] for axis in (0, 1)])
    partner = places.get_indexer(shifted)
    found = partner >= 0
    return np.asarray(np.linalg.norm(xy[partner[found]] - xy[found], axis=1))
