"""Pyramids: several sizes of one image, which of them serves a patch, and where its pixels lie on the full one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np

from spahgc.image._source import ClosesItself, ImageSource, Level, Pixels, PyramidSource

SAME_SCALE = 1e-3
"""Relative difference below which a level counts as not coarser than what is wanted (rounded resolutions)."""


class PyramidImage(ClosesItself):
    """Images of one slide, each smaller than the one before, behind the protocol of one.

    Parameters
    ----------
    images
        The full resolution first. They are closed with the pyramid.
    cut_at_start
        Whoever wrote the levels dropped the pixels that fill no block at the left and at the top.
    """

    def __init__(self, images: Sequence[ImageSource], *, cut_at_start: bool = False) -> None:
        self._images = tuple(images)
        self.levels = make_levels(((image.width, image.height) for image in self._images), cut_at_start=cut_at_start)
        self.width, self.height, self.mpp = self._images[0].width, self._images[0].height, self._images[0].mpp

    def read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region of the full resolution: uint8, height x width x 3."""
        return self._images[0].read(left, top, width, height)

    def read_level(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that lies inside a level, in pixels of this level: uint8, height x width x 3."""
        return self._images[level].read(left, top, width, height)

    def close(self) -> None:
        """Release the files and the pixels of all levels."""
        for image in self._images:
            image.close()


def make_levels(sizes: Iterable[tuple[int, int]], *, cut_at_start: bool = False) -> tuple[Level, ...]:
    """Describe the levels of a pyramid by their sizes.

    Scanners and the writers of pyramids join whole blocks of pixels and drop, or keep as a last narrow one, the block
    that the border cuts. So where a size is the full one divided by a whole number and rounded down or up, that number
    is the scale: 500 px of 1001 are blocks of 2, not of 2.002. Elsewhere the image was resized: the quotient of the
    sizes is the scale, one for each axis.

    Parameters
    ----------
    sizes
        Width and height of each level, the full resolution first.
    cut_at_start
        The block that does not fit was dropped at the left and at the top.
    """
    sizes = list(sizes)
    full_width, full_height = sizes[0]
    levels = []
    for width, height in sizes:
        scale_x, scale_y = full_width / width, full_height / height
        # The longer side tells the number best.
        block = max(1, round(scale_x if full_width >= full_height else scale_y))
        if abs(width - full_width / block) < 1 and abs(height - full_height / block) < 1:
            scale_x = scale_y = float(block)
        left, top = (full_width - width * scale_x, full_height - height * scale_y) if cut_at_start else (0.0, 0.0)
        levels.append(Level(width, height, scale_x, scale_y, max(left, 0.0), max(top, 0.0)))
    return tuple(levels)


def at_level(image: ImageSource, pixel_side: float) -> LevelView | ImageSource:
    """Choose the coarsest level whose pixels are no larger than those that are wanted.

    Parameters
    ----------
    image
        The image. Without ``levels`` it is its own only level.
    pixel_side
        Side of a wanted pixel, in pixels of the full resolution.
    """
    levels: tuple[Level, ...] = tuple(getattr(image, "levels", ()))
    best = 0
    for index, level in enumerate(levels):
        coarseness = max(level.scale_x, level.scale_y)
        if coarseness <= pixel_side * (1 + SAME_SCALE) and coarseness > max(levels[best].scale_x, levels[best].scale_y):
            best = index
    return LevelView(cast("PyramidSource", image), best) if best > 0 else image


class LevelView(ClosesItself):
    """One level of a pyramid as an image of its own, which covers all of the full-resolution image.

    What the level lacks at the border, less than one of its pixels, repeats its outermost pixels.

    Parameters
    ----------
    image
        An image with ``levels`` and ``read_level``.
    index
        Number of the level.
    """

    mpp: float | None = None

    def __init__(self, image: PyramidSource, index: int) -> None:
        self._image = image
        self._index = index
        level = self._level = image.levels[index]
        # Columns and rows that are put before the first one.
        self._before = (math.ceil(level.left / level.scale_x), math.ceil(level.top / level.scale_y))
        self.width = self._before[0] + max(math.ceil((image.width - level.left) / level.scale_x), level.width)
        self.height = self._before[1] + max(math.ceil((image.height - level.top) / level.scale_y), level.height)

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        """Bring a box from pixels of the full resolution to those of this view."""
        x0, x1 = ((x - self._level.left) / self._level.scale_x + self._before[0] for x in (left, right))
        y0, y1 = ((y - self._level.top) / self._level.scale_y + self._before[1] for y in (top, bottom))
        return x0, y0, x1, y1

    def read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that lies inside the view: uint8, height x width x 3."""
        x, n_columns, x_missing = _inner(left - self._before[0], width, self._level.width)
        y, n_rows, y_missing = _inner(top - self._before[1], height, self._level.height)
        region = self._image.read_level(self._index, x, y, n_columns, n_rows)
        missing = (y_missing, x_missing, (0, 0))
        return np.pad(region, missing, mode="edge") if any(map(any, missing)) else region


def _inner(first: int, length: int, available: int) -> tuple[int, int, tuple[int, int]]:
    """Part of an interval that a level has, at least one pixel; and how much is missing before and after it."""
    start = min(max(first, 0), available - 1)
    end = max(min(first + length, available), start + 1)
    before = max(start - first, 0)
    return start, end - start, (before, length - before - (end - start))
