"""Do the spots lie on the image?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def describe_outside(xy: NDArray[np.float64], *, height: int, width: int) -> str | None:
    """Say how many spot centres lie outside the image and what that looks like; ``None`` if all are inside.

    Parameters
    ----------
    xy
        Spots x 2, (x, y) in pixels.
    height, width
        Size of the image, pixels.
    """
    outside = ~_inside(xy, width, height)
    if not outside.any():
        return None
    (x_low, y_low), (x_high, y_high) = xy.min(0), xy.max(0)
    text = (
        f"{outside.sum()} of {len(xy)} spot centres lie outside the image: x from {x_low:.1f} to {x_high:.1f}, "
        f"y from {y_low:.1f} to {y_high:.1f}, but the image is {width} px wide and {height} px high."
    )
    if _inside(xy[:, ::-1], width, height).all():
        return f"{text} With x and y swapped all would be inside: coordinates are (x, y), not (row, column)."
    return f"{text} Coordinates must be pixels of this very image; check that image and coordinates belong together."


def _inside(xy: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    return np.asarray((xy >= 0).all(1) & (xy[:, 0] <= width) & (xy[:, 1] <= height))
