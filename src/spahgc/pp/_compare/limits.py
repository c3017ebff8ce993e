"""From where on target and references differ much, and what can then be done.

The limits rest on slides of four tissues that were measured (HER2-positive breast, mouse spinal cord and olfactory bulb,
kidney organoids; 19 sections), each compared with the others of its tissue and with those of other tissues:
``benchmarks/drift.py`` prints the table.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

LARGE_STAIN_ANGLE = 15.0
"""Degrees between stains. Sections of one tissue have 5 in the median and 11 in nine of ten pairs, of different tissues 13 and 18."""
LARGE_DENSITY = 0.25
"""Difference of mean optical densities, natural logarithm. Sections of one tissue have at most 0.21."""
LARGE_BRIGHTNESS = 40.0
"""Difference of the mean brightness of tissue, of 255. Sections of one tissue have at most 36."""
LARGE_SHARPNESS = 5.0
"""Factor between sharpnesses. Sections of one tissue have at most 1.7, of two patients 4.2, of different tissues 5 to 38."""
LARGE_RESOLUTION = 1.5
"""Factor between the microns per pixel of the images from which patches were cut."""
LARGE_BEYOND = 0.3
"""Share of spots beyond the range of the references. Sections have at most 0.14 from others of their tissue and laboratory;
a patient of another stain 0.7, another tissue 0.95 and more."""

STAIN, BRIGHTNESS, SHARPNESS, RESOLUTION, EMBEDDING = "stain", "brightness", "sharpness", "resolution", "embedding"

ADVICE = {
    STAIN: 'embed target and references again with pp.embed(..., stain_normalization="macenko")',
    BRIGHTNESS: 'embed target and references again with pp.embed(..., stain_normalization="reinhard")',
    SHARPNESS: "scan the blurred slide again, or take references that are as sharp",
    RESOLUTION: "take images of like resolution, or correct mpp=",
    EMBEDDING: "take other references: spahgc.pp.choose_references finds the nearest",
}
"""What can be done where something differs much."""

COLUMNS = {
    "stain_angle": (STAIN, LARGE_STAIN_ANGLE, False),
    "optical_density": (STAIN, LARGE_DENSITY, False),
    "brightness": (BRIGHTNESS, LARGE_BRIGHTNESS, False),
    "sharpness": (SHARPNESS, LARGE_SHARPNESS, True),
    "resolution": (RESOLUTION, LARGE_RESOLUTION, True),
    "beyond": (EMBEDDING, LARGE_BEYOND, False),
}
"""Columns of a comparison that have a limit: what they speak of, the limit, and whether it is a factor in either direction.

The distance of slide means has none: it is large as well where the same tissues have other shares of the slide. Sections had at
most 1.6 from others of their tissue, those of another tissue 2.0 to 12."""


def large(values: Mapping[str, float]) -> list[str]:
    """What of a row of a comparison is large, each once; what is not known is not."""
    found = [what for column, (what, limit, factor) in COLUMNS.items() if size(values[column], factor) > limit]
    return list(dict.fromkeys(found))


def size(value: float, factor: bool) -> float:
    """What is compared with a limit: the absolute value, of a factor the larger one of it and its inverse."""
    if not factor:
        return abs(value)
    return float(np.exp(abs(np.log(value)))) if value > 0 else float("nan")


def advice(found: list[str]) -> str:
    """What can be done about it, in words; nothing where nothing is large."""
    return "; ".join(ADVICE[what] for what in found)
