"""Where on a slide the tissue is: told from glass, dust and even smears by its colour, from marker ink by its strokes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spahgc.image._colour import WHITE
from spahgc.image._source import Pixels

# Tissue
SMOOTHING_UM = 25.0
"""Standard deviation of the window over which colour is judged: some cells, so that fat and lumina count as tissue."""
EDGE_UM = 45.0
"""How far that window carries tissue past its edge, 35 um where it is pale and 60 um where it is dark; taken off again."""
TEXTURE_WEIGHT = 3.0
"""Weight of the variation of colour beside its mean: eosin that bled into the glass is as pink as stroma, but even."""
MAX_HOLE_UM2 = 20_000.0
"""Gaps of which the window leaves at most this area open (circles of about 250 um) are filled: lumina, vessels, fat."""
MIN_AREA_UM2 = 50_000.0
"""Pieces below this area (a circle of 250 um) are no tissue but dust and debris."""
THRESHOLD_RANGE = (0.03, 0.12)
"""Where Otsu's threshold may lie: below is the noise of empty glass, above everything is stained."""
STAIN_RANGE = (0.01, 0.3)
"""Limits of the histogram of stain."""
N_BINS = 256
GLASS_MIN = 180
"""Glass is at least this bright (0 to 255) in every channel."""
GLASS_MAX_CHROMA = 0.06
"""Largest difference of the optical densities of glass; lamps and mounting media tint it."""
MIN_GLASS_SHARE = 0.01
"""Share of the image from which on its colour is measured; below, there is only tissue, and glass counts as white."""
DARK_OFFSET = 5.0
"""Grey levels added before the logarithm, so that noise in black does not become colour."""

# Marker ink
STROKE_UM = 120.0
"""Width that a stroke reaches somewhere. Pens draw 300 um and more; red blood cells and dark nuclei lie more scattered."""
FILLED = 0.8
"""Share of a square of that width that has the colour of ink in the middle of a stroke."""
MIN_STROKE_UM2 = 50_000.0
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

WITH_DIAGONALS = np.ones((3, 3), dtype=bool)
"""Pixels that touch at a corner belong together."""


@dataclass(frozen=True)
class Tissue:
    """Where the tissue is, and how it was told from the rest.

    Parameters
    ----------
    mask
        True on tissue, height x width of the small image.
    threshold
        Stain from which on a place is tissue: difference of optical densities, and three times its variation.
    otsu
        Otsu's threshold of this image, before it was brought into its limits.
    share
        Tissue, as a share of the image.
    stained_share
        The same before specks were removed.
    pen_share
        Marker ink with its margin, as a share of the image.
    glass
        Colour of the empty glass, RGB, 0 to 255.
    """

    mask: NDArray[np.bool_]
    threshold: float
    otsu: float
    share: float
    stained_share: float
    pen_share: float
    glass: list[float]


def find_tissue(small: Pixels, *, mpp: float, threshold: float | None = None, exclude_pen: bool = True) -> Tissue:
    """Tell tissue from glass, dust, even smears and marker ink.

    Stained tissue absorbs the three colours differently and varies from cell to cell; glass, dust and shadows are
    grey. The measure is the difference of the largest and the smallest optical density of a pixel: its mean within a
    Gaussian window and three times its standard deviation there, added as squares. Otsu's method finds the threshold on
    its logarithm.

    Parameters
    ----------
    small
        The slide at a low resolution, uint8, height x width x 3.
    mpp
        Microns per pixel of it.
    threshold
        Stain from which on a place is tissue; ``None`` takes Otsu's threshold, within 0.03 and 0.12.
    exclude_pen
        Leave out blue, green, red and black marker ink.

    Examples
    --------
    >>> import numpy as np
    >>> from spahgc.image._tissue import find_tissue
    >>> slide = np.full((100, 200, 3), 245, dtype=np.uint8)
    >>> slide[:, :100] = (180, 110, 170)
    >>> f"{find_tissue(slide, mpp=10.0).share:.1f}"
    '0.5'
    """
    glass = glass_colour(small)
    density = optical_density(small, glass)
    chroma = density.max(-1) - density.min(-1)
    pen = pen_marks(density, mpp=mpp) if exclude_pen else np.zeros(chroma.shape, dtype=bool)
    chroma[pen] = 0
    stain = _stain(chroma, SMOOTHING_UM / mpp)
    clean = stain[~pen]
    otsu = _otsu(clean) if clean.size else THRESHOLD_RANGE[1]
    used = float(np.clip(otsu, *THRESHOLD_RANGE)) if threshold is None else float(threshold)
    wide = _fill_holes(stain > used, MAX_HOLE_UM2 / mpp**2)
    stained = ndimage.minimum_filter(wide, size=2 * round(EDGE_UM / mpp) + 1, mode="nearest") & ~pen
    mask = _large_pieces(stained, MIN_AREA_UM2 / mpp**2)
    return Tissue(
        mask=mask,
        threshold=used,
        otsu=otsu,
        share=float(mask.mean()),
        stained_share=float(stained.mean()),
        pen_share=float(pen.mean()),
        glass=[float(value) for value in glass],
    )


