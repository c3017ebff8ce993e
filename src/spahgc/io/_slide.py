"""Any whole-slide image as spots that were not measured."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from spahgc._keys import UNS, Obs, Uns
from spahgc._logging import warn
from spahgc._spots.pitch import SPOT_OF_PITCH, spot_pitch
from spahgc._validate import check_unique, quoted, user_path
from spahgc.image import ImageSource, describe_outside, open_image, thumbnail
from spahgc.image._brightfield import check_brightfield
from spahgc.image._mpp import check_mpp
from spahgc.io._tiles import (
    THUMBNAIL_PX,
    TileOptions,
    known_mpp,
    slide_without_genes,
    tiled,
    write_tiled_library,
)
from spahgc.io._write_library import library_name

COORDINATES = ("x", "y")
LONE_SPOT_PX = 100.0
"""Diameter at which a spot without neighbours is drawn where the resolution is not known."""


def slide(
    path: str | os.PathLike[str],
    *,
    spots: pd.DataFrame | ArrayLike | None = None,
    mpp: float | None = None,
    spacing_um: float = 100.0,
    spot_um: float | None = None,
    layout: str = "hexagonal",
    min_tissue: float = 0.5,
    threshold: float | None = None,
    exclude_pen: bool = True,
    focus: bool = True,
    library_id: str | None = None,
) -> AnnData:
    """Read a whole-slide image that was not measured: at given spots, or at a grid of pseudo-spots on its tissue.

    Parameters
    ----------
    path
        The image at full resolution, any file that :func:`spahgc.image.open_image` opens.
    spots
        Spot centres, pixels of the full-resolution image: a table with the columns x and y, whose index names the
        spots and whose other columns go into ``obs``, or an array of spots x 2, (x, y). ``None`` finds the tissue and
        lays a grid over it, as :func:`spahgc.pp.tile` does.
    mpp
        Microns per pixel, 0.1 to 20; ``None`` takes what the file says. A grid needs it.
    spacing_um
        Distance of neighbours of the grid, microns; without effect where spots are given.
    spot_um
        Diameter of the spots, microns; ``None`` takes 0.55 of the spacing (of given spots: of the median distance to
        the nearest one).
    layout, min_tissue, threshold, exclude_pen, focus
        The grid, see :func:`spahgc.pp.tile`; without effect where spots are given.
    library_id
        Name of the slide; ``None`` takes the image's file name without its ending.

    Returns
    -------
    Spots x 0 genes, as :func:`spahgc.pp.tile` describes them. Given spots keep their order, and have neither a place on
    an array nor `tissue_fraction`, `focus` and a record of tiles.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `path` is no path.
    ValueError
        If the file is no image, the resolution is needed and not known, no tissue is found, or the spots are not
        finite, not on the image, named twice, or in a table without x and y.

    See Also
    --------
    spahgc.pp.tile : the same for an image that is not in a file.
    spahgc.pp.embed : embeds what lies around the spots.

    Examples
    --------
    >>> import spahgc as sp
    >>> adata = sp.io.slide("case_7.svs", spacing_um=100)  # doctest: +SKIP
    >>> adata = sp.io.slide("case_7.svs", spots=table)  # doctest: +SKIP
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"path is of type {type(path).__name__}; pass the path of an image file. An image that is in memory goes to "
            "spahgc.pp.tile(image, mpp=...)."
        )
    options = TileOptions(spacing_um, spot_um, layout, min_tissue, threshold, exclude_pen, focus)
    check_mpp("mpp", mpp)
    file = user_path(path, "path").absolute()
    name = library_name(library_id, file)
    with open_image(file) as image:
        if spots is None:
            return tiled(image, name, file, known_mpp(image, mpp, f'slide "{name}"'), options)
        return at_spots(image, name, file, spot_table(spots), resolution_of(image, name, mpp), spot_um)


