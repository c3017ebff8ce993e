"""Pictures as other packages keep them, of 8, 12 or 16 bits or between 0 and 1, become RGB of 8 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spahgc._logging import warn
from spahgc.image._array import image_axes
from spahgc.image._colour import as_rgb, check_pixels
from spahgc.image._source import Pixels

BITS = (8, 12, 16)
"""Bits a channel that cameras give. A brightfield picture has a bright background, so its largest value tells which."""


def rgb_of_8_bits(picture: object, name: str) -> Pixels:
    """Make RGB of 8 bits of a picture, whatever its kind of number.

    Parameters
    ----------
    picture
        Height x width, or height x width x 1, 3 (RGB) or 4 (RGBA, laid over white); the channels may come first where the
        shape leaves no doubt. uint8 is taken as it is. Floats from 0 to 1 are stretched to 255. Other numbers, whole or
        not, count as 8 bits up to 255, as 12 bits up to 4,095 (with a warning) and as 16 bits up to 65,535.
    name
        What messages call it.

    Returns
    -------
    uint8, height x width x 3. RGB of 8 bits is not copied.

    Raises
    ------
    ValueError
        If it holds no numbers, NaN, negative numbers, or larger ones than 16 bits have, or has not the shape of an image.
    """
    array = np.asarray(picture)
    if image_axes(array.shape) == "cyx":
        array = np.moveaxis(array, 0, -1)
    if array.dtype != np.uint8 and array.size and array.dtype.kind in "iuf":
        array = _scaled(array, name)
    check_pixels(array.shape, array.dtype, name)
    return as_rgb(array)


def _scaled(array: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    low, high = float(np.min(array)), float(np.max(array))
    if not (np.isfinite([low, high]).all() and 0 <= low and high < 2 ** BITS[-1]):
        raise ValueError(
            f"{name} has values from {low:g} to {high:g} (data type {array.dtype}), which are those of no picture: uint8 "
            "from 0 to 255 is needed. Convert it, or remove it."
        )
    if array.dtype.kind == "f" and high <= 1:
        white = 1.0
    else:
        bits = next(bits for bits in BITS if high < 2**bits)
        white = float(2**bits - 1)
        if bits not in (BITS[0], BITS[-1]):
            warn(
                f"{name} has values up to {high:g} (data type {array.dtype}): they are taken as {bits} bits a channel, of "
                f"which {white:g} is white. Convert it to uint8 if that is wrong.",
                stacklevel=2,
            )
    return np.rint(np.asarray(array, dtype=np.float32) * np.float32(255 / white)).astype(np.uint8)
