"""Where one section lies on another, roughly: every angle, both sides up, by correlation over all shifts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from spahgc.pp._register.laying import lay
from spahgc.pp._register.picture import Matrix
from spahgc.pp._register.structure import Structure

ANGLE_STEP = 6.0
"""Degrees between the angles that are tried; refinement finds 10 and more."""
SCALES = tuple(float(s) for s in np.geomspace(0.7, 1.4, 9))
"""Scales that are tried where the resolution of a slide is not known."""
DISTINCT_ANGLE = 15.0
"""Degrees below which two placements of the same side up are the same one."""
DISTINCT_SCALE = 1.2
"""The same as a factor."""


@dataclass(frozen=True, eq=False)
class Placement:
    """A way to lay one section over another."""

    score: float
    """Correlation of outline and structure on coarse pixels."""
    angle: float
    """Degrees."""
    mirrored: bool
    scale: float
    matrix: Matrix
    """From pixels of the moving picture to those of the fixed one."""


def turn(angle: float, mirrored: bool, scale: float) -> NDArray[np.float64]:
    """Rotation by degrees after mirroring left to right, and scale, 2 x 2."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    linear = scale * np.array([[cos, -sin], [sin, cos]])
    return linear * np.array([-1.0, 1.0]) if mirrored else linear


def search_placements(fixed: Structure, moving: Structure, *, scales: Sequence[float], n_best: int) -> list[Placement]:
    """Try all angles, both sides up and all scales; the best placements that differ, the best first.

    Parameters
    ----------
    fixed, moving
        The sections.
    scales
        Factors on the scale that the pictures' own microns give.
    n_best
        How many placements.
    """
    ratio = moving.pixel_um * moving.step / (fixed.pixel_um * fixed.step)
    diagonal = int(np.ceil(np.hypot(*moving.coarse.shape[1:]) * ratio * max(scales)))
    height, width = fixed.coarse.shape[1:]
    size = tuple(int(fft.next_fast_len(side + diagonal, real=True)) for side in (height, width))
    spectrum = np.conj(fft.rfft2(fixed.coarse, size))
    power = float((fixed.coarse**2).sum())
    centre = (np.array(moving.coarse.shape[:0:-1]) - 1) / 2
    to_fixed, from_moving = fixed.coarse_to_picture, np.linalg.inv(moving.coarse_to_picture)
    placements = []
    for mirrored in (False, True):
        for scale in scales:
            for angle in np.arange(0, 360, ANGLE_STEP):
                matrix = np.eye(3)
                matrix[:2, :2] = turn(angle, mirrored, scale * ratio)
                matrix[:2, 2] = (diagonal - 1) / 2 - matrix[:2, :2] @ centre
                turned = lay(moving.coarse, matrix, (diagonal, diagonal))
                match = fft.irfft2((fft.rfft2(turned, size) * spectrum).sum(0), size)
                row, column = np.unravel_index(int(match.argmax()), match.shape)
                matrix[0, 2] -= column if column < diagonal else column - size[1]
                matrix[1, 2] -= row if row < diagonal else row - size[0]
                score = float(match[row, column]) / np.sqrt(power * float((turned**2).sum()) + 1e-9)
                placements.append(
                    Placement(score, float(angle), mirrored, float(scale), to_fixed @ matrix @ from_moving)
                )
    placements.sort(key=lambda placement: -placement.score)
    distinct: list[Placement] = []
    for placement in placements:
        if not any(_alike(placement, other) for other in distinct):
            distinct.append(placement)
        if len(distinct) == n_best:
            break
    return distinct


def _alike(one: Placement, other: Placement) -> bool:
    apart = abs((one.angle - other.angle + 180) % 360 - 180)
    factor = max(one.scale / other.scale, other.scale / one.scale)
    return one.mirrored == other.mirrored and apart <= DISTINCT_ANGLE and factor < DISTINCT_SCALE
