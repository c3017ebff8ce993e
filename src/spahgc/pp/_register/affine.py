"""A rough placement made exact: windows vote for an affine transformation."""

from __future__ import annotations

import numpy as np

from spahgc.pp._register.matching import Matches, match_windows
from spahgc.pp._register.picture import Matrix
from spahgc.pp._register.structure import Structure

REACHES_UM = (240.0, 240.0, 160.0)
"""Largest shifts of the windows, round by round."""
MIN_WINDOWS = 6
"""Windows below which nothing is refined."""
TOLERANCE_UM = 80.0
"""Distance from the transformation at which a window's vote begins to count less."""
STIFFNESS_UM = 130.0
"""How stiff the transformation is: windows have to be spread this far for stretch to count as much as what keeps it off."""
N_ITERATIONS = 12
"""Of the robust fit."""


def refine_affine(fixed: Structure, moving: Structure, matrix: Matrix, *, spacing_um: float, n_rounds: int) -> Matrix:
    """Refine a placement by an affine transformation.

    Parameters
    ----------
    fixed, moving
        The sections.
    matrix
        From pixels of the moving picture to those of the fixed one.
    spacing_um
        Distance of the windows.
    n_rounds
        How often windows are matched anew.
    """
    for reach_um in REACHES_UM[:n_rounds]:
        matches = match_windows(fixed, moving, matrix, reach_um=reach_um, spacing_um=spacing_um, outline=True)
        if len(matches) < MIN_WINDOWS:
            break
        matrix = np.linalg.inv(_robust_affine(matches)) @ matrix
    return matrix


def _robust_affine(matches: Matches) -> Matrix:
    """Affine transformation that most windows agree on, close to the identity, from fixed pixels to laid ones."""
    shift, fit = matches.best
    x = matches.places.astype(np.float64)
    centre = x.mean(0)
    z = np.column_stack([x - centre, np.ones(len(x))])
    tolerance = TOLERANCE_UM / matches.pixel_um
    stiffness = np.diag([(STIFFNESS_UM / matches.pixel_um) ** 2] * 2 + [1e-6])
    change = np.zeros((3, 2))
    change[2] = np.median(shift, axis=0)
    for iteration in range(N_ITERATIONS):
        off = np.linalg.norm(z @ change - shift, axis=1)
        allowed = max(tolerance, float(np.median(off))) if iteration < N_ITERATIONS // 3 else tolerance
        weight = fit.clip(0) ** 2 / (1 + (off / allowed) ** 2) ** 2
        weighted = (z * weight[:, None]).T
        change = np.linalg.solve(weighted @ z + (weight.sum() + 1e-9) * stiffness, weighted @ shift)
    matrix = np.eye(3)
    matrix[:2, :2] += change[:2].T
    matrix[:2, 2] = change[2] - change[:2].T @ centre
    return matrix
