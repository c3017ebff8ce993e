"""A small version of an image, made without holding the large one."""

from __future__ import annotations

import numpy as np

from spahgc.image._levels import at_level
from spahgc.image._resample import resample
from spahgc.image._source import ImageSource, Pixels

BAND_ROWS = 256
"""Rows of the small image that are made at once, at most."""
BAND_PIXELS = 32 * 10**6
"""Pixels of the large image that are held at once, 7 bytes each; a slide without levels may be 100,000 px wide."""
ROUNDING = 1e-6


def thumbnail(image: ImageSource, longest_px: int) -> tuple[Pixels, float]:
    """Scale an image down until its longest side has `longest_px` pixels; smaller images keep their size.

    Parameters
    ----------
    image
        The image. It is read in bands, from the level of its pyramid that is just fine enough.
    longest_px
        Longest side of the result, pixels.

    Returns
    -------
    The small image, uint8, height x width x 3, and its pixels per pixel of the large one, the same for both axes.
    Less than one small pixel is cut off at the right or the bottom, so that the scale is exact.
    """
    scale = min(1.0, longest_px / max(image.height, image.width))
    width, height = (max(1, int(side * scale + ROUNDING)) for side in (image.width, image.height))
    small = np.empty((height, width, 3), dtype=np.uint8)
    source = at_level(image, 1 / scale)
    band = min(BAND_ROWS, max(1, int(BAND_PIXELS / source.width * height / source.height)))
    for top in range(0, height, band):
        bottom = min(top + band, height)
        # min: an image narrower than one small pixel, and rounding.
        box = (0.0, top / scale, min(width / scale, image.width), min(bottom / scale, image.height))
        if scale == 1.0:
            small[top:bottom] = image.read(0, top, width, bottom - top)
        else:
            small[top:bottom] = resample(image, box, (width, bottom - top), "bilinear")
    return small, scale
