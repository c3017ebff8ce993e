"""Regular positions on a slide, and how much of each is tissue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LAYOUTS = ("hexagonal", "square")
MAX_POSITIONS = 10_000_000
"""Positions on a slide above which the spacing must be a mistake: they would be 2.5 um apart on a square of 8 mm."""
SAMPLES = 16
"""Points across the diameter of a spot at which the mask is read."""
CHUNK = 50_000
"""Spots whose points are looked up at once."""


@dataclass(frozen=True)
class Grid:
    """Positions on a regular lattice.

    Parameters
    ----------
    xy
        Centres (x, y), positions x 2, pixels.
    row, col
        Their indices. On a hexagonal lattice neighbours in a row lie two columns apart, rows are shifted by one in
        turn, and row + column is odd.
    """

    xy: NDArray[np.float64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Grid:
        return Grid(self.xy[chosen], self.row[chosen], self.col[chosen])

    def __len__(self) -> int:
        return len(self.xy)


def lattice(height: int, width: int, *, spacing_px: float, layout: str = "hexagonal") -> Grid:
    """Lay a lattice over an image, row by row from half a spacing off its left upper corner.

    Parameters
    ----------
    height, width
        Size of the image, pixels.
    spacing_px
        Distance of a position to its nearest neighbours (6 on a hexagonal lattice, 4 on a square one), pixels.
    layout
        ``"hexagonal"`` or ``"square"``.

    Raises
    ------
    ValueError
        If the layout is not known, or more than 10 million positions would fit on the image.

    Examples
    --------
    >>> from spahgc.image._grid import lattice
    >>> lattice(20, 30, spacing_px=10.0, layout="square").xy.tolist()
    [[5.0, 5.0], [15.0, 5.0], [25.0, 5.0], [5.0, 15.0], [15.0, 15.0], [25.0, 15.0]]
    """
    if layout not in LAYOUTS:
        raise ValueError(f'layout="{layout}" is not known; pass one of {", ".join(LAYOUTS)}')
    hexagonal = layout == "hexagonal"
    row_px, col_px = (spacing_px * math.sqrt(3) / 2, spacing_px / 2) if hexagonal else (spacing_px, spacing_px)
    n_rows, n_cols = (
        max(0, math.ceil((side - spacing_px / 2) / step)) for side, step in ((height, row_px), (width, col_px))
    )
    if n_rows * n_cols > MAX_POSITIONS * (2 if hexagonal else 1):
        raise ValueError(
            f"a spacing of {spacing_px:.3g} px puts about {n_rows * n_cols // (2 if hexagonal else 1):,} positions on an "
            f"image of {width} x {height} px; {MAX_POSITIONS:,} are the limit. Spacing and mpp are in microns: are they "
            "right?"
        )
    row, col = (index.ravel() for index in np.indices((n_rows, n_cols), dtype=np.int64))
    if hexagonal:
        # Odd sums of row and column: with even ones the array would pass for Visium's, whose spots are 100 um apart.
        odd = (row + col) % 2 == 1
        row, col = row[odd], col[odd]
    return Grid(np.column_stack([col * col_px, row * row_px]) + spacing_px / 2, row, col)


def covered(mask: NDArray[np.bool_], scale: float, xy: NDArray[np.float64], diameter_px: float) -> NDArray[np.float64]:
    """Share of each spot's circle where a mask is true; what lies outside the image is not.

    Parameters
    ----------
    mask
        Height x width of a small image.
    scale
        Its pixels per pixel of the large one.
    xy
        Centres, spots x 2, pixels of the large image.
    diameter_px
        Diameter of the circles, pixels of the large image.
    """
    steps = (np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5
    points = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    points = points[np.hypot(*points.T) <= 0.5] * diameter_px * scale
    height, width = mask.shape
    # A frame of False stands for all that is outside.
    framed = np.pad(mask, 1)
    share = np.empty(len(xy))
    for start in range(0, len(xy), CHUNK):
        at = np.floor(xy[start : start + CHUNK, None] * scale + points).astype(np.int64) + 1
        x, y = np.clip(at[..., 0], 0, width + 1), np.clip(at[..., 1], 0, height + 1)
        share[start : start + CHUNK] = framed[y, x].mean(axis=1)
    return share
