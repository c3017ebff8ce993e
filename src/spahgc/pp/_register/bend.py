"""What an affine transformation leaves over: a smooth bend, which windows agree on with their neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from spahgc.pp._register.affine import MIN_WINDOWS
from spahgc.pp._register.laying import Bend
from spahgc.pp._register.matching import match_windows
from spahgc.pp._register.picture import Matrix
from spahgc.pp._register.structure import Floats, Structure

BEND_SPACING_UM = 100.0
"""Distance of the windows, and of the nodes of the grid."""
BEND_ROUNDS_UM = ((160.0, 250.0), (100.0, 150.0))
"""Largest displacement that is looked for in each round, and the standard deviation of the Gaussian over which windows are
averaged: of how they fit, and, half as wide, of where."""
BEND_COST = 0.1
"""Correlation that a displacement by 100 um must gain; by 50 um a fourth of it."""
BEND_PRIOR = 0.5
"""Weight of no displacement, in windows: where none is near, the bend fades."""
COST_UM = 100.0


def find_bend(fixed: Structure, moving: Structure, matrix: Matrix) -> Bend | None:
    """Find what bends are left after an affine transformation; ``None`` where too few windows tell.

    Parameters
    ----------
    fixed, moving
        The sections.
    matrix
        From pixels of the moving picture to those of the fixed one.
    """
    bend = None
    for reach_um, width_um in BEND_ROUNDS_UM:
        more = _bend_left(fixed, moving, matrix, bend, reach_um, width_um)
        if more is None:
            break
        bend = more if bend is None else bend.after(more)
    return bend


def _bend_left(
    fixed: Structure, moving: Structure, matrix: Matrix, bend: Bend | None, reach_um: float, width_um: float
) -> Bend | None:
    """What is left of the displacement of a section that was laid over another."""
    matches = match_windows(fixed, moving, matrix, bend, reach_um=reach_um, spacing_um=BEND_SPACING_UM, outline=True)
    if len(matches) < MIN_WINDOWS:
        return None
    um, reach, places = matches.pixel_um, matches.reach, matches.places
    width, spacing = width_um / um, BEND_SPACING_UM / um
    near = np.exp(-cdist(places, places, "sqeuclidean") / (2 * width**2))
    near /= near.sum(1, keepdims=True)
    pooled = (near @ matches.correlation.clip(0).reshape(len(matches), -1)).reshape(matches.correlation.shape)
    off = np.arange(-reach, reach + 1) * um / COST_UM
    shift, fit = _peaks(pooled - BEND_COST * (off[:, None] ** 2 + off**2))
    fit = fit.clip(0)
    rows, columns = (int(np.ceil(side / spacing)) + 1 for side in fixed.tissue.shape)
    nodes = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2) * spacing
    weight = np.exp(-cdist(nodes, places, "sqeuclidean") / (2 * (width / 2) ** 2)) * fit
    displacement = (weight @ shift) / (weight.sum(1, keepdims=True) + BEND_PRIOR * float(fit.mean()) + 1e-9)
    return Bend(displacement.reshape(rows, columns, 2).astype(np.float32), spacing)


def _peaks(correlation: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Highest place (x, y) of each surface from its middle, between pixels, and its height."""
    n_windows, height, width = correlation.shape
    place = correlation.reshape(n_windows, -1).argmax(1)
    row, column = (axis.clip(1, side - 2) for axis, side in zip(np.divmod(place, width), (height, width), strict=True))
    each = np.arange(n_windows)
    centre = correlation[each, row, column]

    def offset(before: Floats, after: Floats) -> NDArray[np.float64]:
        curvature = before - 2 * centre + after
        # Flat or hollow: the pixel itself.
        step = np.where(curvature < -1e-6, 0.5 * (before - after) / np.minimum(curvature, -1e-6), 0)
        return np.asarray(step.clip(-0.5, 0.5), dtype=np.float64)

    x = column + offset(correlation[each, row, column - 1], correlation[each, row, column + 1])
    y = row + offset(correlation[each, row - 1, column], correlation[each, row + 1, column])
    return np.column_stack([x - width // 2, y - height // 2]), centre.astype(np.float64)
