"""How many microns a pixel of a slide is wide: everything that may tell it, in one order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spahgc._keys import SPATIAL, UNS, Obs, Uns
from spahgc._slides.library import Library, find_library
from spahgc._validate import check_coordinates
from spahgc.image._mpp import implausible, is_plausible

if TYPE_CHECKING:
    from anndata import AnnData

    from spahgc.image import ImageSource

VISIUM_PITCH_UM = 100.0
"""Distance of a Visium spot to its six neighbours."""
MIN_GRID_PAIRS = 10
"""Pairs of neighbours below which an array is not recognised as Visium's."""
HEXAGON_TOLERANCE = 0.15
"""Relative difference of the two kinds of neighbours on a hexagonal array; on a square one it is 0.29."""
MAX_CONTRADICTION = 1.5
"""Factor between two resolutions of one slide above which one of them must be wrong."""
MAX_SPOT_OF_PITCH = 0.8
"""Diameter of a Visium spot over the pitch of the array above which the two are not in the same unit.

Space Ranger writes a diameter of 65 um for spots 100 um apart, others the true one of 55 um. A pixel of 0.8 um and less
comes out larger where the coordinates are in microns and the diameter is in pixels."""
SAME_PITCH = 0.05
"""Relative difference of the pitch from 100 below which coordinates are microns."""
MPP_FACTOR, DIAMETER_FACTOR = "microns_per_pixel", "spot_diameter_fullres"
"""Scale factors of a library."""


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

    The first of these that is known counts:

    1. the argument `mpp`;
    2. what a SpatialData says of its image, `element_mpp`;
    3. the scale factor `microns_per_pixel` of the slide's library in ``uns["spatial"]``;
    4. ``uns["spahgc"]["slide_mpp"]``, which a reader or an earlier embedding wrote;
    5. what the image file says (before 4 with `other_image`);
    6. the pitch of Visium's array, 100 um.

    Parameters
    ----------
    adata
        One slide, with spot centres in ``obsm["spatial"]``.
    mpp
        Microns per pixel, if the user knows them.
    image
        The full-resolution image.
    other_image
        The image was passed, and may be another one than ``uns["spahgc"]`` is about.
    element_mpp
        Microns per pixel of an image of a SpatialData, if it says so.
    xy
        Spot centres (x, y) on an image of a SpatialData, pixels; that image need not be the one of which the table's
        own entries (3 and 4) and coordinates tell. ``None`` takes ``obsm["spatial"]``.

    Returns
    -------
    Microns per pixel, or ``None`` if nothing tells.

    Raises
    ------
    ValueError
        If the resolution is not a number from 0.1 to 20, contradicts the pitch of Visium's array by more than 1.5 times, or
        Visium's spots would touch, as the diameter in the scale factors and the pitch say.

    Examples
    --------
    >>> import spahgc as sp
    >>> from spahgc._slides.resolution import slide_mpp
    >>> (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide_mpp(slide)
    0.8
    """
    by_pitch = _visium_mpp(adata, xy)
    written_or_file = [
        (f'uns["{UNS}"]["{Uns.slide_mpp}"]', noted_mpp(adata) if xy is None else None),
        ("the image file's resolution", None if image is None else image.mpp),
    ]
    candidates = [
        ("mpp=", mpp),
        ("the image of the SpatialData", element_mpp),
        (f'uns["{SPATIAL}"] scale factor {MPP_FACTOR}', _scale_factor(find_library(adata)) if xy is None else None),
        *(reversed(written_or_file) if other_image else written_or_file),
        ("the pitch of the array", by_pitch),
    ]
    source, resolution = next(((name, float(value)) for name, value in candidates if value is not None), ("", None))
    if resolution is None:
        return None
    if not (np.isfinite(resolution) and resolution > 0):
        raise ValueError(f"{source} is {resolution} microns per pixel; pass mpp= with a positive number, e.g. mpp=0.5")
    if not is_plausible(resolution):
        raise ValueError(
            f"{source} says {resolution:.4g} um per pixel, which {implausible()} Pass mpp= with the right one."
        )
    if by_pitch is not None and max(resolution / by_pitch, by_pitch / resolution) > MAX_CONTRADICTION:
        raise ValueError(
            f"{source} says {resolution:.4g} um per pixel, but neighbouring spots of the Visium array, "
            f"{VISIUM_PITCH_UM:g} um apart, lie {VISIUM_PITCH_UM / by_pitch:.1f} px apart, which makes {by_pitch:.4g} um "
            f'per pixel. Either obsm["{SPATIAL}"] is not in pixels of the full-resolution image (divide by the scale '
            "factor), or the resolution is wrong (pass mpp=). If the array is not Visium's, remove obs columns "
            f"{Obs.array_row} and {Obs.array_col}."
        )
    if by_pitch is not None and xy is None:
        refuse_touching_spots(_diameter_px(find_library(adata)), VISIUM_PITCH_UM / by_pitch, f'obsm["{SPATIAL}"]')
    return resolution


def refuse_touching_spots(diameter_px: float | None, pitch_px: float, where: str) -> None:
    """Refuse coordinates of a Visium array in another unit than the diameter of its spots, microns for example.

    Parameters
    ----------
    diameter_px
        Diameter of a spot as the scale factors have it, pixels of the full-resolution image; ``None``: not known.
    pitch_px
        Distance of neighbouring spots, in the unit of the coordinates.
    where
        What messages call the coordinates.
    """
    if diameter_px is None or not diameter_px > MAX_SPOT_OF_PITCH * pitch_px:
        return
    microns = " The coordinates look like microns." if abs(pitch_px / VISIUM_PITCH_UM - 1) < SAME_PITCH else ""
    raise ValueError(
        f"{where} and the scale factors contradict each other: neighbouring spots of the Visium array lie {pitch_px:.1f} "
        f"apart, but {DIAMETER_FACTOR} is {diameter_px:.1f}, so that the spots, 55 um wide and {VISIUM_PITCH_UM:g} um apart, "
        f"would touch.{microns} Coordinates must be pixels of the full-resolution image; correct them, or the scale factor."
    )


def _diameter_px(library: Library | None) -> float | None:
    value = None if library is None else library.scale_factors.get(DIAMETER_FACTOR)
    return None if value is None else float(value)


def recorded_mpp(adata: AnnData, library: Library | None) -> float | None:
    """What the object itself says, 3 and 4 of :func:`slide_mpp`; what no microscope can have made is passed over."""
    for value in (_scale_factor(library), noted_mpp(adata)):
        if value is not None and is_plausible(value):
            return value
    return None


def known_mpp(adata: AnnData) -> float | None:
    """What the object itself says, or else the pitch of Visium's array, where these are needed for distances alone.

    Nothing is refused: what no microscope can have made, or what several slides in one object leave open, counts as not known.
    """
    try:
        library = find_library(adata)
    except ValueError:  # several libraries of which none is named
        library = None
    found = recorded_mpp(adata, library) or _visium_mpp(adata, None)
    return found if found is not None and is_plausible(found) else None


def noted_mpp(adata: AnnData) -> float | None:
    """What a reader or an earlier embedding wrote into ``uns["spahgc"]["slide_mpp"]``."""
    value = adata.uns.get(UNS, {}).get(Uns.slide_mpp)
    return None if value is None else float(value)


def _scale_factor(library: Library | None) -> float | None:
    value = None if library is None else library.scale_factors.get(MPP_FACTOR)
    return None if value is None else float(value)


def _visium_mpp(adata: AnnData, xy: NDArray[np.float64] | None) -> float | None:
    """Microns per pixel from the pitch of the array, if it is Visium's: hexagonal, row + column even everywhere."""
    if Obs.array_row not in adata.obs or Obs.array_col not in adata.obs:
        return None
    grid = adata.obs[[Obs.array_row, Obs.array_col]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if not np.isfinite(grid).all() or (grid != np.round(grid)).any() or (grid.sum(1) % 2 != 0).any():
        return None
    positions = pd.MultiIndex.from_arrays(grid.astype(np.int64).T)
    if not positions.is_unique:
        return None
    xy = check_coordinates(adata, "the slide") if xy is None else xy
    within, across = _distances(positions, xy, (0, 2)), _distances(positions, xy, (1, 1))
    if min(len(within), len(across)) < MIN_GRID_PAIRS:
        return None
    pitch = float(np.median(within))
    # A square array of which every other spot is left passes the test of parity, but not this one.
    if pitch <= 0 or abs(float(np.median(across)) / pitch - 1) > HEXAGON_TOLERANCE:
        return None
    return VISIUM_PITCH_UM / pitch


def _distances(positions: pd.MultiIndex, xy: NDArray[np.float64], step: tuple[int, int]) -> NDArray[np.float64]:
    """Pixel distances of all pairs of spots that lie one step (rows, columns) apart on the array."""
    shifted = pd.MultiIndex.from_arrays([positions.get_level_values(axis) + step[axis] for axis in (0, 1)])
    partner = positions.get_indexer(shifted)
    has_partner = partner >= 0
    return np.asarray(np.linalg.norm(xy[partner[has_partner]] - xy[has_partner], axis=1))
