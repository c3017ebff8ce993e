"""How well two sections agree once one lies on the other, as one number that tells sections of one block from others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spahgc.pp._register.laying import Bend, lay
from spahgc.pp._register.matching import match_windows
from spahgc.pp._register.picture import Matrix
from spahgc.pp._register.structure import N_PROOF, Structure

REACH_UM = 240.0
"""Largest shift at which windows are compared."""
ELSEWHERE_UM = 110.0
"""Shifts beyond this are another place: correlation of structure of 50 um and more has fallen by then."""
SPACING_UM = 200.0
"""Distance of the windows."""
MARGIN_SHARE = 0.4
"""Width of the frame around a section in which another one is looked at, as a share of its longer side."""
MIN_WINDOWS = 6
"""Windows below which nothing is said of the structure."""


@dataclass(frozen=True)
class Agreement:
    """How well two sections agree."""

    structure: float
    """Correlation of the structure inside the tissue, free of outline, stain and trend, at the registered place, minus the
    largest one at any other place within 240 um; mean over windows before the largest is taken. 0 is what chance gives."""
    outline: float
    """Intersection of the tissues over their union, 0 to 1."""
    correlation: float
    """Correlation of the structure at the registered place, mean over windows."""
    n_windows: int

    @property
    def quality(self) -> float:
        """Structure times outline."""
        return max(self.structure, 0.0) * self.outline


def find_agreement(fixed: Structure, moving: Structure, matrix: Matrix, bend: Bend | None = None) -> Agreement:
    """Measure how well a section agrees with another on which it lies.

    Parameters
    ----------
    fixed, moving
        The sections.
    matrix
        From pixels of the moving picture to those of the fixed one.
    bend
        What bends it there.
    """
    matches = match_windows(fixed, moving, matrix, bend, reach_um=REACH_UM, spacing_um=SPACING_UM, n_channels=N_PROOF)
    outline = find_overlap(fixed, moving, matrix)
    if len(matches) < MIN_WINDOWS:
        return Agreement(0.0, outline, 0.0, len(matches))
    mean = matches.correlation.clip(-1, 1)
    mean = np.where(mean > -1, mean, 0).mean(0)
    reach = matches.reach
    off = np.arange(-reach, reach + 1) * matches.pixel_um
    elsewhere = np.hypot(off[:, None], off) > ELSEWHERE_UM
    here = mean[reach - 1 : reach + 2, reach - 1 : reach + 2].max()
    return Agreement(float(here - mean[elsewhere].max()), outline, float(here), len(matches))


def find_overlap(fixed: Structure, moving: Structure, matrix: Matrix) -> float:
    """Area that is tissue of both sections over the area that is tissue of either."""
    wide = np.eye(3)
    wide[:2, 2] = margin = int(np.ceil(MARGIN_SHARE * max(fixed.tissue.shape)))
    here = np.pad(fixed.tissue, margin) > 0.5
    (there,) = lay([moving.tissue], wide @ matrix, here.shape) > 0.5
    # What reaches past the frame counts as not shared.
    area = float(moving.tissue.sum()) * abs(float(np.linalg.det(matrix[:2, :2])))
    shared = float((here & there).sum())
    return shared / max(float(here.sum()) + area - shared, 1.0)
