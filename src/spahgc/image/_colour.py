"""Greyscale and transparent pixels become RGB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spahgc.image._damage import UnusableImageError
from spahgc.image._source import Pixels

WHITE = 255
"""Value of the background of a brightfield slide; what lies outside the image, or is transparent, gets it."""
OPAQUE = 255
CHANNEL_NAMES = {1: "greyscale", 3: "RGB", 4: "RGBA"}


def as_rgb(pixels: NDArray[np.uint8]) -> Pixels:
    """Make RGB of greyscale (repeated) and RGBA (laid over white) pixels; RGB, and opaque RGBA, give a view.

    Parameters
    ----------
    pixels
        uint8, height x width, or height x width x 1, 3 or 4.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 3:
        return pixels
    if (pixels[:, :, 3] == OPAQUE).all():
        return pixels[:, :, :3]
    alpha = pixels[:, :, 3:].astype(np.float32) / OPAQUE
    return np.rint(pixels[:, :, :3] * alpha + WHITE * (1 - alpha)).astype(np.uint8)


def check_pixels(shape: tuple[int, ...], dtype: np.dtype[np.generic], name: str) -> None:
    """Refuse arrays that are no uint8 image.

    Raises
    ------
    UnusableImageError
        If the data type is not uint8, a side is 0, or the last axis is no known number of channels.
    """
    if dtype != np.uint8:
        raise UnusableImageError(
            f"{name} has data type {dtype}, but uint8 with values 0 to 255 is needed. {_conversion(shape, dtype)}"
        )
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in CHANNEL_NAMES):
        raise UnusableImageError(
            f"{name} has shape {shape}, but height x width x 3 (RGB) is needed; "
            "height x width, 1 or 4 channels, and the channels as first axis, are accepted too."
        )
    if min(shape) < 1:
        raise UnusableImageError(f"{name} has shape {shape}: it holds no pixels. Pass an image of at least 1 x 1 px.")


def _conversion(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> str:
    """How pixels of another type become 8 bits, without any being cut off; nobody can tell their range by the type."""
    if dtype.kind == "f":
        return (
            "Convert it, e.g. (image * 255).round().astype('uint8') if its values lie between 0 and 1, or "
            "image.round().astype('uint8') if they lie between 0 and 255."
        )
    if len(shape) == 2 or (len(shape) == 3 and shape[-1] not in (3, 4)):
        return (
            "One channel of more than 8 bits, or several that are not RGB, is how fluorescence is stored, and H&E has "
            "colours: pass the H&E image."
        )
    top = int(np.iinfo(dtype.char).max) if dtype.kind in "iu" else 0
    scaled = f"(image / {top} * 255).round().astype('uint8') if its values reach to {top:,}, or " if top else ""
    return f"Convert it, e.g. {scaled}image.astype('uint8') if they end at 255."
