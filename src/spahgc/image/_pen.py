"""Marker ink on a slide: strokes of blue, green, red or black pen beside or over the tissue."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

STROKE_UM = 120.0
"""Width that a stroke reaches somewhere. Pens draw 300 um and more; red blood cells and dark nuclei lie more scattered."""
FILLED = 0.8
"""Share of a square of that width that has the colour of ink in the middle of a stroke."""
MIN_AREA_UM2 = 50_000.0
"""Area below which a blot is not a stroke."""
MARGIN_UM = 60.0
"""Around a stroke, where its border mixes with the glass."""
MIN_OD = 0.3
"""Optical density of the strongest channel of ink."""
RED_OVER_GREEN = 1.3
"""Blue and cyan ink absorb red this much more than green; hematoxylin absorbs both alike."""
BLUE_OVER_RED = 0.35
"""Blue ink absorbs less blue than this share of red; hematoxylin lies at 0.45 or above."""
GREEN_OVER_OTHERS = 0.8
"""Green ink absorbs green less than this share of red and of blue; stained tissue absorbs it most."""
BLUE_OVER_GREEN = 0.8
"""Red ink absorbs blue nearly as much as green; eosin at most 0.7 of it."""
RED_OF_RED_INK = 0.5
"""Red ink absorbs red less than this share of green."""
MIN_OD_OF_BLACK = 0.4
"""Optical density that black ink has in all channels."""
SPREAD_OF_BLACK = 0.25
"""Largest difference of black ink's channels as a share of the strongest."""
ALL_AROUND = np.ones((3, 3), dtype=bool)


def pen_marks(density: NDArray[np.float32], *, mpp: float) -> NDArray[np.bool_]:
    """Find marker ink by its colour and the width of its strokes.

    Parameters
    ----------
    density
        Optical density of red, green and blue, height x width x 3.
    mpp
        Microns per pixel of these.

    Returns
    -------
    True on the strokes and a margin around them, height x width.
    """
    inked = ink_coloured(density)
    nothing = np.zeros(inked.shape, dtype=bool)
    if not inked.any():
        return nothing
    side = max(1, round(STROKE_UM / mpp))
    # Outside the image the border is continued: a stroke that leaves the image keeps its width.
    filled = ndimage.uniform_filter(inked.astype(np.float32), side, mode="nearest") > FILLED
    blots, n_blots = ndimage.label(inked, structure=ALL_AROUND)
    area_um2 = np.bincount(blots.ravel(), minlength=n_blots + 1) * mpp**2
    is_stroke = np.zeros(n_blots + 1, dtype=bool)
    is_stroke[np.unique(blots[filled & inked])] = True
    is_stroke &= area_um2 >= MIN_AREA_UM2
    is_stroke[0] = False
    if not is_stroke.any():
        return nothing
    margin = 2 * math.ceil(MARGIN_UM / mpp) + 1
    return np.asarray(ndimage.maximum_filter(is_stroke[blots], size=margin, mode="constant"))


def ink_coloured(density: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which pixels have a colour that ink has and stained tissue has not, by the shares of the three densities."""
    red, green, blue = (density[..., channel] for channel in range(3))
    strongest, weakest = density.max(-1), density.min(-1)
    is_blue = (red > RED_OVER_GREEN * green) | ((blue < BLUE_OVER_RED * red) & (red >= green))
    is_green = (green < GREEN_OVER_OTHERS * red) & (green < GREEN_OVER_OTHERS * blue)
    is_red = (blue > BLUE_OVER_GREEN * green) & (red < RED_OF_RED_INK * green)
    is_black = (weakest > MIN_OD_OF_BLACK) & (strongest - weakest < SPREAD_OF_BLACK * strongest)
    return np.asarray((strongest > MIN_OD) & (is_blue | is_green | is_red | is_black))
