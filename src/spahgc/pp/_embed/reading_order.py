"""The order in which patches are read: those that overlap one after the other, so that their pixels are decoded once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spahgc._spots.pitch import spot_pitch

BLOCK_PX = 2048
"""Side of the squares of an image that are read one after the other: with the patches on their borders they fit into the
32 MiB of decoded tiles that are kept."""
OVERLAPPING = 0.5
"""Distance of neighbours, in widths of a patch, below which patches overlap so much that their order matters. Spots that lie
farther apart keep their own order, and with it the last digits of their embedding."""

MANY = 1000
"""Patches up to which their own order stays: they are read in no time, in whatever order."""


def reading_order(xy: NDArray[np.float64], width_px: float) -> NDArray[np.int64]:
    """Order of patches: their own, or square by square of the image where they overlap.

    Parameters
    ----------
    xy
        Centres, patches x 2, pixels of the image.
    width_px
        Width of a patch, pixels of the image.
    """
    pitch = spot_pitch(xy) if len(xy) > MANY else None
    if pitch is None or pitch > OVERLAPPING * width_px:
        return np.arange(len(xy))
    column, row = np.floor(xy / BLOCK_PX).astype(np.int64).T
    back_and_forth = np.where(row % 2 == 0, column, -column)
    return np.lexsort((xy[:, 0], xy[:, 1], back_and_forth, row))
