"""Whether x and y of the spots have changed places: the array tells by the turn of its axes, the picture by its tissue."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spahgc._keys import Obs
from spahgc._logging import warn
from spahgc.image import ImageSource, thumbnail
from spahgc.image._levels import at_level

if TYPE_CHECKING:
    from anndata import AnnData

MIN_FIT = 0.98
"""Share of the variance of the coordinates that the position on the array must explain, else it is no array."""
PICTURE_PX = 256
"""Longest side of the picture in which tissue is looked for."""
RIM = 0.02
"""Width of the rim of the picture whose brightness counts as that of the glass, as a share of its sides."""
MIN_GAIN = 0.25
"""Standard deviations of the picture's darkness by which one reading of the coordinates must lie better on the tissue."""
MAX_PICTURE_PIXELS = 128 * 10**6
"""Pixels that are read, at most, to make that picture."""


class Axes(Enum):
    """How the axes of the array lie in the image."""

    TURNED = "turned"
    """As they are, or turned by any angle: nothing is wrong."""
    MIRRORED = "mirrored"
    """Columns along x and rows along y, one of them backwards: inverted microscopes and Visium HD give that."""
    TRANSPOSED = "transposed"
    """Columns along y and rows along x: what swapped coordinates look like."""


def array_axes(grid: NDArray[np.float64], xy: NDArray[np.float64]) -> Axes | None:
    """Tell how the axes of the array lie in the image, where y runs downwards; ``None`` where the spots do not tell.

    Parameters
    ----------
    grid
        Columns and rows on the array, spots x 2.
    xy
        Spot centres (x, y), spots x 2, pixels.
    """
    known = np.isfinite(grid).all(axis=1) & np.isfinite(xy).all(axis=1)
    design = np.column_stack([grid[known], np.ones(int(known.sum()))])
    if len(design) <= design.shape[1] or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    fit, *_ = np.linalg.lstsq(design, xy[known], rcond=None)
    left = ((xy[known] - design @ fit) ** 2).sum()
    if left > (1 - MIN_FIT) * ((xy[known] - xy[known].mean(axis=0)) ** 2).sum():
        return None
    column, row = fit[:2]
    if column[0] * row[1] - column[1] * row[0] >= 0:
        return Axes.TURNED
    return Axes.TRANSPOSED if abs(column[1]) > abs(column[0]) else Axes.MIRRORED


def refuse_swapped(
    adata: AnnData, xy: NDArray[np.float64], image: ImageSource | None, scale: float, label: str
) -> None:
    """Refuse coordinates whose x and y have changed places.

    A swap mirrors the array, which no rotation of the slide does. Some microscopes do, so that the picture decides:
    coordinates are refused if the spots lie clearly better on the tissue with x and y swapped.

    Parameters
    ----------
    adata
        The slide, with the position of its spots on the array in ``obs``; without it nothing is checked.
    xy
        Spot centres (x, y), spots x 2, pixels of the full-resolution image.
    image
        The image or its reduced version; ``None`` where there is none.
    scale
        Pixels of `image` for one of the full-resolution image.
    label
        What messages call the slide.

    Raises
    ------
    ValueError
        If array and picture both say so.

    Warns
    -----
    UserWarning
        If the array says so, its columns running along y, and no picture tells.
    """
    if Obs.array_row not in adata.obs or Obs.array_col not in adata.obs:
        return
    grid = adata.obs[[Obs.array_col, Obs.array_row]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    axes = array_axes(grid, xy)
    if axes is None or axes is Axes.TURNED:
        return
    gain = None if image is None else gain_by_swapping(image, xy * scale)
    found = f"the columns of the array run along {'y' if axes is Axes.TRANSPOSED else 'x'}, and the array is mirrored"
    remedy = (
        'If they are, swap them: adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1], or exchange the columns of the '
        "table of positions."
    )
    if gain is not None and gain > MIN_GAIN:
        raise ValueError(
            f"x and y of the spots of {label} are swapped: {found}, and with x and y swapped the spots lie on the tissue. "
            f"Coordinates are (x, y), not (row, column). {remedy}"
        )
    if axes is Axes.TRANSPOSED and (gain is None or gain > -MIN_GAIN):
        warn(
            f"x and y of the spots of {label} may be swapped: {found}, which no turn of a slide explains, and the image "
            f"does not tell. {remedy}",
            stacklevel=3,
        )


def gain_by_swapping(image: ImageSource, xy: NDArray[np.float64]) -> float | None:
    """How much more tissue lies under the spots with x and y swapped, in standard deviations; ``None``: not known."""
    source = at_level(image, max(image.height, image.width) / PICTURE_PX)
    if source.height * source.width > MAX_PICTURE_PIXELS:
        return None
    small, scale = thumbnail(image, PICTURE_PX)
    grey = small.mean(axis=2)
    rim = max(1, round(RIM * min(grey.shape)))
    inside = grey[rim:-rim, rim:-rim]
    edges = (grey[:rim], grey[-rim:], grey[:, :rim], grey[:, -rim:])
    glass = np.median(np.concatenate([edge.ravel() for edge in edges]))
    if not inside.size or inside.std() == 0:
        return None
    tissue = np.abs(grey - glass)
    x, y = np.floor(xy * scale).astype(np.int64).T
    height, width = grey.shape
    if min(x.min(), y.min()) < 0 or max(x.max(), y.max()) > min(height, width):
        return -np.inf  # swapped they would lie outside the image, so they have not been swapped
    rows, columns = np.minimum(y, height - 1), np.minimum(x, width - 1)
    swapped_rows, swapped_columns = np.minimum(x, height - 1), np.minimum(y, width - 1)
    return float((tissue[swapped_rows, swapped_columns].mean() - tissue[rows, columns].mean()) / tissue.std())
