"""A rectangle of an image, given in fractions of pixels, at another size; and the whole image as a small one."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from spahgc.image._colour import WHITE
from spahgc.image._levels import LevelView, at_level
from spahgc.image._source import ImageSource, Pixels

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Names of filters as encoder records use them."""
REACH_PX = {"nearest": 0.0, "area": 0.5, "bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
"""How far a filter reaches from the centre of a pixel, in pixels of the coarser of the two rasters."""
BAND_ROWS = 256
"""Rows of the small image that are made at once, at most."""
BAND_PIXELS = 32 * 10**6
"""Pixels of the large image that are held at once, 7 bytes each; a slide without levels may be 100,000 px wide."""
ROUNDING_PX = 1e-6
"""By how much a side may fall short of a whole number of pixels, and still count as that."""


def check_interpolation(interpolation: str) -> None:
    """Refuse a filter that does not exist.

    Raises
    ------
    ValueError
        If `interpolation` is none of nearest, area, bilinear, bicubic, lanczos.
    """
    if interpolation not in FILTERS:
        raise ValueError(f'interpolation="{interpolation}" is not known; pass one of {", ".join(sorted(FILTERS))}')


def resample(
    image: ImageSource, box: tuple[float, float, float, float], size: tuple[int, int], interpolation: str
) -> Pixels:
    """Resample a rectangle of the image, from the level of its pyramid that is just fine enough.

    Where the wanted pixels are larger than those of a coarser level, that level is read: fewer pixels, already averaged
    by whoever wrote the pyramid. The result then differs slightly from what the full resolution gives. An image without
    levels is always read at full resolution.

    Parameters
    ----------
    image
        The image.
    box
        Left, top, right, bottom in continuous pixel coordinates of the full resolution: pixel i covers [i, i + 1).
    size
        Width and height of the result, pixels.
    interpolation
        Name of the filter. When the result is coarser than the image, the filter widens accordingly (no aliasing).

    Returns
    -------
    uint8, height x width x 3. Where the box reaches past the image, the outside counts as white.
    """
    left, top, right, bottom = box
    source = at_level(image, min((right - left) / size[0], (bottom - top) / size[1]))
    if isinstance(source, LevelView):
        left, top, right, bottom = source.box(left, top, right, bottom)
    x0, x1 = _span(left, right, source.width, size[0], interpolation)
    y0, y1 = _span(top, bottom, source.height, size[1], interpolation)
    pixels = Image.fromarray(read_padded(source, x0, y0, x1, y1))
    inner = (left - x0, top - y0, right - x0, bottom - y0)
    return np.asarray(pixels.resize(size, resample=FILTERS[interpolation], box=inner)).copy()


def _span(low: float, high: float, length: int, out: int, interpolation: str) -> tuple[int, int]:
    """Whole pixels of one axis that the filter needs, first and one past the last."""
    margin = math.ceil(REACH_PX[interpolation] * max((high - low) / out, 1.0)) + 1
    first, last = math.floor(low) - margin, math.ceil(high) + margin
    # A margin past the border of a box that lies inside would mix white into tissue: the filter is cut there instead.
    return (max(first, 0) if low >= 0 else first), (min(last, length) if high <= length else last)


def read_padded(image: ImageSource, left: int, top: int, right: int, bottom: int) -> Pixels:
    """Read a rectangle that may reach past the image; what lies outside is white."""
    x0, x1 = max(left, 0), min(right, image.width)
    y0, y1 = max(top, 0), min(bottom, image.height)
    if (x0, y0, x1, y1) == (left, top, right, bottom):
        return image.read(left, top, right - left, bottom - top)
    pixels = np.full((bottom - top, right - left, 3), WHITE, dtype=np.uint8)
    if x0 < x1 and y0 < y1:
        pixels[y0 - top : y1 - top, x0 - left : x1 - left] = image.read(x0, y0, x1 - x0, y1 - y0)
    return pixels


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
    width, height = (max(1, int(side * scale + ROUNDING_PX)) for side in (image.width, image.height))
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
