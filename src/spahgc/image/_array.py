"""An image that is in memory already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spahgc.image._colour import CHANNEL_NAMES, as_rgb, check_pixels
from spahgc.image._source import ClosesItself, Pixels, check_region


def image_axes(shape: tuple[int, ...]) -> str:
    """Order of the axes of an image by its shape: yx, yxc, cyx where only the first can be channels, else nothing."""
    if len(shape) == 3 and shape[0] in CHANNEL_NAMES and shape[2] not in CHANNEL_NAMES:
        return "cyx"
    return {2: "yx", 3: "yxc"}.get(len(shape), "")


class ArrayImage(ClosesItself):
    """A numpy array (or memory map) as an image; it is not copied.

    Parameters
    ----------
    pixels
        uint8, height x width x 3 (RGB). Greyscale is repeated, RGBA is laid over white. The channels may come first
        where the shape leaves no doubt.
    name
        What errors call the array.

    Raises
    ------
    ValueError
        If the data type or the shape is not that of an image.
    """

    mpp: float | None = None

    def __init__(self, pixels: NDArray[np.uint8], *, name: str = "the image") -> None:
        if image_axes(pixels.shape) == "cyx":
            pixels = np.moveaxis(pixels, 0, -1)
        check_pixels(pixels.shape, pixels.dtype, name)
        self._pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def read(self, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a region that lies inside the image: uint8, height x width x 3."""
        check_region(self, left, top, width, height)
        region = self._pixels[top : top + height, left : left + width]
        return np.array(as_rgb(region), copy=True, order="C")
