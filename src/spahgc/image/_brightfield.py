"""Whether an image can be H&E at all: light through stained tissue, and not fluorescence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spahgc._logging import warn
from spahgc.image._damage import UnusableImageError
from spahgc.image._resample import resample
from spahgc.image._source import ImageSource, Pixels

BLACK = 16
"""Brightest channel up to which a pixel (0 to 255) is a black frame of a scan, or unlit, and says nothing."""
MIN_LIT_SHARE = 0.01
"""Share of pixels above that; below, the picture is black."""
MIN_DARKEST_CHANNEL = 30
"""Median over the lit pixels of the darkest of their three channels, from which on light came through all three.

The darkest windows of 64 px of measured H&E have 53 to 136, whole slides 160 and more; fluorescence in colours on black
ground has 0 to 10, since what glows in one colour is dark in the others.
"""
COLOURED = 12
"""Difference of a pixel's channels from which on it has a colour; sensors and JPEG make some levels of it."""
MIN_COLOURED_SHARE = 1e-3
"""Share of coloured pixels of a picture that is not grey. The palest measured H&E has 0.07, glass included."""
MIN_GREY_GROUND = 100
"""Median of a grey picture above which its ground is bright: H&E without its colours. Fluorescence has 1 to 50."""
SAMPLED_SPOTS = 64
"""Spots whose surroundings are looked at, evenly spaced in their order."""
SAMPLED_PX = 224
"""Width of these surroundings, pixels of the image."""
SAMPLE_PX = 16
"""Width to which they are reduced: means over some nuclei."""


def check_brightfield(pixels: Pixels, label: str) -> None:
    """Refuse pixels that no bright-field microscope has made of stained tissue.

    H&E transmits light: what is stained is darker than the ground, and coloured. A picture is refused if it is black, if it
    is grey on dark ground (one channel of fluorescence), or if light is missing in one of its colours nearly everywhere
    (fluorescence in colours). Ground of any brightness above that passes, as does a picture full of tissue; a black
    frame around colours is not counted. A grey picture on bright ground may be H&E without its colours, and passes with a warning; so does
    another stain, such as DAB, without one: it cannot be told.

    Parameters
    ----------
    pixels
        A small picture of the slide, or samples of it, uint8, ... x 3.
    label
        How messages call it, e.g. ``'slide "C2"'``.

    Raises
    ------
    UnusableImageError
        If it cannot be H&E.

    Examples
    --------
    >>> import numpy as np
    >>> from spahgc.image._brightfield import check_brightfield
    >>> check_brightfield(np.full((8, 8, 3), (180, 110, 170), dtype=np.uint8), "the slide")
    >>> check_brightfield(np.full((8, 8, 3), 40, dtype=np.uint8), "the slide")
    Traceback (most recent call last):
    ...
    spahgc.image._damage.UnusableImageError: the slide is no H&E image: it is grey and dark ...
    """
    flat = pixels.reshape(-1, 3)
    darkest, brightest = flat.min(axis=1), flat.max(axis=1)
    lit = brightest > BLACK
    if lit.mean() < MIN_LIT_SHARE:
        raise _refusal(label, f"it is black, {1 - lit.mean():.1%} of its pixels have values up to {BLACK} of 255")
    # Of a grey picture black counts as well: it is the ground of fluorescence sooner than a frame.
    middle = float(np.median(brightest))
    darkest, brightest = darkest[lit], brightest[lit]
    grey = float((brightest - darkest >= COLOURED).mean()) < MIN_COLOURED_SHARE
    if grey and middle < MIN_GREY_GROUND:
        raise _refusal(label, f"it is grey and dark (median {middle:.0f} of 255), as a channel of fluorescence is")
    if float(np.median(darkest)) < MIN_DARKEST_CHANNEL:
        raise _refusal(
            label,
            f"its ground is dark (the darkest channel has a median of {np.median(darkest):.0f} of 255), as that of "
            "fluorescence in colours is",
        )
    if grey:
        warn(
            f"{label} has no colours: if it is H&E, its stains cannot be told apart, and encoders were made for coloured "
            "images. Pass the coloured image if there is one.",
            stacklevel=3,
        )


def _refusal(label: str, found: str) -> UnusableImageError:
    return UnusableImageError(
        f"{label} is no H&E image: {found}, while H&E is stained tissue before bright light. Pass the H&E image of the "
        "slide. If it is one that was inverted, or stretched to another range, pass it as it was scanned."
    )


def check_patches(patches: Pixels, padded: NDArray[np.bool_], label: str) -> None:
    """Refuse patches that cannot be H&E, see :func:`check_brightfield`; those that reach past the image count if all do.

    Parameters
    ----------
    patches
        uint8, patches x height x width x 3.
    padded
        Which of them reach past the image, where they are white.
    label
        How messages call the image.
    """
    inside = patches if padded.all() else patches[~padded]
    every, step = max(1, len(inside) // SAMPLED_SPOTS), max(1, inside.shape[1] // (2 * SAMPLE_PX))
    check_brightfield(inside[::every, ::step, ::step], label)


def sample_around(image: ImageSource, xy: NDArray[np.float64]) -> Pixels:
    """What lies around some of the spots, each square brought to 16 x 16 px; what is outside the image is left out.

    Parameters
    ----------
    image
        The image.
    xy
        Spot centres (x, y), spots x 2, pixels of the image.

    Returns
    -------
    uint8, sampled spots x 16 x 16 x 3.
    """
    chosen = np.unique(np.linspace(0, len(xy) - 1, min(SAMPLED_SPOTS, len(xy))).round().astype(np.int64))
    samples = np.empty((len(chosen), SAMPLE_PX, SAMPLE_PX, 3), dtype=np.uint8)
    sides = (min(SAMPLED_PX, image.width), min(SAMPLED_PX, image.height))
    limits = (image.width - sides[0], image.height - sides[1])
    for sample, center in zip(samples, xy[chosen], strict=True):
        left, top = (
            min(max(value - side / 2, 0.0), limit)
            for value, side, limit in zip(center.tolist(), sides, limits, strict=True)
        )
        sample[:] = resample(image, (left, top, left + sides[0], top + sides[1]), (SAMPLE_PX, SAMPLE_PX), "area")
    return samples
