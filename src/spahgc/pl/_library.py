"""Picture, scale and size of the spots as ``uns["spatial"]`` tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from spahgc._keys import SPATIAL
from spahgc._spots.pitch import SPOT_OF_PITCH
from spahgc._validate import quoted
from spahgc.image._eight_bits import rgb_of_8_bits
from spahgc.image._source import Pixels

RESOLUTIONS = ("hires", "lowres")
"""Images of a library, the preferred one first."""


def best_image(library: Mapping[str, Any], factors: Mapping[str, Any]) -> tuple[Pixels | None, float]:
    """The best image there is as RGB of 8 bits, and its pixels per pixel of full resolution; without one ``None`` and 1."""
    images = library.get("images", {})
    for resolution in RESOLUTIONS:
        if resolution in images:
            name = f"tissue_{resolution}_scalef"
            if name not in factors:
                raise KeyError(
                    f'scale factor "{name}" of the image "{resolution}" not found in uns["{SPATIAL}"], scale factors '
                    f"are: {quoted(factors)}. Write it there (image pixels per full-resolution pixel), or remove the "
                    "image to draw the spots alone."
                )
            return rgb_of_8_bits(images[resolution], f"the {resolution} image of the slide"), float(factors[name])
    return None, 1.0


def spot_diameter(factors: Mapping[str, Any], xy: np.ndarray) -> float:
    """Diameter of a spot in full-resolution pixels."""
    known = positive(factors.get("spot_diameter_fullres"))
    if known is not None:
        return known
    nearest = cKDTree(xy).query(xy, k=2)[0][:, 1]
    pitch = float(np.median(nearest))
    if not np.isfinite(pitch) or pitch <= 0:
        raise ValueError(
            f"the size of the spots is unknown: there is no scale factor spot_diameter_fullres, and {len(xy)} spots at "
            f"{len(np.unique(xy, axis=0))} places do not tell it. Write the diameter in full-resolution pixels into "
            f'uns["{SPATIAL}"][library]["scalefactors"]["spot_diameter_fullres"].'
        )
    return SPOT_OF_PITCH * pitch


def positive(value: Any) -> float | None:
    """A number above 0, or ``None``."""
    if value is None or np.ndim(value) != 0:
        return None
    number = float(value)
    return number if np.isfinite(number) and number > 0 else None
