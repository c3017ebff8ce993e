"""How many times an image is enlarged for the patches of an encoder, and when that is said."""

from __future__ import annotations

from spahgc._logging import warn
from spahgc.pp._embed.patches import PatchCutter
from spahgc.pp._embed.slide_image import SlideImage

MAX_ENLARGEMENT = 2.0
"""Times by which an image may be enlarged for the narrowest patch before a warning says so. Up to it a nucleus, about 8 um
wide, is still several pixels of the image at the usual 0.5 um of an encoder; beyond, tissue is seen and cells are not."""


def enlargement(cutter: PatchCutter) -> float:
    """Pixels of the encoder's input for one of the image, along a side of the narrowest patch; below 1 it is reduced."""
    return cutter.out_px / (cutter.width_px * min(cutter.scales))


def warn_of_enlarged(slide: SlideImage, cutter: PatchCutter) -> None:
    """Say so where an image is enlarged more than twice.

    Warns
    -----
    UserWarning
        With the image, the number of times and the pixels, in microns where these are known.
    """
    times = enlargement(cutter)
    if times <= MAX_ENLARGEMENT:
        return
    pixels = "" if slide.mpp is None else f", from pixels of {slide.mpp:.3g} um to {slide.mpp / times:.3g} um"
    warn(
        f'slide "{slide.name}": its {slide.kind} is enlarged {times:.1f} times for the patches of the encoder{pixels}. Cells '
        "cannot be seen in them, the texture and the shape of the tissue can. Pass image= with a finer image if there is one.",
        stacklevel=3,
    )


def describe_image(slide: SlideImage, cutter: PatchCutter) -> dict[str, str | float]:
    """What the patches of a slide were cut from: ``image``, ``enlarged`` (times), and ``mpp`` (um) where it is known."""
    known = {} if slide.mpp is None else {"mpp": float(slide.mpp)}
    return {"image": slide.kind, "enlarged": float(enlargement(cutter)), **known}
