"""Which cell belongs to which spot, tile or region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import KDTree

from spahgc.image._grid import Grid, lattice

ROUNDING = 1e-9
"""Relative error of a distance up to which a cell on the rim of a circle lies within."""


@dataclass(frozen=True, eq=False)
class Places:
    """Places into which cells are pooled."""

    xy: NDArray[np.float64]
    """Centres (x, y), pixels."""
    names: list[str]
    membership: csr_matrix
    """Places x cells, 1 where a cell belongs to a place."""
    row: NDArray[np.int64] | None = None
    col: NDArray[np.int64] | None = None
    """Of a grid: its row and column."""

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Places:
        return Places(
            self.xy[chosen],
            [name for name, one in zip(self.names, chosen, strict=True) if one],
            self.membership[chosen],
            None if self.row is None else self.row[chosen],
            None if self.col is None else self.col[chosen],
        )


def grid_places(xy: NDArray[np.float64], spacing_px: float, diameter_px: float | None, layout: str) -> Places:
    """Places on a regular grid, those that :func:`spahgc.pp.tile` lays; places without a cell are left out.

    Parameters
    ----------
    xy
        Centres of the cells, pixels.
    spacing_px
        Distance of neighbouring places, pixels.
    diameter_px
        Diameter of the circles, pixels; ``None``: each cell belongs to the nearest place, which leaves none out.
    layout
        ``"hexagonal"`` or ``"square"``.
    """
    # The lattice begins at the left upper corner of the image; cells beyond it move it by whole periods.
    period = np.array([spacing_px, spacing_px * (np.sqrt(3) if layout == "hexagonal" else 1.0)])
    origin = np.minimum(0.0, np.floor(xy.min(axis=0) / period - 1) * period) * (xy.min(axis=0) < 0)
    width, height = (int(side) for side in np.ceil(xy.max(axis=0) - origin + spacing_px))
    grid = lattice(height, width, spacing_px=spacing_px, layout=layout)
    grid = Grid(grid.xy + origin, grid.row, grid.col)
    if layout == "square" and diameter_px is None:
        # A cell on the border of two squares belongs to the right or lower one, not to either by rounding.
        col, row = np.floor((xy - origin) / spacing_px).astype(np.int64).T
        nearest, within = row * (int(grid.col.max()) + 1) + col, np.ones(len(xy), dtype=bool)
    else:
        nearest, within = _nearest(grid.xy, xy, diameter_px)
    membership = _membership(nearest[within], np.flatnonzero(within), len(grid), len(xy))
    names = [f"spot_{row}_{col}" for row, col in zip(grid.row, grid.col, strict=True)]
    return Places(grid.xy, names, membership, grid.row, grid.col)[membership.getnnz(axis=1) > 0]


def spot_places(xy: NDArray[np.float64], centres: NDArray[np.float64], names: list[str], diameter_px: float) -> Places:
    """The circles of given spots, all of them kept.

    Raises
    ------
    ValueError
        If circles overlap, in which a cell would be counted twice.
    """
    if len(centres) > 1:
        gap = float(KDTree(centres).query(centres, k=2)[0][:, 1].min())
        if gap < diameter_px * (1 - ROUNDING):
            raise ValueError(
                f"circles of {diameter_px:.4g} px overlap: two of the spots lie {gap:.4g} px apart, and a cell would be counted in both. "
                "Pass a smaller diameter_um."
            )
    nearest, within = _nearest(centres, xy, diameter_px)
    return Places(centres, names, _membership(nearest[within], np.flatnonzero(within), len(centres), len(xy)))


def region_places(xy: NDArray[np.float64], geometries: list[Any], names: list[str]) -> Places:
    """Regions; a cell whose centre lies in several belongs to each."""
    import shapely

    tree = shapely.STRtree(shapely.points(xy))
    region, cell = tree.query(np.array(geometries, dtype=object), predicate="covers")
    centres = np.array([[geometry.centroid.x, geometry.centroid.y] for geometry in geometries])
    return Places(centres, names, _membership(region, cell, len(geometries), len(xy)))


def _nearest(
    places: NDArray[np.float64], xy: NDArray[np.float64], diameter_px: float | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Nearest place of each cell, and whether the cell lies within its circle."""
    distance, nearest = KDTree(places).query(xy)
    within = np.ones(len(xy), bool) if diameter_px is None else distance <= diameter_px / 2 * (1 + ROUNDING)
    return np.asarray(nearest, dtype=np.int64), within


def _membership(place: NDArray[np.int64], cell: NDArray[np.int64], n_places: int, n_cells: int) -> csr_matrix:
    return csr_matrix((np.ones(len(place)), (place, cell)), shape=(n_places, n_cells))