def resolution_of(image: ImageSource, name: str, mpp: float | None) -> float | None:
    """Microns per pixel: the argument, else what the image says; ``None``, with a warning, where it contradicts itself."""
    resolution = image.mpp if mpp is None else float(mpp)
    problem = getattr(image, "mpp_problem", None)
    if resolution is None and problem is not None:
        warn(
            f'the resolution of slide "{name}" is taken as not known: {problem}. Pass mpp= with its microns per pixel.',
            stacklevel=3,
        )
    return resolution


def at_spots(
    image: ImageSource, name: str, path: Path | None, table: pd.DataFrame, mpp: float | None, spot_um: float | None
) -> AnnData:
    """Make the AnnData of a slide with spots of its own."""
    xy = table[list(COORDINATES)].to_numpy(np.float64)
    outside = describe_outside(xy, height=image.height, width=image.width)
    if outside is not None:
        raise ValueError(f'slide "{name}": {outside}')
    if spot_um is not None and mpp is None:
        raise ValueError(
            f'spot_um={spot_um:g} cannot be turned into pixels: the resolution of slide "{name}" is not known. Pass mpp= '
            "with its microns per pixel, or leave spot_um out."
        )
    small, scale = thumbnail(image, THUMBNAIL_PX)
    check_brightfield(small, f'slide "{name}"')
    columns: dict[Hashable, np.ndarray] = {
        column: table[column].to_numpy() for column in table if column not in COORDINATES
    }
    columns.pop(Obs.slide, None)  # this slide has one name, that of its library
    adata = slide_without_genes(xy, [str(spot) for spot in table.index], columns)
    diameter_px = _diameter_px(xy) if spot_um is None or mpp is None else spot_um / mpp
    write_tiled_library(adata, name, small, scale, image, path, diameter_px, mpp)
    if mpp is not None:
        adata.uns[UNS] = {Uns.slide_mpp: mpp}
    return adata


def spot_table(spots: pd.DataFrame | ArrayLike, label: str = "spots") -> pd.DataFrame:
    """Bring the spots into a table with x and y, named; refuses what has no positions."""
    if isinstance(spots, pd.DataFrame):
        missing = [column for column in COORDINATES if column not in spots]
        if missing:
            raise ValueError(
                f"{label} has no column {quoted(missing)}; its columns are {quoted(spots.columns)}. Rename those with the "
                f'centres in full-resolution pixels, e.g. {label}.rename(columns={{"pxl_col_in_fullres": "x", '
                '"pxl_row_in_fullres": "y"}): x is the column of the image, y its row.'
            )
        table = spots.copy()
    else:
        array = np.asarray(spots)
        if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iuf":
            axes = (
                " A slide has two axes: of 3-D points pass (x, y)." if array.ndim == 2 and array.shape[1] == 3 else ""
            )
            raise ValueError(
                f"{label} is an array of shape {array.shape} and type {array.dtype}; pass numbers of shape spots x 2, "
                f"(x, y) in full-resolution pixels, or a table with the columns x and y.{axes}"
            )
        table = pd.DataFrame(array, columns=list(COORDINATES), index=[f"spot_{i}" for i in range(len(array))])
    if table.empty:
        raise ValueError(f"{label} has no rows. Pass at least one position, or a grid on the tissue.")
    table.index = table.index.astype(str)
    check_unique(table.index, f"{label}: names (the index)", f"{label}.reset_index(drop=True)")
    xy: NDArray[np.float64] = table[list(COORDINATES)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    broken = np.asarray(~np.isfinite(xy).all(axis=1))
    if broken.any():
        raise ValueError(
            f"{int(broken.sum())} of {len(table)} {label} have no finite x and y ({quoted(table.index[broken])}). Remove "
            "them, or give them a position."
        )
    return table.assign(**dict(zip(COORDINATES, xy.T, strict=True)))


def _diameter_px(xy: NDArray[np.float64]) -> float:
    """Diameter of spots of which only the centres are known."""
    pitch = spot_pitch(xy)
    return LONE_SPOT_PX if pitch is None else SPOT_OF_PITCH * pitch
