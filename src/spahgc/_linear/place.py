"""Kernels of look and place: reference spots that lie where a spot lies, once sections were laid over each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from spahgc._linear.kernel import Kernel, arc_cosine
from spahgc._linear.on_device import Array

PLUS_RANGE, TIMES_RANGE = 1.0, 3.0
"""Standard deviation of nearness, in distances of neighbouring spots, where it is added to likeness and where it multiplies it."""

TIMES_WEIGHT = 3.0
"""How many times as much two spots at the same place count as two that only look alike."""

N_COLUMNS = 3
"""Columns behind the features: place ``(x, y)`` in distances of neighbouring spots, and the number of its frame."""


@dataclass(frozen=True)
class Places:
    """Where some spots lie.

    Parameters
    ----------
    xy
        Spots x 2, in distances of neighbouring spots of the slide on which the others are laid.
    frame
        A number a spot: 0 for those that lie on that slide, one of its own for every slide that could not be laid on it.
    """

    xy: np.ndarray
    frame: np.ndarray

    @property
    def known(self) -> bool:
        """Whether any spot lies on that slide."""
        return bool((self.frame == 0).any())

    def beside(self, features: np.ndarray) -> np.ndarray:
        """Features and places side by side, as the kernels take them."""
        return np.hstack([features, self.xy, self.frame[:, None]]).astype(np.float64)


def look_plus_place(size: float) -> Kernel:
    """Likeness, over ``size``, plus nearness: what a place has in common, whatever it looks like."""

    def kernel(a: Array, b: Array) -> Array:
        return _look(a, b) / size + _nearness(a, b, PLUS_RANGE)

    return kernel


def look_times_place(size: float) -> Kernel:
    """Likeness, over ``size``, that counts four times as much at the same place."""

    def kernel(a: Array, b: Array) -> Array:
        return _look(a, b) / size * (1 + TIMES_WEIGHT * _nearness(a, b, TIMES_RANGE))

    return kernel


def _look(a: Array, b: Array) -> Array:
    return arc_cosine(a[:, :-N_COLUMNS], b[:, :-N_COLUMNS])


def _nearness(a: Array, b: Array, reach: float) -> Array:
    """Gaussian of the distance, 1 at the same place; 0 between frames."""
    xp = array_namespace(a, b)
    (xy, frame), (others, other_frame) = ((x[:, -N_COLUMNS:-1], x[:, -1]) for x in (a, b))
    squares = xp.sum(xp.square(xy), axis=1)[:, None] + xp.sum(xp.square(others), axis=1) - 2 * xy @ others.T
    near = xp.exp(-xp.clip(squares, 0.0, None) / (2 * reach**2))
    return xp.where(frame[:, None] == other_frame, near, 0.0)