def glass_colour(pixels: Pixels) -> NDArray[np.float64]:
    """Median colour of what is bright and nearly grey; white where there is hardly any of it."""
    density = optical_density(pixels, np.full(3, WHITE, dtype=np.float64))
    is_glass = (pixels.min(-1) >= GLASS_MIN) & (density.max(-1) - density.min(-1) < GLASS_MAX_CHROMA)
    if is_glass.mean() < MIN_GLASS_SHARE:
        return np.full(3, WHITE, dtype=np.float64)
    return np.asarray(np.median(pixels[is_glass], axis=0), dtype=np.float64)


def optical_density(pixels: Pixels, glass: NDArray[np.float64]) -> NDArray[np.float32]:
    """How much darker than the glass each channel is, in powers of ten; 0 where it is brighter."""
    levels = np.arange(256)[:, None] + DARK_OFFSET
    table = np.maximum(np.log10((glass + DARK_OFFSET) / levels), 0).astype(np.float32)
    return np.stack([table[pixels[..., channel], channel] for channel in range(3)], axis=-1)


def _stain(chroma: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Mean of the colour around a pixel and, with its weight, its variation."""
    mean = ndimage.gaussian_filter(chroma, sigma_px, mode="nearest")
    variance = np.maximum(ndimage.gaussian_filter(chroma**2, sigma_px, mode="nearest") - mean**2, 0)
    return np.sqrt(mean**2 + TEXTURE_WEIGHT**2 * variance)


def _otsu(stain: NDArray[np.float32]) -> float:
    """Otsu's threshold on the logarithm: pale and dark tissue would be told apart otherwise, and not glass and tissue."""
    low, high = (math.log(limit) for limit in STAIN_RANGE)
    counts, edges = np.histogram(np.log(np.clip(stain, *STAIN_RANGE)), bins=N_BINS, range=(low, high))
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    centers = (edges[:-1] + edges[1:]) / 2
    sums = np.cumsum(counts * centers)
    split = (below > 0) & (above > 0)
    if not split.any():  # all in one bin
        return float(np.exp(centers[np.argmax(counts)]))
    means_below = sums[:-1][split] / below[split]
    means_above = (sums[-1] - sums[:-1][split]) / above[split]
    between = below[split] * above[split] * (means_above - means_below) ** 2
    # Equally good ones in a gap of the histogram: its middle.
    best = np.flatnonzero(split)[between >= between.max() * (1 - 1e-12)]
    return float(np.exp(edges[1:-1][best].mean()))


def _fill_holes(mask: NDArray[np.bool_], max_px: float) -> NDArray[np.bool_]:
    """Fill gaps up to an area; those that reach the border of the image are open, and stay."""
    gaps, areas = _components(~mask)
    fills = areas <= max_px
    fills[np.unique(np.concatenate([gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]]))] = False
    fills[0] = False
    return np.asarray(mask | fills[gaps])


def _large_pieces(mask: NDArray[np.bool_], min_px: float) -> NDArray[np.bool_]:
    """Keep the pieces of at least an area."""
    pieces, areas = _components(mask, WITH_DIAGONALS)
    is_large = areas >= min_px
    is_large[0] = False
    return np.asarray(is_large[pieces])


def _components(
    mask: NDArray[np.bool_], structure: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number of the connected piece of every pixel, 0 where the mask is false; and the pixels of each number."""
    labels, n_labels = ndimage.label(mask, structure=structure)
    return labels, np.bincount(labels.ravel(), minlength=n_labels + 1)


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
    blots, areas = _components(inked, WITH_DIAGONALS)
    is_stroke = np.zeros(len(areas), dtype=bool)
    is_stroke[np.unique(blots[filled & inked])] = True
    is_stroke &= areas * mpp**2 >= MIN_STROKE_UM2
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
