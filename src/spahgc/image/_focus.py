"""How sharp a place of a slide is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spahgc.image._patch import cut_patch
from spahgc.image._source import ImageSource

FOCUS_MPP = 1.0
"""Microns per pixel at which sharpness is measured, so that slides of different resolutions compare."""
MIN_SIDE_PX = 8
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in the brightness (ITU-R BT.601)."""


def focus(image: ImageSource, center: Sequence[float], *, width_um: float, mpp: float) -> float:
    """Variance of the Laplacian of the brightness (0 to 255) around a point, at 1 um per pixel.

    The Laplacian is the sum of a pixel's four neighbours less four times the pixel. The patch is the square of
    `width_um` around the point, 8 px at least. High is sharp; blur and even areas are low. A slide that is coarser than
    1 um per pixel is interpolated, and reads low.

    Parameters
    ----------
    image
        The image.
    center
        (x, y), pixels.
    width_um
        Width of the square, microns.
    mpp
        Microns per pixel of the image.
    """
    side = max(MIN_SIDE_PX, round(width_um / FOCUS_MPP))
    patch, _ = cut_patch(image, center, width_px=side * FOCUS_MPP / mpp, out_px=side, interpolation="bilinear")
    grey = patch.astype(np.float32) @ LUMINANCE
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var())
