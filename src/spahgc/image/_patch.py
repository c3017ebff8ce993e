"""The square of an image around a point, and whether points lie on the image at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spahgc.image._resample import check_interpolation, read_padded, resample
from spahgc.image._source import ImageSource, Pixels

SAME_WIDTH_PX = 1e-6
"""Widths that differ by less are equal, and need no interpolation."""


def cut_patch(
    image: ImageSource, center: Sequence[float], *, width_px: float, out_px: int, interpolation: str = "bicubic"
) -> tuple[Pixels, bool]:
    """Cut the square of `width_px` image pixels centred on a point, and bring it to `out_px` pixels a side.

    Parameters
    ----------
    image
        The image.
    center
        (x, y) in continuous pixel coordinates, x to the right, y downwards: pixel i covers [i, i + 1).
    width_px
        Side of the square, pixels of the image; fractions are honoured.
    out_px
        Side of the result, pixels. Where it equals `width_px`, pixels are copied from the nearest whole position.
    interpolation
        nearest, area, bilinear, bicubic or lanczos. Filters are widened for a coarser result, so that all pixels of
        the square count (area weighs them equally; embeddings depend on the filter that the encoder was made with).

    Returns
    -------
    The patch, uint8, out_px x out_px x 3, and whether the square reaches past the image. What lies outside is white.

    Notes
    -----
    Of a pyramid the coarsest level is read whose pixels are no larger than those of the result: never the whole slide,
    and no more than about four times the pixels of the result. Such a patch differs slightly from one of the full
    resolution, because its pixels were averaged (and often compressed) once more by the writer of the pyramid.

    Raises
    ------
    ValueError
        If a width is not positive, the centre is not finite, or the filter is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from spahgc.image import cut_patch, open_image
    >>> image = open_image(np.zeros((40, 60, 3), dtype=np.uint8))
    >>> patch, padded = cut_patch(image, (59.0, 20.0), width_px=10, out_px=10)
    >>> patch.shape, padded, int(patch[0, 0, 0]), int(patch[0, -1, 0])
    ((10, 10, 3), True, 0, 255)
    """
    check_interpolation(interpolation)
    x, y = float(center[0]), float(center[1])
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"the centre of a patch is ({x}, {y}); pass finite pixel coordinates (x, y)")
    if not (math.isfinite(width_px) and width_px > 0 and out_px > 0):
        raise ValueError(f"width_px is {width_px} and out_px is {out_px}; pass positive numbers of pixels")

    if abs(width_px - out_px) <= SAME_WIDTH_PX:
        # Half a pixel rounds up everywhere, so that neighbours keep their distance (round() goes to the even one).
        left, top = (math.floor(value - out_px / 2 + 0.5) for value in (x, y))
        patch = read_padded(image, left, top, left + out_px, top + out_px)
        return patch, _reaches_past(image, left, top, out_px)
    left_edge, top_edge = x - width_px / 2, y - width_px / 2
    box = (left_edge, top_edge, left_edge + width_px, top_edge + width_px)
    return resample(image, box, (out_px, out_px), interpolation), _reaches_past(image, left_edge, top_edge, width_px)


def _reaches_past(image: ImageSource, left: float, top: float, width: float) -> bool:
    """Tell whether a square is not altogether inside the image."""
    return left < 0 or top < 0 or left + width > image.width or top + width > image.height


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
